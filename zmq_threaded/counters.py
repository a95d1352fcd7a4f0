# SPDX-License-Identifier: Apache-2.0
"""What happened, counted by name."""

import collections
import threading
import time

from zmq_threaded.status import meters


class Counters:
    """Named counts of one driver in one process, or of a part of it.

    :param whole: the counts of all, in which these count too
    :ivar sent: the round trips of what was sent

    Thread: any. The lock is reentrant, for a signal handler may count too.
    """

    def __init__(self, whole: 'Counters | None' = None) -> None:
        self._lock = threading.RLock()
        self._whole = whole
        self.sent = meters.Sent()
        self._counts: collections.Counter[str] = collections.Counter()

    def add(self, name: str, count: int = 1) -> None:
        """Count something that happened."""
        with self._lock:
            self._counts[name] += count
        if self._whole is not None:
            self._whole.add(name, count)

    def snapshot(self) -> dict[str, int]:
        """All counts so far."""
        with self._lock:
            return dict(self._counts)


class Seldom:
    """Lets one warning of a kind through in a while; a flood of bad messages
    must not become a flood of log lines.

    Thread: one.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._next = 0.0

    def allows(self) -> bool:
        """Whether a warning may be given now."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
