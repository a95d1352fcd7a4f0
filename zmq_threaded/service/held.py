# SPDX-License-Identifier: Apache-2.0
"""The requests that a service holds, and which it has acknowledged lately."""

import collections
import dataclasses
import time
from collections.abc import Container

from zmq_threaded import timings
from zmq_threaded import wire

# About 25 MB of ids at the most; what senders have settled is forgotten
# earlier, so this is for more than 9,000 casts a second.
_SEEN_LIMIT = 100_000
# Copies of what was settled may still be on their way, over a connection that
# was lost since; it is noticed in less time.
_ON_ITS_WAY = timings.ON_ITS_WAY
_MARK_EVERY = 1.0


@dataclasses.dataclass(slots=True, eq=False)
class Request:
    """What the service keeps of a message until it is answered.

    A Request has no hold of the Incoming. The Incoming goes when nobody means
    to run it any more, and then the poller thread answers in its place.

    :ivar envelope: where the answers go
    :ivar expires: when its sender gives up, in monotonic seconds
    :ivar came: what Stalls.now() said when the message was read
    :ivar read_at: when it was taken, in monotonic seconds
    :ivar looked_at: when is_expired() was asked last, likewise
    :ivar is_begun: a worker has it
    :ivar is_done: it has ended, and needs no other answer

    Thread: any.
    """

    id: bytes
    kind: int
    envelope: list[bytes]
    expires: float
    came: int
    read_at: float = 0.0
    looked_at: float = 0.0
    is_begun: bool = False
    is_done: bool = False

    def is_expired(self) -> bool:
        """Whether the sender has given up."""
        # Kept, for whoever measures: a look at the clock costs something.
        self.looked_at = time.monotonic()
        return self.looked_at >= self.expires

    def is_notification(self) -> bool:
        """Whether it is acknowledged after it was handled, and not before.
        """
        return self.kind == wire.NOTIFY


def request_of(message: wire.Message, envelope: list[bytes],
               came: int) -> Request:
    """The Request that the service keeps of a decoded message.

    :param envelope: where the answers go
    :param came: what Stalls.now() said when the message was read
    """
    expires = (message.expiry if message.flags & wire.DEADLINE
               else time.monotonic() + message.expiry)
    return Request(message.id, message.kind, envelope, expires, came)


class Held:
    """Messages by id: unacknowledged ones, calls that are being run, and a
    bounded memory of acknowledged casts.

    Dict and deque operations that are atomic under the GIL take the place of
    a lock, so that acknowledge() is cheap and safe anywhere.

    Its clock goes only while everything that arrives is read. A copy that
    lies unread does not grow old, be it that this process stands still or that
    flow control has stopped the reading.

    :param ttl: seconds for which acknowledged ids are remembered

    Thread: poller; any for begin(), delay(), release() and forget().
    """

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._unacknowledged: dict[bytes, Request] = {}
        self._delayed: dict[bytes, Request] = {}
        self._running: dict[bytes, Request] = {}
        # What was acknowledged since somebody looked: (id, by the clock).
        self._released: collections.deque[tuple[bytes, float]] = (
            collections.deque(maxlen=_SEEN_LIMIT))
        # What was acknowledged: when, by id; and the ids of each maker.
        # Of a dict the first key is found the slower the more were deleted
        # before it.
        self._seen: collections.OrderedDict[bytes, float] = (
            collections.OrderedDict())
        self._by_maker: dict[bytes, collections.deque[bytes]] = {}
        # Of each maker: (by the clock, settled id).
        self._marks: dict[bytes, collections.deque[tuple[float, bytes]]] = {}
        self._clock, self._drained_at = 0.0, time.monotonic()

    def __len__(self) -> int:
        """How many requests are held unacknowledged."""
        return len(self._unacknowledged)

    def unanswered(self) -> int:
        """How many requests are held or being run."""
        return len(self._unacknowledged) + len(self._running)

    def add(self, request: Request) -> None:
        """Hold a request."""
        self._unacknowledged[request.id] = request

    def get(self, message_id: bytes) -> Request | None:
        """The request with this id, be it unacknowledged, being run or about
        to be given back; or None.
        """
        return (self._unacknowledged.get(message_id)
                or self._running.get(message_id)
                or self._delayed.get(message_id))

    def oldest(self) -> float | None:
        """When the oldest unacknowledged request was read, in monotonic
        seconds; None if there is none.
        """
        # They are in the order of their reading.
        first = next(iter(self._unacknowledged.copy().values()), None)
        return None if first is None else first.read_at

    def handled(self) -> list[Request]:
        """The unacknowledged requests that a worker has begun."""
        return [each for each in list(self._unacknowledged.values())
                if each.is_begun]

    def first_waiting(self) -> bytes:
        """The id of the request that has waited longest for a worker; b'' if
        none waits. In any thread.
        """
        return next((each.id for each in list(self._unacknowledged.values())
                     if not each.is_begun), b'')

    def begin(self, request: Request) -> None:
        """A call is run now, and no longer counts as held."""
        # In this order, so that a look in between finds it twice, not never.
        self._running[request.id] = request
        self._unacknowledged.pop(request.id, None)

    def delay(self, request: Request) -> None:
        """A notification is given back later, and no longer counts as held.
        """
        self._delayed[request.id] = request
        self._unacknowledged.pop(request.id, None)

    def release(self, request: Request) -> None:
        """A cast was acknowledged: no longer held, but remembered."""
        self._released.append((request.id, self._clock))
        self._unacknowledged.pop(request.id, None)

    def forget(self, request: Request) -> None:
        """A request is neither held, nor run, nor remembered any more."""
        self._unacknowledged.pop(request.id, None)
        self._running.pop(request.id, None)
        self._delayed.pop(request.id, None)

    def was_seen(self, message_id: bytes) -> bool:
        """Whether a message was acknowledged lately."""
        return message_id in self.seen()

    def seen(self) -> Container[bytes]:
        """The ids of what was acknowledged lately; only to be looked at."""
        self._remember()
        return self._seen

    def drained(self) -> None:
        """All that had arrived was read."""
        now = time.monotonic()
        step = now - self._drained_at
        self._clock += (step if step < timings.LONGEST_STEP
                        else timings.LONGEST_STEP)
        self._drained_at = now

    def settle(self, settled: bytes) -> None:
        """Forget, after a while, the smaller ids of the same maker: they will
        not be sent again.

        :param settled: a message id
        """
        self._remember()
        maker = wire.maker(settled)
        if maker not in self._by_maker:
            return
        marks = self._marks.setdefault(maker, collections.deque())
        if not marks or self._clock - marks[-1][0] >= _MARK_EVERY:
            marks.append((self._clock, settled))
        while marks and marks[0][0] <= self._clock - _ON_ITS_WAY:
            self._forget_below(marks.popleft()[1])

    def _forget_below(self, settled):
        maker = wire.maker(settled)
        while (maker in self._by_maker
               and self._by_maker[maker][0] < settled):
            self._forget_first_of(maker)

    def _forget_first_of(self, maker):
        seen = self._by_maker[maker]
        del self._seen[seen.popleft()]
        if not seen:
            del self._by_maker[maker]
            self._marks.pop(maker, None)

    def _remember(self):
        while self._released:
            message_id, at = self._released.popleft()
            if message_id not in self._seen:
                self._seen[message_id] = at
                self._by_maker.setdefault(
                    wire.maker(message_id),
                    collections.deque()).append(message_id)
        oldest = self._clock - self._ttl
        while self._seen:
            first = next(iter(self._seen))
            if self._seen[first] >= oldest and len(self._seen) <= _SEEN_LIMIT:
                return
            # Those of a maker are in the order of acknowledgement as well.
            self._forget_first_of(wire.maker(first))
