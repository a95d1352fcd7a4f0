# SPDX-License-Identifier: Apache-2.0
"""What cannot be sent to a client for now, because it does not read."""

import collections

from zmq_threaded import counters as counts
from zmq_threaded import logs
from zmq_threaded import sockets

LOG = logs.get(__name__)

# A full pipe of one client has no event of its own: try again on a tick.
TICK = 0.02
_LIMIT = 1000


class SlowClients:
    """Multiparts for the clients of a ROUTER whose pipes are full, in order;
    the others are not held up by them.

    :param send: sends a multipart, and returns one of sockets.SENT, SLOW, GONE

    Thread: that of the writer of the ROUTER.
    """

    def __init__(self, send, counters):
        self._send = send
        self._counters = counters
        self._waiting = {}
        self._may_warn = counts.Seldom()

    def __len__(self):
        return len(self._waiting)

    def __contains__(self, client):
        return client in self._waiting

    def keep(self, frames):
        """Send this multipart later, the oldest of a client first."""
        waiting = self._waiting.setdefault(frames[0], collections.deque())
        waiting.append(frames)
        if len(waiting) > _LIMIT:
            waiting.popleft()
            self._counters.add('replies_dropped')
            if self._may_warn.allows():
                LOG.warning('A client does not read its replies; dropped the '
                            'oldest of %d', _LIMIT)

    def retry(self):
        """To be called every TICK while there are any."""
        for client, waiting in list(self._waiting.items()):
            self._retry(waiting)
            if not waiting:
                del self._waiting[client]

    def _retry(self, waiting):
        while waiting:
            # Taken out first: one that cannot be sent at all, by some error,
            # must not stay in front of the others.
            frames = waiting.popleft()
            outcome = self._send(frames)
            if outcome is sockets.SLOW:
                waiting.appendleft(frames)
                return
            if outcome is sockets.GONE:
                self._counters.add('replies_to_vanished_clients',
                                   1 + len(waiting))
                waiting.clear()

    def discard(self):
        """Give up on all.

        :returns: how many multiparts they were
        """
        count = sum(map(len, self._waiting.values()))
        self._waiting.clear()
        return count
