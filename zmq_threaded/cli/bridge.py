# SPDX-License-Identifier: Apache-2.0
"""What ``status`` says of a cloud that moves over a bridge: who listens where,
and whether the next step is safe.
"""

import collections
import dataclasses
from typing import Any

from zmq_threaded import errors
from zmq_threaded.bridge import survey
from zmq_threaded.cli import output
from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import problem

_COLUMNS = ('topic', 'on both', 'only on zmq', 'not on the other now',
            'only on the other', 'messages on the other')


@dataclasses.dataclass
class Topic:
    """One topic, over all exchanges: rabbit has one queue for them.

    :ivar both: those with a bridge who listen on the other side at the moment
    :ivar not_now: those with a bridge who do not; they try again
    :ivar queues: those of the other side, without those of single servers
    :ivar of_servers: the queues of single servers

    Thread: any.
    """

    name: str
    both: int = 0
    zmq: int = 0
    not_now: int = 0
    queues: set[str] = dataclasses.field(default_factory=set)
    of_servers: set[str] = dataclasses.field(default_factory=set)

    def row(self, found: survey.Queues | None) -> dict[str, Any]:
        """What is known of it; None for what is not."""
        told = [found[name] for name in self.queues
                if name in found] if found is not None else []
        servers = [found[name] for name in self.of_servers
                   if name in found] if found is not None else []
        consumers = sum(consumers for _, consumers in told)
        return {'topic': self.name, 'on both': self.both,
                'only on zmq': self.zmq,
                'not on the other now': self.not_now,
                'only on the other': None if found is None else max(
                    0, consumers - self.both),
                'missing on the other': None if found is None else max(
                    0, self.both - consumers),
                'messages on the other': None if found is None else sum(
                    messages for messages, _ in told + servers)}


def of(conf: Any, url: str, cloud: clouds.Cloud) -> dict[str, Any]:
    """What is known, for programs; empty if nobody has a bridge.

    :param url: of rpc_zmq_bridge; '' if the command was given none
    """
    there = [process for process in problem.alive(cloud)
             if process.facts['kind'] == 'runtime']
    senders = collections.Counter(
        process.facts['process']['bridge'] for process in there)
    if not url and not senders['other'] and not senders['zmq']:
        return {}
    topics = _topics(there)
    found, why = _ask(conf, url, topics)
    rows = [each.row(found) for each in topics]
    sends = {'other': senders['other'], 'zmq': senders['zmq'],
             'without': senders['']}
    return {'sends': sends, 'topics': rows, 'why': why,
            'verdict': _verdict(sends, rows, why)}


def parts(known: dict[str, Any]) -> list[Any]:
    """For people."""
    if not known:
        return []
    sends = known['sends']
    return [f'Bridge: {sends["other"]} processes send over the other driver, '
            f'{sends["zmq"]} have a bridge and send over zmq, '
            f'{sends["without"]} have no bridge.',
            output.Table('Who listens where', _COLUMNS, [
                ['?' if row[column] is None else row[column]
                 for column in _COLUMNS] for row in known['topics']]),
            *known['verdict']]


def _topics(there):
    topics: dict[str, Topic] = {}
    for process in there:
        for service in process.facts['services']:
            for name in {name for _, name in service['topics']}:
                _count(topics.setdefault(name, Topic(name)), service,
                       bool(process.facts['process']['bridge']))
    return [topics[name] for name in sorted(topics)]


def _count(topic, service, has_bridge):
    if has_bridge and service['other_half']:
        topic.both += 1
    elif has_bridge:
        topic.not_now += 1
    else:
        topic.zmq += 1
    topic.queues.add(service['pool'] or topic.name)
    if service['kind'] == clouds.RPC and service['server']:
        topic.of_servers.add(f'{topic.name}.{service["server"]}')


def _ask(conf, url, topics):
    if not url:
        return None, ('rpc_zmq_bridge is not set in the configuration that '
                      'this command was given')
    names = sorted({name for topic in topics
                    for name in topic.queues | topic.of_servers})
    try:
        return survey.ask(conf, url, names), ''
    except (survey.CannotAsk, errors.ConfigurationError) as error:
        return None, str(error)


def _names(rows, column):
    return problem.few(row['topic'] for row in rows if row[column])


def _verdict(sends, rows, why):
    lines = []
    only_zmq = _names(rows, 'only on zmq')
    if sends['other'] and only_zmq:
        lines.append(f'WRONG: what is sent over the other driver does not '
                     f'reach the services that are only on zmq: {only_zmq}. '
                     'Go back to step 2 with those that send over the other '
                     'driver, or give these services a bridge.')
    not_now = _names(rows, 'not on the other now')
    if not_now and sends['other']:
        lines.append('There are services with a bridge that do not listen on '
                     f'the other driver at the moment: {not_now}. They try '
                     'again, and their logs say why.')
    if why:
        return [*lines, 'The other side cannot be asked, so it is not known '
                f'whether the next step is safe: {why}.']
    only_other = _names(rows, 'only on the other')
    if only_other:
        return [*lines, 'Step 2 is NOT SAFE yet: some listen only on the '
                f'other driver: {only_other}.']
    missing = _names(rows, 'missing on the other')
    if sends['other'] and missing:
        return [*lines, 'It is NOT KNOWN whether step 2 is safe: the broker '
                'has fewer consumers than there are services that mean to '
                f'listen on it: {missing}. Ask again in a minute.']
    if sends['other']:
        return [*lines, 'Step 2 (rpc_zmq_bridge_send=zmq) is safe for these '
                'topics: all who listen on the other driver listen on zmq.']
    waiting = _names(rows, 'messages on the other')
    if waiting:
        return [*lines, 'Step 3 is NOT SAFE yet: there are messages on the '
                f'other side: {waiting}.']
    return [*lines, 'Step 3 (without a bridge) is safe for these topics: '
            'nobody known here sends over the other driver, and its queues '
            'are empty.']
