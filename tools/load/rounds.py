# SPDX-License-Identifier: Apache-2.0
"""One round of one contestant: warm up, send, wait for the rest."""

import dataclasses
import math
import threading
import time

from load import errors
from load import latency
from load import resources
from load import worker

_POLL_SECONDS = 0.1
_DRAIN_POLL_SECONDS = 0.05
# Beyond the RPC timeout, before a client thread counts as stuck.
_STUCK_SECONDS = 15


@dataclasses.dataclass
class RoundResult:
    """The timed part of one round. Samples are those of load.resources."""

    operations: int
    seconds: float
    delivered: int
    delivery_seconds: float
    latency_ms: dict
    latency_records_bytes: int
    client_before: dict
    client_after: dict
    servers_before: list
    servers_after: list
    broker_before: dict | None = None
    broker_after: dict | None = None

    @property
    def per_second(self):
        """Completed operations a second of the wall clock."""
        return self.operations / self.seconds if self.seconds else 0.0

    @property
    def delivered_per_second(self):
        """Deliveries a second, at all servers together.

        The time runs from the first send to the last arrival.
        """
        return (
            self.delivered / self.delivery_seconds
            if self.delivery_seconds
            else 0.0
        )

    def client_cpu_seconds(self):
        """CPU time of the client process in the timed part."""
        return (
            self.client_after['cpu_seconds']
            - self.client_before['cpu_seconds']
        )

    def servers_cpu_seconds(self):
        """CPU time of all servers in the timed part and while draining."""
        return (sum(status['cpu_seconds'] for status in self.servers_after)
                - sum(status['cpu_seconds'] for status in self.servers_before))


    def used(self, who, what):
        """What was used in the timed part: None if it is not known.

        :param who: 'client', 'servers' (while draining too) or 'broker'
        :param what: a field of load.resources
        """
        before = getattr(self, f'{who}_before')
        after = getattr(self, f'{who}_after')
        if who != 'servers':
            before, after = [before], [after]
        if not all(each and what in each for each in (*before, *after)):
            return None
        return sum(each[what] for each in after) - sum(
            each[what] for each in before
        )


def run_round(contestant, progress):
    """Run one round, keep its result in the contestant and return it.

    Raises ServerDied or ThreadsStuck.
    """
    options = contestant.options
    warm_up = worker.Phase(
        threading.Event(), time.perf_counter() + options.warmup
    )
    progress.stage('warming up')
    _run_phase(contestant, warm_up, options.warmup, None, progress)
    _drain(contestant, progress)
    result = _run_timed(contestant, progress)
    contestant.rounds.append(result)
    return result


def _run_timed(contestant, progress):
    options = contestant.options
    broker_before = contestant.broker.sample()
    before = contestant.statuses(), resources.sample()
    progress.stage('timing')
    began = time.monotonic()
    started = time.perf_counter()
    deadline = math.inf if options.count else started + options.seconds
    phase = worker.Phase(threading.Event(), deadline, timed=True)
    _run_phase(contestant, phase, options.seconds, options.count, progress)
    client_after = resources.sample()
    after = _drain(contestant, progress)
    seconds = max(thread.finished for thread in contestant.workers) - started
    last_delivery = max(status['last_delivery'] or began for status in after)
    measured, records_bytes = _collect_latencies(contestant)
    return RoundResult(
        operations=len(measured), seconds=seconds,
        delivered=_delivered(after) - _delivered(before[0]),
        delivery_seconds=max(0.0, last_delivery - began),
        latency_ms=measured.summary_ms(), latency_records_bytes=records_bytes,
        client_before=before[1], client_after=client_after,
        servers_before=before[0], servers_after=after,
        broker_before=broker_before, broker_after=contestant.broker.sample())


def _run_phase(contestant, phase, seconds, count, progress):
    workers = contestant.workers
    done_before = sum(thread.sequence for thread in workers)
    for thread, limit in zip(workers, share(count, len(workers))):
        thread.begin(dataclasses.replace(phase, limit=limit))
    try:
        for done, elapsed in _wait_idle(contestant):
            done -= done_before
            progress.update(
                done / count if count else elapsed / max(seconds, 1e-9),
                done,
                elapsed,
            )
    finally:
        phase.stop.set()


def share(count, threads):
    """Return how many of `count` operations each thread does.

    None stands for no limit.
    """
    if count is None:
        return [math.inf] * threads
    return [
        count // threads + (number < count % threads)
        for number in range(threads)
    ]


def _wait_idle(contestant):
    """Yield (operations begun, seconds) until all threads are idle.

    Raises ThreadsStuck if the threads are stuck.
    """
    patience = contestant.options.timeout + _STUCK_SECONDS
    began = moved = time.monotonic()
    known = None
    while busy := [
        thread for thread in contestant.workers if not thread.idle.is_set()
    ]:
        busy[0].idle.wait(_POLL_SECONDS)
        begun, now = (
            sum(thread.sequence for thread in contestant.workers),
            time.monotonic(),
        )
        if begun != known:
            known, moved = begun, now
        elif now - moved > patience:
            for thread in busy:
                thread.give_up()
            raise errors.ThreadsStuck(
                f'{len(busy)} threads are stuck in the transport'
            )
        yield begun, now - began


def _drain(contestant, progress):
    """Wait until all messages arrived, or none for options.drain seconds.

    Returns the servers' statuses.
    """
    if contestant.mode.replies:
        return contestant.statuses()
    moved, known = time.monotonic(), None
    while True:
        statuses = contestant.statuses()
        counts = [status['delivered'] for status in statuses]
        if counts != known:
            moved, known = time.monotonic(), counts
            if _complete(contestant, counts):
                return statuses
        elif time.monotonic() - moved > contestant.options.drain:
            return statuses
        progress.draining(_still_due(contestant, counts))
        time.sleep(_DRAIN_POLL_SECONDS)


def _still_due(contestant, counts):
    due = contestant.due()
    if contestant.mode.every_server:
        return sum(max(0, due - count) for count in counts)
    return max(0, due - sum(counts))


def _complete(contestant, counts):
    # Counts alone could hide a lost message behind one that arrived twice, or
    # that arrived although it had raised in the client.
    return (
        not _still_due(contestant, counts) and not contestant.take_tally().lost
    )


def _delivered(statuses):
    return sum(status['delivered'] for status in statuses)


def _collect_latencies(contestant):
    """Move the threads' records to the contestant.

    Returns the records of this round, and the bytes that they took.
    """
    measured, size = latency.Latencies(), 0
    for thread in contestant.workers:
        size += thread.latencies.buffer_info()[1] * thread.latencies.itemsize
        measured.record(thread.latencies)
        contestant.latencies.record(thread.latencies)
        del thread.latencies[:]
    return measured, size
