# SPDX-License-Identifier: Apache-2.0
"""Which messages a service holds, and which it has acknowledged lately."""

import collections
import time

from zmq_threaded import timings
from zmq_threaded import wire

# About 25 MB of ids at the most; what senders have settled is forgotten
# earlier, so this is for more than 9,000 casts a second.
_SEEN_LIMIT = 100_000
# Copies of what was settled may still be on their way, over a connection that
# was lost since; it is noticed in less time.
_ON_ITS_WAY = timings.ON_ITS_WAY
_MARK_EVERY = 1.0


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

    def __init__(self, ttl):
        self._ttl = ttl
        self._unacknowledged = {}
        self._delayed = {}
        self._running = {}
        self._released = collections.deque(maxlen=_SEEN_LIMIT)
        self._seen = {}
        self._by_maker = {}
        self._marks = {}
        self._clock, self._drained_at = 0.0, time.monotonic()

    def __len__(self):
        return len(self._unacknowledged)

    def unanswered(self):
        """How many are held or being run."""
        return len(self._unacknowledged) + len(self._running)

    def add(self, incoming):
        self._unacknowledged[incoming.id] = incoming

    def get(self, message_id):
        """The message with this id, unacknowledged or being run or about to
        be given back, or None.
        """
        return (self._unacknowledged.get(message_id)
                or self._running.get(message_id)
                or self._delayed.get(message_id))

    def handled(self):
        """The unacknowledged ones that a worker has begun."""
        return [each for each in list(self._unacknowledged.values())
                if each.is_begun]

    def begin(self, incoming):
        """A call is run now, and no longer counts as held."""
        # In this order, so that a look in between finds it twice, not never.
        self._running[incoming.id] = incoming
        self._unacknowledged.pop(incoming.id, None)

    def delay(self, incoming):
        """It is given back later, and no longer counts as held."""
        self._delayed[incoming.id] = incoming
        self._unacknowledged.pop(incoming.id, None)

    def release(self, incoming):
        """A cast was acknowledged: no longer held, but remembered."""
        self._released.append((incoming.id, self._clock))
        self._unacknowledged.pop(incoming.id, None)

    def forget(self, incoming):
        """Neither held, nor run, nor remembered any more."""
        self._unacknowledged.pop(incoming.id, None)
        self._running.pop(incoming.id, None)
        self._delayed.pop(incoming.id, None)

    def was_seen(self, message_id):
        """Whether a message was acknowledged lately."""
        return message_id in self.seen()

    def seen(self):
        """The ids of what was acknowledged lately; only to be looked at."""
        self._remember()
        return self._seen

    def drained(self):
        """All that had arrived was read."""
        now = time.monotonic()
        self._clock += min(now - self._drained_at, timings.LONGEST_STEP)
        self._drained_at = now

    def settle(self, settled):
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
