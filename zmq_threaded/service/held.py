# SPDX-License-Identifier: Apache-2.0
"""Which messages a service holds, and which it has acknowledged lately."""

import collections
import time

from zmq_threaded import wire

# About 25 MB of ids at the most; what senders have settled is forgotten
# earlier, so this is for more than 10,000 casts a second.
_SEEN_LIMIT = 100_000
_ON_ITS_WAY = 10.0


class Held:
    """Messages by id: unacknowledged ones, calls that are being run, and a
    bounded memory of acknowledged casts.

    Dict and deque operations that are atomic under the GIL take the place of
    a lock, so that acknowledge() is cheap and safe anywhere.

    :param ttl: seconds for which acknowledged ids are remembered

    Thread: poller; any for begin(), release() and forget().
    """

    def __init__(self, ttl):
        self._ttl = ttl
        self._unacknowledged = {}
        self._running = {}
        self._released = collections.deque(maxlen=_SEEN_LIMIT)
        self._seen = {}
        self._by_process = {}

    def __len__(self):
        return len(self._unacknowledged)

    def add(self, incoming):
        self._unacknowledged[incoming.id] = incoming

    def get(self, message_id):
        """The message with this id, unacknowledged or being run, or None."""
        return (self._unacknowledged.get(message_id)
                or self._running.get(message_id))

    def begin(self, incoming):
        """A call is run now, and no longer counts as held."""
        # In this order, so that a look in between finds it twice, not never.
        self._running[incoming.id] = incoming
        self._unacknowledged.pop(incoming.id, None)

    def release(self, incoming):
        """A cast was acknowledged: no longer held, but remembered."""
        self._released.append((incoming.id, time.monotonic()))
        self._unacknowledged.pop(incoming.id, None)

    def forget(self, incoming):
        """Neither held, nor run, nor remembered any more."""
        self._unacknowledged.pop(incoming.id, None)
        self._running.pop(incoming.id, None)

    def was_seen(self, message_id):
        """Whether a message was acknowledged lately."""
        self._remember()
        return message_id in self._seen

    def settle(self, settled):
        """Forget soon what was acknowledged to a process with smaller ids.

        :param settled: a message id, or b''
        """
        self._remember()
        process = wire.process(settled)
        seen = self._by_process.get(process)
        # Not at once: a copy may still be on its way over a connection that
        # was lost.
        latest = time.monotonic() - _ON_ITS_WAY
        while seen and seen[0] < settled and self._seen[seen[0]] < latest:
            del self._seen[seen.popleft()]
            if not seen:
                del self._by_process[process]

    def _remember(self):
        while self._released:
            message_id, at = self._released.popleft()
            if message_id not in self._seen:
                self._seen[message_id] = at
                self._by_process.setdefault(
                    wire.process(message_id),
                    collections.deque()).append(message_id)
        oldest = time.monotonic() - self._ttl
        while self._seen:
            first = next(iter(self._seen))
            if self._seen[first] >= oldest and len(self._seen) <= _SEEN_LIMIT:
                return
            self._forget_first(first)

    def _forget_first(self, message_id):
        # Both are in the order of acknowledgement.
        del self._seen[message_id]
        process = wire.process(message_id)
        self._by_process[process].popleft()
        if not self._by_process[process]:
            del self._by_process[process]
