# SPDX-License-Identifier: Apache-2.0
"""What was read from each connection, and written to it, while a guard
watches; and what that leaves.

The kernel knows connections by numbers, which are used again; libzmq knows
clients by routing ids, which a stranger may use again. A connection here is
one of a number and a key that the kernel never gives twice.
"""

import dataclasses
import math

from zmq_threaded.net import multiparts
from zmq_threaded.net import tcp_connections

# Ended clients that are remembered: a bound, not a need.
_MOST_ENDED = 100_000


class _Client:
    """What is known of one client.

    Thread: the reader's writes `read`, the writer's `written`.
    """

    __slots__ = ('fd', 'key', 'read', 'written')

    def __init__(self, fd=-1, key=None):
        self.fd, self.key = fd, key
        self.read = self.written = 0


@dataclasses.dataclass(slots=True, frozen=True)
class Held:
    """What a Connection makes this process hold, in bytes, at least.

    :ivar unread: came, and no message was read of it
    :ivar untaken: was written, and its peer has not taken it
    """

    connection: tcp_connections.Connection
    unread: int
    untaken: int

    @property
    def size(self):
        return self.unread + self.untaken


class Ledger:
    """Begun anew each time that the guard begins to watch.

    :ivar grown_before: growth of the memory at the first look

    Thread: the reader's of the socket for note() and read(), the writer's for
    answer(), guard for the rest. They share dicts without a lock: each
    operation on one is a single step, and each number has one writer.
    """

    def __init__(self):
        self._clients: dict[bytes, _Client] = {}
        self._by_key: dict[int | None, _Client] = {}
        self._ended = set()
        # Who is not known, and who is not known any more.
        self._nobody, self._latest = _Client(), _Client()
        self._answering = None
        self._marks: dict[int, tuple[int, int]] | None = None
        self.grown_before = 0

    def note(self, fd, client):
        known = self._clients.get(client)
        if known is None or known.fd != fd:
            known = self._clients[client] = _Client(
                fd, tcp_connections.key(fd))
        self._by_key[known.key] = self._latest = known

    def read(self, frames):
        self._latest.read += _on_wire(frames)
        return frames[0] not in self._ended

    def answer(self, socket, frames, send=multiparts.send):
        """As multiparts.answer()."""
        known = self._clients.get(frames[0])
        if known is None:
            return multiparts.answer(socket, frames, send)
        self._answering = known
        try:
            outcome = multiparts.answer(socket, frames, send)
            if outcome is multiparts.SENT:
                known.written += _on_wire(frames)
            return outcome
        finally:
            self._answering = None

    def end(self, connection):
        """What still comes of this connection is of no use."""
        if len(self._ended) > _MOST_ENDED:
            self._ended.clear()
        self._ended.update(
            client for client, known in self._clients.copy().items()
            if known.key == connection.key)

    def held(self, look, grown, is_reading):
        """Ask the kernel.

        :param look: connections.Look
        :param grown: growth of the memory so far
        :param is_reading: tells whether messages are read
        :returns: list of Held
        """
        known_before = self._clients.copy()
        if self._marks is None:
            self.grown_before = grown
        marks, held = {}, []
        for each in look:
            marks[each.key], one = self._held(each, is_reading())
            held.append(one)
        self._marks = marks
        self._drop_all_but(marks, known_before)
        return held

    def _held(self, each, is_reading):
        """(marks, Held) of a Connection. What the kernel says is from before
        or after what was booked, whichever is in favour of its peer.
        """
        client = self._by_key.get(each.key, self._nobody)
        read, is_answering = client.read, client is self._answering
        written = client.written
        taken, received = tcp_connections.counts(each.fd) or (each.taken,
                                                          each.received)
        # Least of all so far, for what was there before is not known. Of who
        # has come since, all is known.
        least, least_out = self._mark(each)
        least = (min(least, received - read) if is_reading
                 else received - read)
        if not is_answering:
            least_out = min(least_out, written - each.taken)
        return (least, least_out), Held(
            each, max(0, each.received - read - least),
            max(0, written - taken - least_out))

    def _mark(self, each):
        if self._marks is None:
            return math.inf, math.inf
        return self._marks.get(each.key, (0, 0))

    def _drop_all_but(self, keys, candidates):
        for client, known in candidates.items():
            key = known.key
            if key not in keys and self._clients.get(client) is known:
                self._clients.pop(client, None)
                self._by_key.pop(key, None)


def _on_wire(frames):
    """Bytes that a multipart has there, without the routing id."""
    sizes = map(len, frames[1:])
    return sum(size + (2 if size < 256 else 9) for size in sizes)
