# SPDX-License-Identifier: Apache-2.0
"""What the outbox keeps: messages in custody, and who waits for them."""

import collections
import dataclasses
import queue
import threading
import time

from zmq_threaded import wire


@dataclasses.dataclass(slots=True, eq=False)
class Delivery:
    """One message on its way to one instance, until it is acknowledged.

    :ivar expires: monotonic seconds
    :ivar instance: where it must go (a fanout copy), or where it is now
    :ivar pinned: it must not go anywhere else
    :ivar attempts: look-ups that may find nobody; None for any number
    :ivar waiter: queue of the thread that waits for events of it, or None

    Thread: outbox, once it was posted.
    """

    kind: int
    topic: object
    body: list
    flags: int
    expires: float
    id: bytes = dataclasses.field(default_factory=wire.new_id)
    instance: object = None
    pinned: bool = False
    attempts: int | None = None
    client_timeout: float = 0.0
    waiter: object = None
    destination: object = None
    sent_at: float = 0.0

    def frame(self, now):
        return wire.encode(self.kind, self.instance.id, self.id, self.body,
                           self.flags, max(0.0, self.expires - now),
                           self.client_timeout)

    def copy_for(self, instance):
        """A fanout's copy for one instance."""
        return dataclasses.replace(self, instance=instance, pinned=True,
                                   waiter=None)

    def tell(self, event, detail=None):
        if self.waiter is not None:
            self.waiter.put((event, detail))

    def __str__(self):
        return (f'{wire.KIND_NAMES[self.kind]} {self.id.hex()} '
                f'for {self.topic}')


# Events that a waiter gets: (event, detail)
TAKEN = 'taken'                  # the instance has read it
ACKNOWLEDGED = 'acknowledged'
REPLIED = 'replied'              # detail: wire.Message
HEARTBEAT = 'heartbeat'
NOBODY = 'nobody'                # as many look-ups as allowed found nobody
FAILED = 'failed'                # detail: why it was given up
LOST = 'lost'                    # the server of a call is gone


class Destination:
    """How much is under way to one topic, so that it stays bounded.

    Thread: any. The lock is reentrant for the sake of signal handlers.
    """

    def __init__(self, limit):
        self._limit = limit
        self._lock = threading.RLock()
        self._waiting = collections.deque()
        self.pending = 0

    def is_full(self):
        return self.pending >= self._limit

    def add(self, count):
        with self._lock:
            self.pending += count

    def finish(self):
        with self._lock:
            self.pending -= 1
        if self._waiting and not self.is_full():
            try:
                self._waiting.popleft().put(True)
            except IndexError:
                pass

    def wait_for_room(self, deadline):
        """:returns: False when there was none until the deadline"""
        while self.is_full():
            room = queue.SimpleQueue()
            self._waiting.append(room)
            if not self.is_full():
                return True
            left = deadline - time.monotonic()
            try:
                room.get(timeout=max(0.0, left))
            except queue.Empty:
                return not self.is_full()
        return True
