# SPDX-License-Identifier: Apache-2.0
"""What cannot be sent to a client for now, because it does not read."""

import collections

from zmq_threaded import counters as counts
from zmq_threaded import logs
from zmq_threaded.net import multiparts

LOG = logs.get(__name__)

# A full pipe of one client has no event of its own: try again on a tick.
TICK = 0.02
_LIMIT = 1000
# In bytes, for one client and for all.
_MOST_OF_ONE, _MOST_OF_ALL = 16 * 1024 * 1024, 64 * 1024 * 1024


class _Client:
    """What waits for one client.

    Thread: that of the writer of the ROUTER.
    """

    __slots__ = ('queue', 'size')

    def __init__(self):
        self.queue: collections.deque[tuple] = collections.deque()
        self.size = 0

    def __len__(self):
        return len(self.queue)

    def push(self, frames, size):
        self.queue.append((frames, size))
        self.size += size

    def pop(self):
        """:returns: (frames, size) of the oldest"""
        frames, size = self.queue.popleft()
        self.size -= size
        return frames, size

    def put_back(self, frames, size):
        self.queue.appendleft((frames, size))
        self.size += size


class SlowClients:
    """Multiparts for the clients of a ROUTER whose pipes are full, in order;
    the others are not held up by them.

    :param send: sends a multipart, and returns one of multiparts.SENT, SLOW,
        GONE

    Thread: that of the writer of the ROUTER.
    """

    def __init__(self, send, counters):
        self._send = send
        self._counters = counters
        self._waiting = {}
        self._size = 0
        self._may_warn = counts.Seldom()

    def __len__(self):
        return len(self._waiting)

    def __contains__(self, client):
        return client in self._waiting

    def keep(self, frames, size=0):
        """Send this multipart later, the oldest of a client first. The
        oldest of whoever has too much is dropped; a single one may be as big
        as a message can be.

        :param size: of it, in bytes
        """
        client = self._waiting.setdefault(frames[0], _Client())
        client.push(frames, size)
        self._size += size
        while len(client) > _LIMIT or (
                client.size > _MOST_OF_ONE and len(client) > 1):
            self._drop_oldest(client)
        while self._size > max(size, _MOST_OF_ALL):
            self._drop_oldest(max(self._others(client),
                                  key=lambda each: each.size))

    def _others(self, client):
        """All that have something to drop, without the newest of one."""
        return [each for each in self._waiting.values()
                if len(each) > (each is client)]

    def _drop_oldest(self, client):
        _, size = client.pop()
        self._size -= size
        self._counters.add('replies_dropped')
        if self._may_warn.allows():
            LOG.warning('A client does not read its replies; the oldest of '
                        '%d, %d bytes, are dropped',
                        len(client) + 1, client.size + size)

    def retry(self):
        """To be called every TICK while there are any."""
        for name, client in list(self._waiting.items()):
            self._retry(client)
            if not client:
                del self._waiting[name]

    def _retry(self, client):
        while client:
            # Taken out first: one that cannot be sent at all, by some error,
            # must not stay in front of the others.
            frames, size = client.pop()
            self._size -= size
            outcome = self._send(frames)
            if outcome is multiparts.SLOW:
                client.put_back(frames, size)
                self._size += size
                return
            if outcome is multiparts.GONE:
                self._counters.add('replies_to_vanished_clients',
                                   1 + len(client))
                self._size -= client.size
                client.queue.clear()
                client.size = 0

    def discard(self):
        """Give up on all.

        :returns: how many multiparts they were
        """
        count = sum(len(client) for client in self._waiting.values())
        self._waiting.clear()
        self._size = 0
        return count
