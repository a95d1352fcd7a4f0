# SPDX-License-Identifier: Apache-2.0
"""Rates and latencies of topics and senders, between two looks (pure)."""

import collections
import dataclasses
from typing import Any

from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import histogram

Key = tuple[str, ...]


@dataclasses.dataclass
class _Sum:
    """What is summed up in one row.

    :ivar rate: per second
    :ivar times: histograms of what happened between two looks

    Thread: any, one at a time.
    """

    rate: float = 0.0
    failed: float = 0.0
    busy: int = 0
    workers: int = 0
    backlog: int = 0
    waiting: list[list[int]] = dataclasses.field(default_factory=list)
    times: list[list[int]] = dataclasses.field(default_factory=list)


class Rates:
    """What grew between the last two documents of each process.

    Thread: any, one at a time.
    """

    def __init__(self) -> None:
        # By the id of a process: its documents, the last and the one before.
        self._documents: dict[str, list[dict[str, Any]]] = {}

    def note(self, cloud: clouds.Cloud) -> None:
        """Look at new documents."""
        living = {}
        for process in cloud.processes:
            if process.is_gone():
                continue
            document = process.facts
            known = self._documents.get(document['id'], [])
            if not known or known[-1]['seq'] < document['seq']:
                known = [*known[-1:], document]
            living[document['id']] = known
        self._documents = living

    def topics(self) -> list[dict[str, Any]]:
        """A row for each topic that is listened to."""
        sums: dict[Key, _Sum] = collections.defaultdict(_Sum)
        for before, now, seconds in self._pairs():
            old = {each['id']: each for each in before['services']}
            for service in now['services']:
                for exchange, name in service['topics'][:1]:
                    _add_service(sums[exchange, name], service,
                                 old.get(service['id']), seconds)
        return [{'topic': key[-1], 'exchange': key[0],
                 'per second': round(each.rate, 1),
                 'busy': f'{each.busy} of {each.workers}',
                 'backlog': each.backlog,
                 'waiting p50': _part(each.waiting, 0.5),
                 'waiting p99': _part(each.waiting, 0.99),
                 'running p50': _part(each.times, 0.5),
                 'running p99': _part(each.times, 0.99)}
                for key, each in sums.items()]

    def senders(self) -> list[dict[str, Any]]:
        """A row for each process and topic that it sends to."""
        rows = []
        for before, now, seconds in self._pairs():
            old = {(each['exchange'], each['topic']): each
                   for each in before['sent']}
            waiting = collections.Counter[tuple[str, str]]()
            for each in now['pending']:
                waiting[each['exchange'], each['topic']] += each['count']
            about = now['process']
            for each in now['sent']:
                key = each['exchange'], each['topic']
                rows.append(_sender(each, old.get(key), seconds,
                                    f'{about["name"]} {about["pid"]}',
                                    about['host'], waiting[key]))
        return rows

    def _pairs(self):
        for documents in self._documents.values():
            before, now = documents[0], documents[-1]
            seconds = now['process']['up'] - before['process']['up']
            yield before, now, seconds


def _add_service(total: _Sum, service: dict[str, Any],
                 before: dict[str, Any] | None, seconds: float) -> None:
    total.busy += service['busy'] or 0
    total.workers += service['workers'] or 0
    total.backlog += service['backlog']
    if before is not None and seconds > 0:
        total.rate += max(0, service['taken'] - before['taken']) / seconds
        total.waiting.append(_growth(service, before, 'waiting'))
        total.times.append(_growth(service, before, 'running'))


def _sender(each: dict[str, Any], before: dict[str, Any] | None,
            seconds: float, process: str, host: str, waiting: int
            ) -> dict[str, Any]:
    calls, casts, failed = [0], [0], 0.0
    if before is not None and seconds > 0:
        calls = _growth(each, before, 'calls')
        casts = _growth(each, before, 'casts')
        failed = (each['failed'] - before['failed']) / seconds
    per = seconds if seconds > 0 else 1.0
    return {'process': process, 'host': host, 'topic': each['topic'],
            'calls/s': round(sum(calls) / per, 1),
            'casts/s': round(sum(casts) / per, 1),
            'p50': _part([calls, casts], 0.5),
            'p99': _part([calls, casts], 0.99),
            'failed/s': round(max(0.0, failed), 1),
            'unacknowledged': waiting}


def _growth(now: dict[str, Any], before: dict[str, Any], name: str
            ) -> list[int]:
    old = histogram.added([before[name]['counts']])
    new = histogram.added([now[name]['counts']])
    return [max(0, count - was) for count, was in zip(new, old)]


def _part(several: list[list[int]], part: float) -> float | None:
    return histogram.percentile(histogram.added(several), part)
