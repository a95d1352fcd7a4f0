# SPDX-License-Identifier: Apache-2.0
"""The ROUTER socket that two threads share, made safe.

The poller reads and the reply thread writes. ZMQ_FD signals a change once,
and any operation on the socket may swallow the signal for a message that has
just arrived: so the writer looks at ZMQ_EVENTS after every send, inside the
lock, and wakes the poller when there is something to read. Without that, 29
of 3,000 requests that arrived during a send were found only by a time-out
(tests/functional/test_shared_router.py keeps that pair).
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

from zmq_threaded import endpoints
from zmq_threaded.net import binding
from zmq_threaded.net import flood_guard
from zmq_threaded.net import inbox
from zmq_threaded.net import multiparts
from zmq_threaded.security import revocations
from zmq_threaded.service import failures

# Lets the writer have the lock, which a thread that asks for it again at once
# would hardly ever leave to another.
_TURN_OF_THE_WRITER = 0.0001


class SharedRouter:
    """A bound ROUTER, read by one thread and written by another.

    :param socket_factory: sockets.Sockets, which made the socket
    :param wake_reader: makes the reading thread call receive()
    :param path: to which it is bound
    :param longest: bytes that a message may have
    :ivar guard: flood_guard.FloodGuard, for the writer to start and stop
    :ivar is_read: False while the reader has stopped reading; it sets this
        again before it reads on

    Thread: poller for receive(), reply for send(), any for close().
    """

    def __init__(self, socket_factory, socket, wake_reader, counters, path,
                 longest):
        self._sockets = socket_factory
        self._socket, self._path = socket, path
        port = binding.bound_port(socket)
        self.is_read = True
        self.guard = flood_guard.FloodGuard(
            port, longest, counters, is_reading=lambda: self.is_read)
        # Uncopied, so that who sent what there is no memory for can be told.
        local = endpoints.own_addresses(port, path)
        self._inbox = inbox.Inbox(
            socket, counters, multiparts.receive_request, self.guard, local,
            revocations.Revocations(socket_factory.access, counters, local))
        self._wake_reader = wake_reader
        self._is_behind = False
        self._lock = threading.Lock()
        self._closings = itertools.count()
        self.fd = socket.fd

    def receive(self, limit: int) -> list[list[Any]]:
        """Read what is there.

        :param limit: multiparts at most, so that the writer gets its turn
        :returns: list of multiparts; shorter than the limit only when
            nothing is left, and ZMQ_FD will signal the next one, or when
            is_behind() says so, and then the reader is woken
        """
        received: list[list[Any]] = []
        self._is_behind = False
        with self._lock:
            for _ in range(limit):
                if not multiparts.events(self._socket) & multiparts.POLLIN:
                    return received
                frames = self._inbox.receive()
                if frames is not None:
                    received.append(frames)
                if self._inbox.is_behind:
                    break
        if len(received) < limit:
            self._is_behind = True
            time.sleep(_TURN_OF_THE_WRITER)
            self._wake_reader()
        return received

    def is_behind(self) -> bool:
        """Whether there is more to read, though receive() has read less than
        it might: something is being thrown away.
        """
        return self._is_behind

    def send(self, batch: list[list[bytes]]) -> list[Any]:
        """Write some multiparts, each to the client that its first frame
        names; never blocks.

        :param batch: list of multiparts
        :returns: list of what multiparts.answer() says of each, or the
            exception that it raised
        """
        outcomes, readable = [], False
        with self._lock:
            for frames in batch:
                outcomes.append(self._answer(frames))
                readable |= multiparts.events(self._socket) & multiparts.POLLIN
        if readable and self.is_read:
            self._wake_reader()
        return outcomes

    def maintain(self, act: Callable[[Any], Any]) -> Any:
        """Do something with the socket while no other thread uses it.

        :param act: called with the socket; the reader reads afterwards, for
            it may swallow the signal of a message

        Thread: poller.
        """
        with self._lock:
            return act(self._socket)

    def _answer(self, frames):
        answer = (self.guard.answer if self.guard.is_watching
                  else multiparts.answer)
        try:
            return answer(self._socket, frames)
        except Exception as error:
            if multiparts.is_out_of_memory(error):
                self._complete(frames[-1])
            return error

    def _complete(self, frame):
        """The envelope of a multipart is under way: without an end, the next
        message would become a part of this one.
        """
        with contextlib.suppress(Exception):
            multiparts.send(self._socket, [failures.in_place_of(frame)])

    def close(self) -> bool:
        """Close the socket, when both threads have ended.

        :returns: whether this was the first time
        """
        # Without the lock, which nobody uses any more: a signal handler that
        # cleans up may interrupt its own thread in here. Unbound first: see
        # net/accept_gate.py.
        binding.unbind_ipc(self._path)
        self._sockets.close(self._socket)
        return not next(self._closings)
