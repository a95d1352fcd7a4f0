# SPDX-License-Identifier: Apache-2.0
"""What happened, counted by name."""

import collections
import threading
import time


class Counters:
    """Named counts of one driver in one process.

    Thread: any. The lock is reentrant, for a signal handler may count too.
    """

    def __init__(self):
        self._lock = threading.RLock()
        self._counts = collections.Counter()

    def add(self, name, count=1):
        with self._lock:
            self._counts[name] += count

    def snapshot(self):
        """A dict of all counts so far."""
        with self._lock:
            return dict(self._counts)


class Seldom:
    """Lets one warning of a kind through in a while; a flood of bad messages
    must not become a flood of log lines.

    Thread: one.
    """

    def __init__(self, seconds=10.0):
        self._seconds = seconds
        self._next = 0.0

    def allows(self):
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
