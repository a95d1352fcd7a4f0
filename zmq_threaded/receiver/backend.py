# SPDX-License-Identifier: Apache-2.0
"""The connection from a receiver to one service of its node."""

import collections
import contextlib
import time

import zmq

from zmq_threaded import endpoints
from zmq_threaded import timings
from zmq_threaded import wire
from zmq_threaded.net import descriptors
from zmq_threaded.net import inbox
from zmq_threaded.net import multiparts
from zmq_threaded.receiver import route

TAKEN = 'taken'
BUSY, GONE, UNREACHABLE = wire.BUSY, wire.GONE, wire.UNREACHABLE

# For the milliseconds of the first handshake.
_EARLY_LIMIT = timings.EARLY
# A live service answers a QUERY at once, unless it is full; its I/O thread
# shakes hands in any case.
_ANSWER_LIMIT = timings.ANSWER
_HANDSHAKE_LIMIT = timings.HANDSHAKE_PROBE


class Backend:
    """A DEALER connected to the ROUTER of a service.

    Its identity there is in the envelopes of all that the service has not
    answered yet, so it stays as long as the service does.

    :param socket_factory: sockets.Sockets
    :param path: of the Unix socket of the service
    :raises: endpoints.BadEndpoint

    Thread: receiver.
    """

    def __init__(self, socket_factory, path, counters):
        self._endpoint = f'ipc://{path}'
        self._sockets = socket_factory
        self._socket = socket_factory.backend(self._endpoint)
        self._inbox = inbox.Inbox(self._socket, counters,
                                  multiparts.receive_uncopied)
        self.fd = self._socket.fd
        self._early: collections.deque[route.Request] = collections.deque()
        self._was_connected = False
        self._asked_at = self._heard_at = 0.0
        self._probe = None
        self._probed_at = 0.0
        self._is_unreachable = False

    def forward(self, request):
        """Pass a request on.

        :returns: TAKEN; or the reason of a NACK, and then it was not
        """
        if endpoints.is_closing(self._endpoint, self._heard_at):
            return GONE
        if self._is_unreachable:
            return UNREACHABLE
        if request.kind == wire.QUERY and self._asked_at <= self._heard_at:
            self._asked_at = time.monotonic()
        if not self._early and self._send(request):
            return TAKEN
        if self._was_connected:
            return GONE if endpoints.is_dead(self._endpoint) else BUSY
        if len(self._early) >= _EARLY_LIMIT:
            return BUSY
        self._early.append(request)
        return TAKEN

    def _send(self, request):
        try:
            multiparts.forward(self._socket, request.frames)
        except zmq.Again:
            return False
        self._was_connected = True
        return True

    def receive(self):
        """Send what waited for the handshake, and read all that is there;
        then ZMQ_FD will signal the next change.

        :returns: list of multiparts
        """
        received, events = [], multiparts.events(self._socket)
        while events & multiparts.POLLOUT and self._early:
            if self._send(self._early[0]):
                self._early.popleft()
            events = multiparts.events(self._socket)
        if events & multiparts.POLLIN:
            self._heard_at = time.monotonic()
            with contextlib.suppress(zmq.Again):
                while (frames := self._inbox.receive()) is not None:
                    received.append(frames)
        return received

    def is_behind(self):
        """Whether receive() has to be called again, for ZMQ_FD will not
        signal what is left.
        """
        return self._inbox.is_behind

    def check(self):
        """Find out whether the service is paused; to be called every tick.

        A full pipe and a lost connection look the same, and a service that
        holds what it may answers nothing: but whoever is alive shakes hands.
        """
        now = time.monotonic()
        if self._probe and self._has_peer(self._probe):
            self._heard_at = now
        if not self._is_silent(now):
            self._end_probe()
            self._is_unreachable = False
        elif self._probe is None:
            with contextlib.suppress(descriptors.Short):
                self._probe = self._sockets.backend(self._endpoint)
                self._probed_at = now
        elif now - self._probed_at > _HANDSHAKE_LIMIT:
            self._is_unreachable = True

    def _is_silent(self, now):
        latest = now - _ANSWER_LIMIT
        if self._heard_at > latest:
            return False
        return (self._heard_at < self._asked_at < latest
                or self._was_connected and not self._has_peer(self._socket))

    @staticmethod
    def _has_peer(socket):
        return bool(multiparts.events(socket) & multiparts.POLLOUT)

    def _end_probe(self):
        if self._probe:
            self._sockets.close(self._probe)
            self._probe = None

    def is_lost(self):
        """Whether the service is certain not to come back."""
        return (not self._has_peer(self._socket)
                and endpoints.is_dead(self._endpoint))

    def take_early(self):
        """The requests that wait for the first handshake; they are not passed
        on then.
        """
        requests = list(self._early)
        self._early.clear()
        return requests

    def close(self, linger=0.0):
        """:param linger: seconds for the last requests to go
        :returns: the requests that were not passed on
        """
        self._end_probe()
        self._sockets.close(self._socket, linger)
        return self.take_early()
