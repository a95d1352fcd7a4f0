# SPDX-License-Identifier: Apache-2.0
"""Messages that this process cannot send, for it lacks what a connection
takes: file descriptors, memory, sockets of ZeroMQ.

Somebody is there for these messages, so nobody is looked for.
"""

import collections
from collections.abc import Callable

from zmq_threaded.client import delivery as deliveries

Delivery = deliveries.Delivery
Queue = collections.deque[Delivery]
_HELD_UP, _MOVING = deliveries.Where.HELD_UP, deliveries.Where.MOVING
# Seconds between two attempts, doubling.
_FIRST_BACK_OFF, _LAST_BACK_OFF = 0.2, 2.0


class HeldUp:
    """What waits, in its order: the copies of a fanout by instance, all other
    messages by topic.

    :param route: called with each message when it may be tried again; a
        message that still cannot be sent is added again

    Thread: outbox.
    """

    def __init__(self, route: Callable):
        self._route = route
        self._queues: dict[tuple, Queue] = {}
        self._back_off = _FIRST_BACK_OFF
        self._next_try = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def holds_before(self, delivery: Delivery) -> bool:
        """Whether others wait that were to be sent before this one."""
        return bool(self._queues) and _key(delivery) in self._queues

    def add(self, delivery: Delivery, now: float) -> None:
        """Let a message wait behind the others of its key.

        :param now: monotonic seconds
        """
        delivery.where = _HELD_UP
        if not self._queues and now >= self._next_try:
            self._back_off = _FIRST_BACK_OFF
            self._next_try = now + _FIRST_BACK_OFF
        self._queues.setdefault(_key(delivery),
                                collections.deque()).append(delivery)

    def remove(self, delivery: Delivery) -> None:
        """Take out a message that waits here."""
        queue = self._queues[_key(delivery)]
        queue.remove(delivery)
        delivery.where = _MOVING
        if not queue:
            del self._queues[_key(delivery)]

    def hasten(self, now: float) -> None:
        """Try again soon: the driver is about to close."""
        self._back_off = _FIRST_BACK_OFF
        self._next_try = min(self._next_try, now + _FIRST_BACK_OFF)

    def tick(self, now: float) -> None:
        """Try again what is due; to be called a few times a second."""
        if not self._queues or now < self._next_try:
            return
        before = len(self)
        # Before the attempts: messages that are added again come no sooner.
        self._next_try = now + self._back_off
        for key in list(self._queues):
            self._try(key)
        self._back_off = (min(2 * self._back_off, _LAST_BACK_OFF)
                          if len(self) == before else _FIRST_BACK_OFF)
        self._next_try = now + self._back_off

    def _try(self, key):
        """Route messages in their order, until one has to wait again."""
        queue = self._queues.pop(key, ())
        while queue:
            delivery = queue.popleft()
            delivery.where = _MOVING
            self._route(delivery)
            again = self._queues.get(key)
            if again is not None:
                again.extend(queue)
                return


def _key(delivery):
    return (delivery.topic.key, delivery.instance.id if delivery.pinned
            else None)
