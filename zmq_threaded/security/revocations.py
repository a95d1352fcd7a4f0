# SPDX-License-Identifier: Apache-2.0
"""Peers that are connected when their key is taken away."""

from typing import Any

from zmq_threaded import counters as counts
from zmq_threaded import logs
from zmq_threaded.net import multiparts
from zmq_threaded.net import tcp_connections
from zmq_threaded.security import access as accesses
from zmq_threaded.security import curve
from zmq_threaded.security import keys

LOG = logs.get(__name__)

# Peers that are remembered to be trusted.
_KEPT = 100_000


class Revocations:
    """Says whether a message comes from somebody who is still trusted.

    Who sent a message is asked once for each peer after a key was taken away,
    and never before one was.

    :param local: set of ports to which peers connect

    Thread: the reader's of the socket.
    """

    def __init__(self, access: accesses.Access, counters: counts.Counters,
                 local: Any) -> None:
        self._access = access
        self._counters = counters
        self._local = local
        self._judged_at = 0
        self._trusted: set[bytes] = set()
        self._may_warn = counts.Seldom()

    def is_due(self) -> bool:
        """Whether messages have to be looked at."""
        return self._access.removals > 0

    def is_revoked(self, frame: Any, client: bytes) -> bool:
        """Whether a message is to be ignored; then its connection was ended.

        :param frame: zmq.Frame, the first of the message
        :param client: what it holds, the routing id
        """
        if (self._judged_at != self._access.removals
                or len(self._trusted) > _KEPT):
            self._judged_at = self._access.removals
            self._trusted.clear()
        if client in self._trusted:
            return False
        user = curve.user_of(frame)
        if not user or self._access.is_trusted(user):
            self._trusted.add(client)
            return False
        self._end(multiparts.connection_of(frame), user)
        return True

    def _end(self, fd: int, user: bytes) -> None:
        tcp_connections.end(fd, self._local)
        self._counters.add('revoked_messages')
        if self._may_warn.allows():
            LOG.warning(
                'A message is ignored, and its connection was ended: the key '
                'of its sender, %s, is not among the trusted keys any more '
                '(more of them are only counted for a while, as '
                'revoked_messages)', keys.fingerprint(user))
