# SPDX-License-Identifier: Apache-2.0
"""Multiparts of a socket, none with more frames than a message can have.

libzmq hands over a multipart when it is complete, however many frames it has,
and nothing else of the socket before its last frame was read. So what has too
many is thrown away in slices, and whoever else needs the socket, or the
thread, gets a turn in between.
"""

from zmq_threaded import counters as counts
from zmq_threaded import logs
from zmq_threaded.net import multiparts
from zmq_threaded.net import tcp_connections

LOG = logs.get(__name__)

# About a millisecond.
_SLICE = 1000


class Inbox:
    """What arrives at a socket.

    :param receive: multiparts.receive() or multiparts.receive_uncopied()
    :param guard: flood_guard.FloodGuard of a bound socket
    :param local: set of ports and paths; who came to one of them, and sends
        too many frames, loses the connection
    :param revocations: security.revocations.Revocations of a bound socket
    :ivar is_behind: the rest of a multipart has to be thrown away, before
        anything else can be read: call receive() again soon, for ZMQ_FD says
        nothing of it

    Thread: the reader's of the socket.
    """

    def __init__(self, socket, counters, receive=multiparts.receive,
                 guard=None, local=frozenset(), revocations=None):
        self._socket = socket
        self._counters = counters
        self._receive = receive
        self._guard = guard
        self._local = local
        self._revocations = revocations
        self._is_revoked = False
        self._may_warn = counts.Seldom()
        self.is_behind = False

    def receive(self):
        """Read a multipart, or throw one away, or a slice of it.

        :raises: zmq.Again when there is none
        :returns: list of frames; None for what was thrown away
        """
        if self.is_behind:
            self.is_behind = not multiparts.skip(self._socket, _SLICE)
            return None
        try:
            if self._guard and self._guard.is_watching or (
                    self._revocations and self._revocations.is_due()):
                return self._watched()
            return self._receive(self._socket)
        except multiparts.TooManyFrames as error:
            self.is_behind = True
            self._refuse(error)
            return None

    def _watched(self):
        guard = (self._guard if self._guard and self._guard.is_watching
                 else None)
        self._is_revoked = False
        frames = self._receive(self._socket, note=self._note)
        if guard and not guard.read(frames):
            return None
        return None if self._is_revoked else frames

    def _note(self, frame, client):
        if self._guard and self._guard.is_watching:
            self._guard.note(multiparts.connection_of(frame), client)
        if self._revocations and self._revocations.is_due():
            self._is_revoked = self._revocations.is_revoked(frame, client)

    def _refuse(self, error):
        # It would go on: to read all that is more work than to send it.
        tcp_connections.end(error.fd, self._local)
        self._counters.add('malformed')
        if self._may_warn.allows():
            LOG.warning('A message is thrown away: %s (more of them are only '
                        'counted for a while)', error)
