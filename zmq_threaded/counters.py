# SPDX-License-Identifier: Apache-2.0
"""What happened, counted by name."""

import collections
import threading


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
