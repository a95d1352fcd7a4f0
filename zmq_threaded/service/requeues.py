# SPDX-License-Identifier: Apache-2.0
"""Notifications that a listener gave back, until their senders are told."""

import collections
import heapq
import itertools
import math
import time
from collections.abc import Callable

from zmq_threaded import backoff
from zmq_threaded.service import held

# Seconds, doubling with each time that the same message comes back.
_FIRST_DELAY, _LAST_DELAY = 0.1, 5.0
# What did not come back for so long begins anew, in seconds; and how many
# messages are remembered.
_REMEMBERED, _REMEMBERED_LIMIT = 60.0, 10_000


class Requeues:
    """Gives notifications back, the later the more often they came: a
    back-off for each message.

    :param limit: how many wait here; for more, the first goes at once
    :param give_back: called with each Request

    Thread: any for put() and close(), poller for the rest.
    """

    def __init__(self, limit: int,
                 give_back: Callable[[held.Request], None]) -> None:
        self._limit = limit
        self._give_back = give_back
        self._new: collections.deque[held.Request] = collections.deque()
        self._order = itertools.count()
        self._delayed: list[tuple[float, int, held.Request]] = []
        # By message id: its back-off, and when it came last.
        self._waits: collections.OrderedDict[
            bytes, tuple[backoff.Backoff, float]] = collections.OrderedDict()
        self._is_closed = False

    def put(self, request: held.Request) -> None:
        """Give a notification back when its wait is over."""
        self._new.append(request)
        # Looked at last, so that nothing is put behind the end.
        if self._is_closed:
            self._hand_back_new()

    def turn(self) -> float:
        """Give back what is due.

        :returns: when more will be due, in monotonic seconds; inf for never
        """
        if not (self._new or self._delayed):
            return math.inf
        now = time.monotonic()
        while self._new:
            request = self._new.popleft()
            heapq.heappush(self._delayed, (now + self._delay(request.id, now),
                                           next(self._order), request))
        while self._delayed and (self._delayed[0][0] <= now
                                 or len(self._delayed) > self._limit):
            self._give_back(heapq.heappop(self._delayed)[-1])
        return self._delayed[0][0] if self._delayed else math.inf

    def _delay(self, message_id, now):
        waits, at = self._waits.pop(message_id, (None, now))
        if waits is None or now - at > _REMEMBERED:
            waits = backoff.Backoff(_FIRST_DELAY, _LAST_DELAY)
        self._waits[message_id] = waits, now
        if len(self._waits) > _REMEMBERED_LIMIT:
            self._waits.popitem(last=False)
        return waits.failed(now)

    def close(self) -> None:
        """Give all back now, and what still comes at once. The poller thread
        has ended, or calls this itself.
        """
        self._is_closed = True
        self._hand_back_new()
        while self._delayed:
            self._give_back(self._delayed.pop()[-1])

    def _hand_back_new(self):
        while True:
            try:
                request = self._new.popleft()
            except IndexError:
                return
            self._give_back(request)
