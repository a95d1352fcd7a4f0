# SPDX-License-Identifier: Apache-2.0
"""The metrics of the processes of a node, from their facts (pure).

Only this module and :mod:`zmq_threaded.metrics.serving` need
prometheus_client, of the extra `metrics`.
"""

import collections
import re
from collections.abc import Iterable
from collections.abc import Iterator
from importlib import resources
from typing import Any

from prometheus_client import core
from prometheus_client import utils

from zmq_threaded.registry import stamps
from zmq_threaded.status import histogram
from zmq_threaded.status import processes

PREFIX = 'zmq_threaded'
# Of the counts of a process those that come down again; for several drivers
# of a process they are added up, or the smallest one counts.
_SUMMED = 'sockets', 'backlog', 'unacknowledged', 'deaf_services'
_SMALLEST = ('descriptors_left',)
_NAME = re.compile('[a-z][a-z0-9_]{0,60}')
_ROW = re.compile(r'\| `([a-z_]+)` \|[^|]*\| (.*) \|')
_PROCESS = 'process', 'pid'
_SERVICE = (*_PROCESS, 'instance', 'exchange', 'topic', 'server')
_TOPIC = (*_PROCESS, 'exchange', 'topic')

Documents = list[dict[str, Any]]
Labels = tuple[str, ...]
Family = core.Metric
# Of a service: the field of its facts, the name and what it means.
_GAUGES = (
    ('backlog', 'backlog', 'Messages that it holds unacknowledged.'),
    ('limit', 'backlog_limit', 'Messages that it may hold.'),
    ('workers', 'workers', 'Threads of its executor.'),
    ('busy', 'workers_busy', 'Workers that are at work.'),
    ('longest', 'longest_running_seconds',
     'For how long the worker that began first is at work.'),
    ('oldest', 'oldest_seconds',
     'For how long the oldest message that it holds waits.'),
    ('full', 'full', '1 while it has stopped reading, for want of room.'),
    ('listed', 'listed', '1 while it means to be in the registry.'))


def families(documents: Iterable[dict[str, Any]]) -> Iterator[Family]:
    """All metrics.

    :param documents: the facts of the processes
    """
    living = [each for each in documents
              if processes.state(each['process']) != processes.GONE]
    yield from _of_processes(living)
    yield from _counted(living)
    yield from _of_services(living)
    yield from _round_trips(living)
    yield from _waiting(living)


def _process(document) -> Labels:
    process = document['process']
    return process['name'], str(process['pid'])


# Of each process

def _of_processes(living: Documents) -> Iterator[Family]:
    info = core.InfoMetricFamily(
        f'{PREFIX}_process', 'What a process is.', labels=_PROCESS)
    for labels, document in {_process(each): each for each in living}.items():
        process = document['process']
        info.add_metric(labels, {name: str(process[name]) for name in (
            'version', 'protocol', 'host', 'topology', 'user')})
    yield info
    yield _gauge('facts_age_seconds', 'For how long a process has said '
                 'nothing of itself; it stands still when that grows.',
                 max, living, _age)
    yield _gauge('registry_answers', '1 while the registry answers the '
                 'process.', min, living,
                 lambda each: each['registry']['answers'])
    yield _gauge('outbox_silent_seconds', 'For how long the outbox thread '
                 'has not answered.', max, living,
                 lambda each: each['outbox_silent'])
    yield _findings(living)


def _gauge(name, meaning, choose, living, value) -> Family:
    """A gauge of processes; of their drivers the worst one counts.

    :param choose: min or max
    :param value: function of the document of one driver
    """
    found: dict[Labels, float] = {}
    for each in living:
        key = _process(each)
        now = float(value(each))
        found[key] = choose(found.get(key, now), now)
    family = core.GaugeMetricFamily(f'{PREFIX}_{name}', meaning,
                                    labels=_PROCESS)
    for key, number in found.items():
        family.add_metric(key, number)
    return family


def _age(document) -> float:
    return document.get(
        'silent', stamps.age_of_text(document['stamp'])) or 0.0


def _findings(living: Documents) -> Family:
    count = collections.Counter(
        (*_process(document), finding['kind']) for document in living
        for finding in document['findings'])
    family = core.GaugeMetricFamily(
        f'{PREFIX}_findings', 'How many things a process has found to be '
        'wrong, by kind.', labels=(*_PROCESS, 'kind'))
    for labels, number in count.items():
        family.add_metric(labels, number)
    return family


# Counters and gauges of docs/counters.md

def _counted(living: Documents) -> Iterator[Family]:
    found: dict[str, dict[Labels, list[float]]] = {}
    for document in living:
        for name, number in document['counts'].items():
            if _NAME.fullmatch(name):
                found.setdefault(name, {}).setdefault(
                    _process(document), []).append(number)
    texts = meanings()
    for name, by_process in sorted(found.items()):
        is_gauge = name in _SUMMED + _SMALLEST
        make = (core.GaugeMetricFamily if is_gauge
                else core.CounterMetricFamily)
        family = make(f'{PREFIX}_{name}', texts.get(name, name),
                      labels=_PROCESS)
        add = min if name in _SMALLEST else sum
        for labels, numbers in by_process.items():
            family.add_metric(labels, float(add(numbers)))
        yield family


def meanings() -> dict[str, str]:
    """What each counter and gauge means, of the page that is shipped."""
    page = resources.files('zmq_threaded').joinpath('docs/counters.md')
    try:
        text = page.read_text(encoding='utf-8')
    except OSError:
        return {}
    return {name: meaning.replace('`', '')
            for name, meaning in _ROW.findall(text)}


# Of each service

def _of_services(living: Documents) -> Iterator[Family]:
    services = {(*_process(document), *_names(service)): service
                for document in living for service in document['services']}
    for field, name, meaning in _GAUGES:
        family = core.GaugeMetricFamily(
            f'{PREFIX}_service_{name}', meaning, labels=_SERVICE)
        for labels, service in services.items():
            if service[field] is not None:
                family.add_metric(labels, float(service[field]))
        yield family
    taken = core.CounterMetricFamily(
        f'{PREFIX}_service_taken', 'Messages that it took.', labels=_SERVICE)
    for labels, service in services.items():
        taken.add_metric(labels, float(service['taken']))
    yield taken
    yield from _refusals(services)
    for field, meaning in (
            ('waiting', 'From the reading of a message until a worker took '
                        'it up.'),
            ('running', 'From there until the worker was done.')):
        yield _histograms(f'service_{field}_seconds', meaning, _SERVICE, {
            labels: service[field] for labels, service in services.items()})


def _names(service) -> Labels:
    exchange, topic = (*service['topics'], ('', ''))[0]
    return service['id'][:8], exchange, topic, service['server']


def _refusals(services) -> Iterator[Family]:
    family = core.CounterMetricFamily(
        f'{PREFIX}_service_events', 'Refusals and losses of a service, by '
        'the name of the counter.', labels=(*_SERVICE, 'event'))
    for labels, service in services.items():
        for name, number in service['counts'].items():
            family.add_metric((*labels, name), float(number))
    yield family


def _histograms(name, meaning, labels, found) -> Family:
    family = core.HistogramMetricFamily(f'{PREFIX}_{name}', meaning,
                                        labels=labels)
    for key, each in found.items():
        family.add_metric(key, _buckets(each['counts']), each['sum'])
    return family


def _buckets(counts) -> list[tuple[str, float]]:
    """The buckets as Prometheus has them: each with all those below it."""
    buckets, below = [], 0
    for bound, count in zip((*histogram.BOUNDS, float('inf')),
                            histogram.added([counts]), strict=True):
        below += count
        buckets.append((utils.floatToGoString(round(bound, 4)), float(below)))
    return buckets


# Of each sender

def _round_trips(living: Documents) -> Iterator[Family]:
    sent: dict[Labels, list] = {}
    for document in living:
        for each in document['sent']:
            sent.setdefault((*_process(document), each['exchange'],
                             each['topic']), []).append(each)
    for field, name, meaning in (
            ('calls', 'call_seconds', 'From the sending of a call until its '
                                      'reply.'),
            ('casts', 'cast_seconds', 'From the posting of any other message '
                                      'until its acknowledgement.')):
        yield _histograms(name, meaning, _TOPIC, {
            labels: {'counts': histogram.added(one[field]['counts']
                                               for one in those),
                     'sum': sum(one[field]['sum'] for one in those)}
            for labels, those in sent.items()})
    failed = core.CounterMetricFamily(
        f'{PREFIX}_calls_failed', 'Calls without a reply.', labels=_TOPIC)
    for labels, those in sent.items():
        failed.add_metric(labels, float(sum(one['failed'] for one in those)))
    yield failed


def _waiting(living: Documents) -> Iterator[Family]:
    labels = (*_TOPIC, 'server')
    count: dict[Labels, float] = {}
    oldest: dict[Labels, float] = {}
    for document in living:
        for each in document['pending']:
            key = (*_process(document), each['exchange'], each['topic'],
                   each['server'])
            count[key] = count.get(key, 0) + each['count']
            oldest[key] = max(oldest.get(key, 0.0), each['oldest'])
    for name, meaning, values in (
            ('pending_messages', 'Messages that are not acknowledged.',
             count),
            ('pending_oldest_seconds', 'For how long the oldest of them '
             'waits.', oldest)):
        family = core.GaugeMetricFamily(f'{PREFIX}_{name}', meaning,
                                        labels=labels)
        for key, number in values.items():
            family.add_metric(key, float(number))
        yield family
