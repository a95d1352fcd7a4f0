# SPDX-License-Identifier: Apache-2.0
"""Which messages a service holds, and which it has acknowledged lately."""

import collections
import time

# About 30 MB of ids at the most, whatever rpc_message_ttl says.
_SEEN_LIMIT = 200_000


class Held:
    """Unacknowledged messages by id, and a bounded memory of finished ones.

    Dict and deque operations that are atomic under the GIL take the place of
    a lock, so that acknowledge() is cheap and safe anywhere.

    :param ttl: seconds for which acknowledged ids are remembered

    Thread: poller; any for release() and forget().
    """

    def __init__(self, ttl):
        self._ttl = ttl
        self._unacknowledged = {}
        self._released = collections.deque()
        self._seen = {}

    def __len__(self):
        return len(self._unacknowledged)

    def add(self, incoming):
        self._unacknowledged[incoming.id] = incoming

    def get(self, message_id):
        """The unacknowledged message with this id, or None."""
        return self._unacknowledged.get(message_id)

    def release(self, incoming):
        """The message was acknowledged: no longer held, but remembered."""
        # In this order, so that a look in between finds it twice, not never.
        self._released.append((incoming.id, time.monotonic()))
        self.forget(incoming)

    def forget(self, incoming):
        """The message is neither held nor remembered any more."""
        self._unacknowledged.pop(incoming.id, None)

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
