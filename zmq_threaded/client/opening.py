# SPDX-License-Identifier: Apache-2.0
"""How a caller gets a connection: which address, and why none."""

import contextlib
import time

from zmq_threaded import endpoints
from zmq_threaded.client import reasons
from zmq_threaded.net import addresses
from zmq_threaded.net import happy_eyeballs
from zmq_threaded.net import multiparts
from zmq_threaded.net import resolver
from zmq_threaded.security import probe as probes

# A handshake takes less than a millisecond between processes that run.
_CONNECT_WAIT = 1.0
_CONNECT_PROBE_AFTER = 0.02


class Unreachable(Exception):
    """Nobody answers; the text says which addresses were tried, and why."""


_PROBLEMS = (Unreachable, resolver.Unresolved, endpoints.BadEndpoint)


class Opening:
    """Opens sockets whose peer has answered.

    :param socket_factory: sockets.Sockets

    Thread: any.
    """

    def __init__(self, socket_factory, counters=None):
        self._sockets = socket_factory
        self._reasons = probes.Reasons(socket_factory, counters)
        self._addresses = addresses.of_process()

    def open(self, candidates, deadline, key=b''):
        """
        :param candidates: the endpoints of a record
        :param deadline: monotonic seconds; _CONNECT_WAIT at most is waited
        :param key: public key of their TCP port, b'' for an open one
        :raises: Unreachable
        :returns: (the endpoint of them that is used, socket)
        """
        limit = min(deadline, time.monotonic() + _CONNECT_WAIT)
        endpoint = endpoints.reachable(candidates)
        try:
            if endpoint is None:
                raise Unreachable(reasons.unusable(candidates))
            if endpoint.startswith('ipc://'):
                return endpoint, self._ipc(endpoint, limit)
            return endpoint, self._tcp(endpoint, limit, key, deadline)
        except _PROBLEMS as problem:
            also = endpoint and reasons.unusable(candidates, True)
            raise Unreachable(f'{problem}; {also}' if also
                              else str(problem)) from None

    def _ipc(self, endpoint, limit):
        socket = self._sockets.request(endpoint)
        with self._closed_on_error(socket):
            if (_poll_out(socket, _soon(limit))
                    or not endpoints.is_dead(endpoint)
                    and _poll_out(socket, limit)):
                return socket
            raise Unreachable(f'{endpoint}: ' + (
                'nobody listens there any more' if endpoints.is_dead(endpoint)
                else 'no answer, its process is paused or overloaded'))

    def _tcp(self, endpoint, limit, key, deadline):
        found = self._addresses.wait(endpoint, limit)
        first = found[0]
        socket = self._sockets.request(addresses.as_endpoint(first), key)
        with self._closed_on_error(socket):
            if _poll_out(socket, _soon(limit)):
                return socket
            tried = happy_eyeballs.HappyEyeballs(found)
            winner = tried.run(limit)
            if (winner == first or tried.is_blind) and self._ready(
                    socket, limit, endpoint, first, key, deadline):
                return socket
        self._sockets.close(socket)
        if winner not in (None, first):
            return self._to_another(endpoint, winner, limit, key, deadline)
        self._addresses.failed(endpoint)
        raise Unreachable(_found(endpoint, tried))

    def _to_another(self, endpoint, address, limit, key, deadline):
        """Of several addresses not the first one answers."""
        socket = self._sockets.request(addresses.as_endpoint(address), key)
        with self._closed_on_error(socket):
            if self._ready(socket, limit, endpoint, address, key, deadline):
                self._addresses.worked(endpoint, address)
                return socket
            raise Unreachable(addresses.mute(endpoint, address))

    def _ready(self, socket, limit, endpoint, address, key, deadline):
        """Whether a port that takes connections shakes hands in time.

        :raises: Unreachable if it is known why it does not
        """
        if not key:
            return _poll_out(socket, limit)
        if _poll_out(socket, min(limit, time.monotonic() + probes.AFTER)):
            return True
        why = self._reasons.find(addresses.as_endpoint(address), key,
                                 deadline)
        if why:
            raise Unreachable(
                f'{addresses.describe(endpoint, address)}: {why}')
        return _poll_out(socket, limit)

    @contextlib.contextmanager
    def _closed_on_error(self, socket):
        try:
            yield
        except BaseException:
            self._sockets.close(socket)
            raise


def _found(endpoint, tried):
    problems = addresses.problems(endpoint, tried)
    if tried.winner is None:
        return problems
    mute = addresses.mute(endpoint, tried.winner)
    return f'{problems}; {mute}' if problems else mute


def _soon(limit):
    return min(limit, time.monotonic() + _CONNECT_PROBE_AFTER)


def _poll_out(socket, deadline):
    left = max(0.0, deadline - time.monotonic())
    return bool(socket.poll(int(left * 1000) + 1, multiparts.POLLOUT))
