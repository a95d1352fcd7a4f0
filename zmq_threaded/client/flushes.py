# SPDX-License-Identifier: Apache-2.0
"""Who waits until what is in custody has left it."""

import math
from collections.abc import Callable

from zmq_threaded import finished

# Seconds between two looks for services, and at what is left, while somebody
# waits.
HASTE, LOOK_EVERY = 0.5, 0.05


class Flush:
    """Somebody waits until what is in custody has left it.

    :param deadline: monotonic seconds; nobody waits any longer
    :param until: only for what was posted before, in monotonic seconds

    Thread: outbox; any for wait().
    """

    def __init__(self, deadline: float, until: float = math.inf):
        self.deadline = deadline
        self._until = until
        ended = finished.Finished()
        self.end, self.wait = ended.set, ended.wait

    def ends_with(self, oldest: float | None) -> bool:
        """Whether all that it waits for has left.

        :param oldest: when the oldest message that is left was posted; None
            if none is left
        """
        return oldest is None or oldest > self._until


class Flushes:
    """Those who wait now; while there are any, services are looked for in
    haste.

    :param custody: client.custody.Custody
    :param pending: returns how many messages are in custody
    :param posted: returns those that are on the way into custody

    Thread: outbox.
    """

    def __init__(self, custody, pending: Callable[[], int],
                 posted: Callable[[], list]):
        self._custody = custody
        self._pending = pending
        self._posted = posted
        self._waiting: list[Flush] = []
        self._next_haste = self._next_look = 0.0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, flush: Flush) -> None:
        """Somebody waits from now on."""
        self._waiting.append(flush)

    def look(self, now: float) -> None:
        """To be called often."""
        if self._waiting:
            self._waiting = [flush for flush in self._waiting
                             if now < flush.deadline]
        if not self._waiting:
            return
        if now >= self._next_haste:
            self._next_haste = now + HASTE
            self._custody.hasten()
        is_empty = not self._pending()
        if is_empty or now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            self._end_some(None if is_empty else self._oldest())

    def _oldest(self):
        return 0.0 if self._posted() else self._custody.oldest()

    def _end_some(self, oldest):
        for flush in list(self._waiting):
            if flush.ends_with(oldest):
                self._waiting.remove(flush)
                flush.end()

    def end_all(self) -> None:
        """Nobody waits any longer."""
        self._end_some(None)
