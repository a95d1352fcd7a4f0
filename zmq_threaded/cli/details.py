# SPDX-License-Identifier: Apache-2.0
"""A topic, a node or a process in detail, as ``status`` shows it."""

import dataclasses
from typing import Any

from zmq_threaded.cli import overview
from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import histogram
from zmq_threaded.status import problem
from zmq_threaded.status import processes

_INSTANCES = ('instance', 'topic', 'server', 'host', 'process', 'user',
              'version', 'started', 'busy', 'backlog', 'waiting p99',
              'running p99', 'endpoints')
_PROCESSES = ('process', 'host', 'user', 'version', 'protocol', 'encryption',
              'up', 'said', 'services', 'unacknowledged', 'state')
_TRIPS = ('process', 'topic', 'calls', 'p50', 'p99', 'failed', 'casts',
          'casts p50', 'casts p99')


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What is to be shown; None for all.

    Thread: any.
    """

    topic: str | None = None
    node: str | None = None
    process: str | None = None

    def __bool__(self) -> bool:
        return any((self.topic, self.node, self.process))

    def has(self, process: clouds.Process) -> bool:
        """Whether a process is to be shown."""
        about = process.facts['process']
        return (self.node in (None, process.host, about['machine'])
                and (self.process is None
                     or self.process == str(about['pid'])
                     or not self.process.isdigit()
                     and self.process in about['name']))

    def has_topic(self, names: set[str]) -> bool:
        """Whether what listens to these topics is to be shown."""
        return self.topic is None or any(
            overview.is_named(each, self.topic) for each in names)


def document(cloud: clouds.Cloud, chosen: Chosen) -> dict[str, Any]:
    """For programs."""
    return {'registry': overview.registry(cloud),
            'instances': instances(cloud, chosen),
            'processes': _processes(cloud, chosen),
            'sent': _trips(cloud, chosen),
            'senders': _senders(cloud, chosen)}


def parts(cloud: clouds.Cloud, chosen: Chosen) -> list[Any]:
    """For people."""
    found = document(cloud, chosen)
    tables = [('Instances', _INSTANCES, found['instances']),
              ('Processes', _PROCESSES, found['processes']),
              ('Round trips of what they send', _TRIPS, found['sent']),
              ('Unacknowledged messages',
               ('process', 'topic', 'count', 'oldest', 'where', 'to'),
               found['senders'])]
    shown = [overview.table(title, columns, rows)
             for title, columns, rows in tables if rows]
    return shown or ['Nothing is known of that.']


def instances(cloud: clouds.Cloud, chosen: Chosen) -> list[dict[str, Any]]:
    """A row for each instance."""
    rows = [_told(process, service) for process, service in cloud.services()
            if chosen.has(process) and not process.is_gone()
            and chosen.has_topic(set(_topics(service)))]
    if chosen.process is None:
        older = {listed.instance.id
                 for listed in problem.older_instances(cloud)}
        rows += [_listed(listed,
                         'older' if listed.instance.id in older else '')
                 for listed in problem.untold_instances(cloud)
                 if chosen.node in (None, listed.instance.host)
                 and chosen.has_topic({topic[2] for topic in listed.topics})]
    return sorted(rows, key=lambda row: (row['topic'], row['server'],
                                         row['host']))


def _told(process: clouds.Process, service: dict[str, Any]
          ) -> dict[str, Any]:
    about = process.facts['process']
    row = {'instance': service['id'],
           'topic': _topics(service),
           'server': service['server'], 'pool': service['pool'],
           'host': process.host, 'process': f'{about["name"]} {about["pid"]}',
           'user': about['user'], 'version': about['version'],
           'started': overview.duration(
               float(service['up'] + process.age)) + ' ago',
           'listed': service['listed'], 'busy': overview.busy([service]),
           'backlog': service['backlog'],
           'endpoints': service['endpoints']}
    for name in ('waiting', 'running'):
        for part in (50, 99):
            row[f'{name} p{part}'] = histogram.percentile(
                service[name]['counts'], part / 100)
    return row


def _topics(service: dict[str, Any]) -> list[str]:
    return [name for _, name in service['topics']]


def _listed(listed: clouds.Listed, version: str) -> dict[str, Any]:
    instance = listed.instance
    unknown = dict.fromkeys(_INSTANCES, '')
    return {**unknown, 'instance': instance.id.hex(),
            'topic': sorted({topic[2] for topic in listed.topics}),
            'server': instance.server, 'pool': instance.pool,
            'host': instance.host, 'version': version,
            'endpoints': list(instance.endpoints)}


def _processes(cloud: clouds.Cloud, chosen: Chosen) -> list[dict[str, Any]]:
    serving = {process.facts['id'] for process, service in cloud.services()
               if chosen.has_topic(set(_topics(service)))}
    return [{
        'process': str(process), 'host': process.host,
        'user': about['user'], 'version': about['version'],
        'protocol': about['protocol'], 'encryption': about['encryption'],
        'up': float(about['up']), 'said': f'{process.age:.0f} s ago',
        'services': len(process.facts['services']),
        'unacknowledged': process.facts['unacknowledged'],
        'state': _state(process, cloud), 'counters': process.facts['counts'],
        'findings': process.facts['findings']}
        for process in cloud.processes if chosen.has(process)
        and (chosen.topic is None or process.facts['id'] in serving)
        for about in [process.facts['process']]]


def _state(process: clouds.Process, cloud: clouds.Cloud) -> str:
    if process.is_gone():
        return 'gone'
    if process.state == processes.STOPPED:
        return 'stopped'
    return ('silent' if problem.is_late(process, cloud.trouble)
            else 'runs')


def _trips(cloud: clouds.Cloud, chosen: Chosen) -> list[dict[str, Any]]:
    rows = []
    for process in cloud.processes:
        if not chosen.has(process) or process.is_gone():
            continue
        for each in process.facts['sent']:
            if not chosen.has_topic({each['topic']}):
                continue
            calls, casts = each['calls']['counts'], each['casts']['counts']
            rows.append({
                'process': str(process), 'exchange': each['exchange'],
                'topic': each['topic'], 'calls': histogram.total(calls),
                'p50': histogram.percentile(calls, 0.5),
                'p99': histogram.percentile(calls, 0.99),
                'failed': each['failed'], 'casts': histogram.total(casts),
                'casts p50': histogram.percentile(casts, 0.5),
                'casts p99': histogram.percentile(casts, 0.99)})
    return rows


def _senders(cloud: clouds.Cloud, chosen: Chosen) -> list[dict[str, Any]]:
    shown = {str(process) for process in cloud.processes
             if chosen.has(process)}
    return [row for row in overview.senders(cloud) if row['process'] in shown
            and chosen.has_topic({row['topic'].partition('.')[0],
                                  row['topic']})]
