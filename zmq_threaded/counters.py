# SPDX-License-Identifier: Apache-2.0
"""What happened, counted by name."""

import collections
import threading
import time
import typing
import weakref


class Counters:
    """Named counts of one driver in one process, and its open sockets.

    Sockets are known one by one: an exception that comes between the end of a
    socket and closed() leaves no wrong number, for closed() may be repeated,
    and a socket that was forgotten is not there.

    Thread: any. The lock is reentrant, for a signal handler may count too.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._counts: collections.Counter[str] = collections.Counter()
        # Each is added, taken out and listed in one step, without the lock.
        self._sockets: set[weakref.ref[typing.Any]] = set()

    def opened(self, socket: object) -> None:
        """There is one more socket."""
        self._sockets.add(weakref.ref(socket, self._sockets.discard))

    def closed(self, socket: object) -> None:
        """It was closed; twice is fine."""
        self._sockets.discard(weakref.ref(socket))

    def add(self, name: str, count: int = 1) -> None:
        """Count something that happened."""
        with self._lock:
            self._counts[name] += count

    def snapshot(self) -> dict[str, int]:
        """All counts so far."""
        with self._lock:
            return dict(self._counts)

    def sockets(self) -> int:
        """How many sockets are open."""
        return len(self._sockets)


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
