# SPDX-License-Identifier: Apache-2.0
"""The whole cloud, as ``status`` shows it."""

import collections
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

from zmq_threaded.cli import output
from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import histogram
from zmq_threaded.status import journals
from zmq_threaded.status import problem
from zmq_threaded.status import processes

Rows = list[dict[str, Any]]
# Counters of the last minute that are summed up in one column.
_EXPIRED, _REFUSED, _DROPPED = 'expired', 'refused_', 'dropped'
# A notifier of the topic `notifications` sends to `notifications.info`.
_PRIORITIES = frozenset({'audit', 'critical', 'debug', 'error', 'info',
                         'sample', 'warn'})
TOPIC_HELP = ('name of a topic; "notifications" finds the listeners of all '
              'its priorities (notifications.info) as well')


def is_named(topic: str, name: str) -> bool:
    """Whether a topic is the one of this name, or that of a priority of its
    notifications.
    """
    before, _, last = topic.rpartition('.')
    return topic == name or before == name and last in _PRIORITIES


def document(cloud: clouds.Cloud) -> dict[str, Any]:
    """For programs."""
    return {'registry': registry(cloud), 'nodes': nodes(cloud),
            'topics': topics(cloud), 'senders': senders(cloud),
            'journals': journals.rows(cloud)}


def parts(cloud: clouds.Cloud) -> list[Any]:
    """For people."""
    known = registry(cloud)
    answers = (f'answers in {known["milliseconds"]} ms' if known['answers']
               else 'does not answer')
    made = [f'Registry: {known["place"]}, {answers}, {known["records"]} '
            f'records of {known["services"]} services',
            table('Nodes', _NODES, nodes(cloud)),
            table('Topics', _TOPICS, topics(cloud))]
    waiting = senders(cloud)
    if waiting:
        made.append(table('Senders of unacknowledged messages', _SENDERS,
                          waiting))
    kept = journals.rows(cloud)
    if kept:
        made.append(table(f'Journals in {cloud.journals_dir}', _JOURNALS,
                          kept))
    return made


_JOURNALS = 'journal', 'owner', 'messages', 'bytes', 'oldest', 'problem'


def table(title: str, columns: Sequence[str], rows: Rows) -> output.Table:
    """A table of what rows have in these columns, as people read it."""
    return output.Table(title, columns, [
        [shown(row[column]) for column in columns] for row in rows])


def shown(value: Any) -> object:
    """A value as people read it."""
    if isinstance(value, float):
        return duration(value)
    if isinstance(value, list):
        return ', '.join(map(str, value))
    return '' if value is None else value


def duration(seconds: float) -> str:
    """A duration in the unit that fits it."""
    if seconds < 1:
        return f'{1000 * seconds:.3g} ms'
    if seconds < 600:
        return f'{seconds:.3g} s'
    return (f'{seconds / 60:.0f} min' if seconds < 7200
            else f'{seconds / 3600:.0f} h')


def registry(cloud: clouds.Cloud) -> dict[str, Any]:
    """What is known of the registry."""
    return {'place': cloud.place, 'answers': not cloud.trouble,
            'milliseconds': None if cloud.milliseconds is None
            else round(cloud.milliseconds, 1),
            'why': cloud.trouble, 'records': cloud.records,
            'services': len(cloud.living()), 'bad_records': cloud.bad}


_NODES = ('node', 'receiver', 'version', 'encryption', 'processes',
          'services')


def nodes(cloud: clouds.Cloud) -> Rows:
    """A row for each node."""
    of_host: dict[str, list[clouds.Process]] = collections.defaultdict(list)
    for process in cloud.processes:
        if not process.is_gone():
            of_host[process.host].append(process)
    untold = collections.Counter(
        listed.instance.host for listed in problem.untold_instances(cloud))
    older = {listed.instance.host
             for listed in problem.older_instances(cloud)}
    standing = problem.standing_receivers(cloud)
    mute = problem.mute_receivers(cloud)
    return [_node(host, of_host.get(host, []),
                  _receiver(of_host.get(host, []), standing.get(host),
                            host in mute),
                  untold[host], host in older)
            for host in sorted({*of_host, *untold})]


def _node(host: str, there: list[clouds.Process], receiver: str,
          untold: int, has_older: bool) -> dict[str, Any]:
    about = [process.facts['process'] for process in there]
    versions = sorted({each['version'] for each in about})
    return {
        'node': host, 'receiver': receiver,
        'version': versions + ['older'] * has_older,
        'encryption': sorted({each['encryption'] for each in about}),
        'processes': sum(process.facts['kind'] != 'receiver'
                         for process in there),
        'services': untold + sum(len(process.facts['services'])
                                for process in there)}


def _receiver(there: list[clouds.Process], standing: clouds.Process | None,
              is_mute: bool) -> str:
    said = [process.facts['receiver'] for process in there
            if process.facts['receiver']['expected']]
    if not said:
        return 'none needed'
    if not all(each['there'] for each in said):
        return 'DOWN'
    if standing is not None:
        return ('STOPPED' if standing.state == processes.STOPPED
                else 'SILENT')
    return 'NO ANSWER' if is_mute else 'runs'


_TOPICS = ('exchange', 'topic', 'servers', 'hosts', 'pools', 'busy',
           'backlog', 'waiting p50', 'waiting p99', 'running p50',
           'running p99', 'refused', 'expired', 'dropped')


def topics(cloud: clouds.Cloud) -> Rows:
    """A row for each exchange and topic."""
    told: dict[tuple[str, str], list[Any]] = collections.defaultdict(list)
    for process, service in cloud.services():
        if not process.is_gone():
            for exchange, name in service['topics']:
                told[exchange, name].append((process, service))
    untold: dict[tuple[str, str], list[clouds.Listed]] = (
        collections.defaultdict(list))
    for listed in problem.untold_instances(cloud):
        for _, exchange, name in listed.topics:
            untold[exchange, name].append(listed)
    return [topic_row(*key, told.get(key, []), untold.get(key, []))
            for key in sorted({*told, *untold})]


def topic_row(exchange: str, topic: str,
              told: list[tuple[clouds.Process, dict[str, Any]]],
              untold: list[clouds.Listed]) -> dict[str, Any]:
    """What is known of one topic.

    :param untold: instances of which only the registry knows
    """
    services = [service for _, service in told]
    waiting = histogram.added(each['waiting']['counts'] for each in services)
    running = histogram.added(each['running']['counts'] for each in services)
    minute = collections.Counter[str]()
    for each in services:
        minute.update(each['minute'])
    return {
        'exchange': exchange, 'topic': topic,
        'servers': len(services) + len(untold),
        'hosts': len({process.host for process, _ in told}
                     | {each.instance.host for each in untold}),
        'pools': sorted({each['pool'] for each in services if each['pool']}),
        'busy': busy(services),
        'backlog': sum(each['backlog'] for each in services),
        'waiting p50': histogram.percentile(waiting, 0.5),
        'waiting p99': histogram.percentile(waiting, 0.99),
        'running p50': histogram.percentile(running, 0.5),
        'running p99': histogram.percentile(running, 0.99),
        'refused': sum(count for name, count in minute.items()
                       if name.startswith(_REFUSED)),
        'expired': minute[_EXPIRED],
        'dropped': sum(count for name, count in minute.items()
                       if _DROPPED in name)}


def busy(services: Iterable[dict[str, Any]]) -> str:
    """Busy workers of all workers."""
    known = [each for each in services if each['workers'] is not None]
    if not known:
        return ''
    return (f'{sum(each["busy"] or 0 for each in known)} of '
            f'{sum(each["workers"] for each in known)}')


_SENDERS = ('process', 'topic', 'count', 'oldest', 'where')


def senders(cloud: clouds.Cloud) -> Rows:
    """A row for each destination of each process that holds messages."""
    rows = [{'process': str(process),
             'topic': problem.name_at(each['topic'], each['server']),
             'exchange': each['exchange'], 'count': each['count'],
             'oldest': float(each['oldest'] + min(process.age,
                                                  problem.limit(process))),
             'where': each['where'].replace('_', ' '), 'to': each['to']}
            for process in cloud.processes if not process.is_gone()
            for each in process.facts['pending']]
    return sorted(rows, key=lambda row: -row['oldest'])
