# SPDX-License-Identifier: Apache-2.0
"""The way from a receiver to one service of its node."""

import collections
import time

import zmq

from zmq_threaded import sockets

TAKEN, BUSY, GONE = 'taken', 'busy', 'gone'

# For the milliseconds of the first handshake.
_EARLY_LIMIT = 1000
# A service removes its file, and closes a longer time later
# (service.CLOSING_QUIET): so often the file is looked at.
_FRESH = 0.02


class Backend:
    """A DEALER connected to the ROUTER of a service.

    Its identity there is in the envelopes of all that the service has not
    answered yet, so it stays as long as the service does.

    :raises: sockets.BadEndpoint

    Thread: receiver.
    """

    def __init__(self, context, settings, path):
        self._endpoint = f'ipc://{path}'
        self._socket = sockets.backend_socket(context, settings,
                                              self._endpoint)
        self.fd = self._socket.fd
        self._early = collections.deque()
        self._was_connected = False
        self._looked_at = 0.0

    def forward(self, request):
        """Pass a request on.

        :returns: TAKEN; or BUSY or GONE, and then it was not
        """
        if self._is_closing():
            return GONE
        if not self._early and self._send(request):
            return TAKEN
        if self._was_connected:
            return GONE if sockets.is_dead(self._endpoint) else BUSY
        if len(self._early) >= _EARLY_LIMIT:
            return BUSY
        self._early.append(request)
        return TAKEN

    def _is_closing(self):
        now = time.monotonic()
        if now - self._looked_at < _FRESH:
            return False
        self._looked_at = now
        return not sockets.is_there(self._endpoint)

    def _send(self, request):
        try:
            sockets.forward(self._socket, request.frames)
        except zmq.Again:
            return False
        self._was_connected = True
        return True

    def receive(self):
        """Send what waited for the handshake, and read all that is there;
        then ZMQ_FD will signal the next change.

        :returns: list of multiparts
        """
        received, events = [], sockets.events(self._socket)
        while events & sockets.POLLOUT and self._early:
            if self._send(self._early[0]):
                self._early.popleft()
            events = sockets.events(self._socket)
        if events & sockets.POLLIN:
            try:
                while True:
                    received.append(sockets.receive_uncopied(self._socket))
            except zmq.Again:
                pass
        return received

    def is_lost(self):
        """Whether the service is certain not to come back."""
        return (not sockets.events(self._socket) & sockets.POLLOUT
                and sockets.is_dead(self._endpoint))

    def close(self):
        """:returns: the requests that were not passed on"""
        # Within the linger of the receiver its last requests still go.
        self._socket.close()
        return list(self._early)
