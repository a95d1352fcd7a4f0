# SPDX-License-Identifier: Apache-2.0
"""The client threads: the one loop whose own cost would spoil the figures."""

import array
import collections
import dataclasses
import math
import queue
import threading
import time

from load import errors
from load import ledger
from load import payload as payloads

# A transport that fails at once would otherwise be asked thousands of times a
# second.
_AFTER_FAILURE_SECONDS = 0.01


@dataclasses.dataclass
class Failures:
    """How often a class of exception was raised, with the first text."""

    count: int = 0
    example: str = ''


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of sending, until a deadline, a limit or stop.

    The deadline is a time of time.perf_counter().
    """

    stop: threading.Event
    deadline: float = math.inf
    limit: float = math.inf
    timed: bool = False


class Worker(threading.Thread):
    """A client thread that sends in phases while its contestant lives."""

    def __init__(self, number, operation, pool):
        # A daemon, for the transport may never come back from a send.
        super().__init__(name=f'load-{number}', daemon=True)
        self.number = number
        self.sequence = 0
        self.wrong = 0
        self.failed = ledger.Bitmap()
        self.failed_count = 0
        self.failures = collections.defaultdict(Failures)
        self.latencies = array.array('d')
        self.finished = 0.0
        self.idle = threading.Event()
        self._operation = operation
        self._pool = pool
        self._phases = queue.SimpleQueue()

    def begin(self, phase):
        """Start a phase; idle is set when it is over."""
        self.idle.clear()
        self._phases.put(phase)

    def end(self):
        """Let the thread finish."""
        self._phases.put(None)

    def give_up(self):
        """Count the operation that this thread is stuck in as failed."""
        error = errors.ThreadsStuck('the transport did not return from a send')
        self._note_failure(self.sequence - 1, error)

    def sent(self):
        """Return what this thread sent so far; for a thread that is idle."""
        return ledger.Sent(self.sequence, self.failed)

    def run(self):
        for phase in iter(self._phases.get, None):
            self._send(phase)
            self.idle.set()

    def _send(self, phase):
        operation, pool, clock = self._operation, self._pool, time.perf_counter
        stopped, deadline = phase.stop.is_set, phase.deadline
        last = self.sequence + phase.limit
        record = self.latencies.append if phase.timed else _discard
        first_ident = ledger.make_ident(self.number, 0)
        now = clock()
        while now < deadline and self.sequence < last and not stopped():
            sequence = self.sequence
            self.sequence = sequence + 1
            payload = pool[
                payloads.pool_index(self.number, sequence, len(pool))
            ]
            started = clock()
            try:
                right = operation(first_ident + sequence, payload)
            except Exception as error:
                self._note_failure(sequence, error)
                phase.stop.wait(_AFTER_FAILURE_SECONDS)
                now = clock()
                continue
            now = clock()
            record(now - started)
            if not right:
                self.wrong += 1
        self.finished = now

    def _note_failure(self, sequence, error):
        self.failed.add(sequence)
        self.failed_count += 1
        failures = self.failures[type(error).__name__]
        failures.count += 1
        failures.example = failures.example or errors.first_line(error)


def _discard(latency):
    pass
