# SPDX-License-Identifier: Apache-2.0
"""Messages that this process cannot send, for it lacks what a connection
takes: file descriptors, memory, sockets of ZeroMQ.

Somebody is there for them, so nobody is looked for.
"""

import collections

# Seconds between two attempts, doubling.
_FIRST_PAUSE, _LAST_PAUSE = 0.2, 2.0


class HeldUp:
    """What waits, in its order: the copies of a fanout by instance, the rest
    by topic.

    :param route: called with each delivery when it may be tried again; who
        still cannot be sent is added again

    Thread: outbox.
    """

    def __init__(self, route):
        self._route = route
        self._queues = {}
        self._pause = _FIRST_PAUSE
        self._next_try = 0.0

    def __len__(self):
        return sum(map(len, self._queues.values()))

    def __iter__(self):
        return iter([delivery for queue in self._queues.values()
                     for delivery in queue])

    def holds_before(self, delivery):
        """Whether others wait that were to be sent before this one."""
        return _key(delivery) in self._queues

    def add(self, delivery, now):
        """:param now: monotonic seconds"""
        if not self._queues and now >= self._next_try:
            self._pause, self._next_try = _FIRST_PAUSE, now + _FIRST_PAUSE
        self._queues.setdefault(_key(delivery),
                                collections.deque()).append(delivery)

    def remove(self, delivery):
        """:returns: False if it does not wait here"""
        queue = self._queues.get(_key(delivery), ())
        if delivery not in queue:
            return False
        queue.remove(delivery)
        if not queue:
            del self._queues[_key(delivery)]
        return True

    def hasten(self, now):
        """Try again soon: the driver is about to close."""
        self._pause = _FIRST_PAUSE
        self._next_try = min(self._next_try, now + _FIRST_PAUSE)

    def tick(self, now):
        """Try again what is due; to be called a few times a second."""
        if not self._queues or now < self._next_try:
            return
        before = len(self)
        # Before the attempts: those who are added again come no sooner.
        self._next_try = now + self._pause
        for key in list(self._queues):
            self._try(key)
        self._pause = (min(2 * self._pause, _LAST_PAUSE)
                       if len(self) == before else _FIRST_PAUSE)
        self._next_try = now + self._pause

    def _try(self, key):
        """In their order, until one has to wait again."""
        queue = self._queues.pop(key, ())
        while queue:
            self._route(queue.popleft())
            again = self._queues.get(key)
            if again is not None:
                again.extend(queue)
                return


def _key(delivery):
    return (delivery.topic.key, delivery.instance.id if delivery.pinned
            else None)
