# SPDX-License-Identifier: Apache-2.0
"""Which messages a service holds, and which it has acknowledged lately."""

import collections
import time

# About 20 MB of ids at the most, whatever rpc_message_ttl says.
_SEEN_LIMIT = 100_000


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
        self._settle()
        return message_id in self._seen

    def _settle(self):
        while self._released:
            message_id, at = self._released.popleft()
            self._seen[message_id] = at
        oldest = time.monotonic() - self._ttl
        while self._seen:
            first = next(iter(self._seen))
            if self._seen[first] >= oldest and len(self._seen) <= _SEEN_LIMIT:
                return
            del self._seen[first]
