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
from zmq_threaded.status import meters
from zmq_threaded.status import problem

_COLUMNS = ('topic', 'on both', 'only on zmq', 'not on the other now',
            'only on the other', 'bridged senders', 'ready on the other')
_ON_ZMQ = 'on both', 'only on zmq', 'not on the other now'
# In a row, what only the broker tells.
_OF_BROKER = ('only on the other', 'missing on the other',
              'ready on the other', 'unread on the other', 'queues')
# What a process cannot name any more.
_REST = meters.Trips(None).name
_SECOND_IS_SAFE = (
    'Step 2 (rpc_zmq_bridge_send=zmq) is safe for the topics on which '
    'somebody listens here: all who listen on the other driver listen on '
    'zmq.')


@dataclasses.dataclass
class Topic:
    """One topic, over all exchanges: rabbit has one queue for them.

    :ivar both: those with a bridge who listen on the other side at the moment
    :ivar not_now: those with a bridge who do not; they try again, or stop
    :ivar senders: processes with a bridge that have sent to it
    :ivar queues: those of the other side, without those of single servers
    :ivar of_servers: the queues of single servers

    Thread: any.
    """

    name: str
    both: int = 0
    zmq: int = 0
    not_now: int = 0
    senders: int = 0
    queues: set[str] = dataclasses.field(default_factory=set)
    of_servers: set[str] = dataclasses.field(default_factory=set)

    def names(self) -> set[str]:
        """All its queues, as far as they can be known from here."""
        own = {self.name} if self.senders else set()
        return self.queues | self.of_servers | own

    def row(self, answer: survey.Answer | None) -> dict[str, Any]:
        """What is known of it; None for what is not."""
        row = {'topic': self.name, 'on both': self.both,
               'only on zmq': self.zmq, 'not on the other now': self.not_now,
               'bridged senders': self.senders}
        return row | (dict.fromkeys(_OF_BROKER) if answer is None
                      else self._of_broker(answer.queues))

    def _of_broker(self, queues):
        found = {name: queues[name] for name in sorted(self.names())
                 if name in queues}
        consumers = sum(each.consumers for name, each in found.items()
                        if name not in self.of_servers)
        # Such a queue is filled by who sends, whether anybody ever reads.
        unread = [each for name, each in found.items() if not each.consumers
                  and name not in self.queues | self.of_servers]
        return {'only on the other': max(0, consumers - self.both),
                'missing on the other': max(0, self.both - consumers),
                'ready on the other': sum(
                    each.ready for each in found.values()),
                'unread on the other': sum(each.ready for each in unread),
                'queues': [{'name': name, **dataclasses.asdict(each)}
                           for name, each in found.items()]}


def of(conf: Any, url: str, cloud: clouds.Cloud) -> dict[str, Any]:
    """What is known, for programs; empty if nobody has a bridge.

    :param url: of rpc_zmq_bridge; '' if the command was given none
    """
    there = [process for process in problem.alive(cloud)
             if process.facts['kind'] == 'runtime']
    senders = collections.Counter(map(_bridge, there))
    if not url and not senders['other'] and not senders['zmq']:
        return {}
    topics = _topics(there)
    answer, why = _ask(conf, url, topics)
    rows = [each.row(answer) for each in topics]
    sends = {'other': senders['other'], 'zmq': senders['zmq'],
             'without': senders['']}
    lines = _lines(sends, rows)
    lines += ([f'The other side cannot be asked, so it is not known whether '
               f'the next step is safe: {why}.'] if answer is None
              else _verdict(sends, rows, _unseen(cloud, there),
                            survey.command(answer)))
    return {'sends': sends, 'topics': rows, 'why': why, 'verdict': lines}


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


# The topics

def _bridge(process):
    return process.facts['process']['bridge']


def _sent(process):
    return {each['topic'] for each in process.facts['sent']}


def _topics(there):
    topics: dict[str, Topic] = {}
    for process in there:
        for service in process.facts['services']:
            for name in {name for _, name in service['topics']}:
                _count(topics.setdefault(name, Topic(name)), service,
                       bool(_bridge(process)))
        if _bridge(process):
            for name in _sent(process) - {_REST}:
                topics.setdefault(name, Topic(name)).senders += 1
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
    names = sorted({name for topic in topics for name in topic.names()})
    try:
        return survey.ask(conf, url, names), ''
    except (survey.CannotAsk, errors.ConfigurationError) as error:
        return None, str(error)


def _unseen(cloud, there):
    """Why a part of the cloud cannot be seen from here."""
    reasons = []
    if cloud.trouble:
        reasons.append(f'the registry does not answer ({cloud.trouble})')
    heard = {process.facts['id'] for process in there}
    silent = [process for process in cloud.processes
              if process.facts['kind'] == 'runtime' and not process.is_gone()
              and process.facts['id'] not in heard]
    if silent:
        reasons.append('these processes say nothing at the moment: '
                       f'{problem.names(silent)}')
    untold = problem.untold_instances(cloud)
    if untold:
        reasons.append('no process tells of these services that the registry '
                       f'lists: {problem.listed_names(untold)}')
    cut = [process for process in there if _bridge(process)
           and (process.facts['left_out'].get('sent')
                or _REST in _sent(process))]
    if cut:
        reasons.append('these processes send to more topics than they can '
                       f'tell: {problem.names(cut)}')
    return reasons


# The lines

def _names(rows, column):
    return problem.few(row['topic'] for row in rows if row[column])


def _lines(sends, rows):
    """What is wrong at the moment, whatever the next step is."""
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
    return lines


def _verdict(sends, rows, unseen, command):
    """Whether the next step is safe, in lines."""
    only_other = _names(rows, 'only on the other')
    if only_other:
        return ['Step 2 is NOT SAFE yet: some listen only on the other '
                f'driver: {only_other}.']
    step = 2 if sends['other'] or not any(sends.values()) else 3
    if not any(row[column] for row in rows for column in _ON_ZMQ):
        return [f'Step {step} is NOT SAFE yet: nobody listens over zmq at '
                'the moment, and what is sent over zmq reaches nobody. The '
                'queues on the other side are not all known either: a '
                'service that listens only there is seen only if its topic '
                'has a listener or a sender with a bridge. Start the '
                'services with a bridge first.']
    why_not = _second(rows) if step == 2 else _third(rows)
    if why_not:
        return why_not
    if unseen:
        return [f'It is NOT KNOWN whether step {step} is safe, for not all '
                f'of the cloud can be seen: {"; ".join(unseen)}.']
    return [*_unread(rows), _SECOND_IS_SAFE if step == 2
            else _third_is_safe(rows, command),
            'Senders that have not sent yet cannot be known: a process that '
            'only sends is seen here after its first message, and a topic '
            'after the first message to it. Make sure that all processes '
            f'were restarted with step {step - 1}.']


def _second(rows):
    missing = _names(rows, 'missing on the other')
    return [] if not missing else [
        'It is NOT KNOWN whether step 2 is safe: the broker has fewer '
        'consumers than there are services that mean to listen on it: '
        f'{missing}. Ask again in a minute.']


def _third(rows):
    waiting = problem.few(
        row['topic'] for row in rows
        if row['ready on the other'] > row['unread on the other'])
    return [] if not waiting else [
        'Step 3 is NOT SAFE yet: there are messages on the other side: '
        f'{waiting}.']


def _unread(rows):
    """What nobody listens to is no reason to stay at a step for ever."""
    lines = []
    nobody = problem.few(row['topic'] for row in rows
                         if not any(row[column] for column in _ON_ZMQ))
    if nobody:
        lines.append('There are topics that processes with a bridge send to '
                     'and nobody listens on at the moment, on either side: '
                     f'{nobody}. If a service should listen there, start '
                     'that service with a bridge before the next step.')
    unread = _names(rows, 'unread on the other')
    if unread:
        lines.append('Messages wait on the other side in queues that no '
                     f'service listens on: {unread}. If a service should '
                     'read those messages, start that service with a bridge '
                     'before step 3, for afterwards nobody reads them.')
    return lines


def _third_is_safe(rows, command):
    # A listener that stops has no consumers any more, and may hold messages.
    held = [each['name'] for row in rows for each in row['queues']
            if each['consumers'] or not each['ready'] and (
                row['on both'] or row['not on the other now'])]
    if held:
        return ('It is NOT KNOWN whether step 3 (without a bridge) is safe. '
                'Nobody known here sends over the other driver, and no '
                'message waits for its listeners. But the listeners of these '
                'queues may still hold messages that they have not '
                f'acknowledged, and AMQP does not tell: {problem.few(held)}. '
                f'Ask the broker: `{command}`. Step 3 is safe for these '
                'queues when that command shows 0 messages for them.')
    return ('Step 3 (without a bridge) is safe for the topics on which '
            'somebody listens here: nobody known here sends over the other '
            'driver, and the queues of these topics are empty and have no '
            'listeners.')
