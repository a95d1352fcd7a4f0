# SPDX-License-Identifier: Apache-2.0
"""Ends TCP connections that only take memory.

libzmq keeps the frames of a multipart until its last one has come; nothing
limits how many they are, or how many peers leave big frames unfinished, and
nobody hears of them. It counts the answers that a peer does not read, but not
their bytes. So when the memory of this process grows, a guard asks the kernel
which connections sent much of which no message came, and which do not take
what was written to them.

The guard has a thread of its own: libzmq takes 300 MB of memory for small
frames in a second, and those who serve may be busy for longer than that.
"""

import math
import queue
import time

from zmq_threaded import logs
from zmq_threaded import threads
from zmq_threaded.net import ledger
from zmq_threaded.net import memory
from zmq_threaded.net import tcp_connections

LOG = logs.get(__name__)

_MEGABYTE = 1024 * 1024
_TICK, _WATCHING_TICK = 0.05, 0.02
# Looking at all connections may take this part of the time.
_SHARE = 0.2
# A look is worth while after this growth, or after this time.
_WORTH_A_LOOK, _LONGEST_WATCH = 4 * _MEGABYTE, 5.0
# From this growth on the guard watches, and from this one on it acts.
_WATCH_FROM, MOST_GROWTH = 48 * _MEGABYTE, 128 * _MEGABYTE
# While memory is short, a receiver refuses what is bigger, and says why.
SMALL = 64 * 1024
SHORT_OF_MEMORY = (
    f'short of memory: it has grown by more than {MOST_GROWTH >> 20} MiB, and '
    f'takes no message over {SMALL >> 10} KiB until that passes. See whether '
    'a service behind it does not read, and whether its log tells of '
    'connections that were ended')
# What nobody has to answer for: an ordinary message may be on its way.
_INNOCENT = 16 * 1024
# An empty frame has two bytes on the wire and 64 in memory, and malloc has
# its own needs; what has grown by more has grown for another reason.
_MOST_FOR_A_BYTE = 64


class FloodGuard:
    """Watches the connections to one TCP port.

    :param port: None for none, and then it does nothing
    :param longest: bytes that a message may have
    :param is_alone: nothing else in this process takes memory
    :param is_reading: tells whether messages are read; not, on purpose, while
        a service has enough
    :ivar is_watching: what is read and written is to be told to note(),
        read() and answer()
    :ivar is_short: the memory has grown too much

    Thread: any for start(), stop() and join(); the reader's of the socket for
    note() and read(); the writer's for answer(); guard for the rest.
    """

    def __init__(self, port, longest, counters, is_alone=False,
                 is_reading=lambda: True):
        self._port = port
        self._longest = longest
        self._counters = counters
        self._is_reading = is_reading
        self._memory = memory.Memory(
            MOST_GROWTH if is_alone else math.inf)
        self._next = self._since = 0.0
        self._forget()
        self.is_watching = self.is_short = False
        self._wakeup: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._loop = threads.Loop('zmq-guard', self._turn, self._wake,
                                  counters, finish=self._memory.close)

    def _forget(self):
        self._ledger = ledger.Ledger()
        self._is_flood = False
        self._looked_at, self._lowest = 0.0, -math.inf

    def start(self):
        if self._port is not None:
            self._loop.start()

    def stop(self):
        self._loop.stop()

    def join(self, deadline):
        """:param deadline: monotonic seconds"""
        return self._loop.join(deadline)

    def _wake(self):
        self._wakeup.put(None)

    def _turn(self):
        try:
            self._wakeup.get(timeout=max(0.0, self._next - time.monotonic()))
        except queue.Empty:
            self.check()

    # Told by those who read and write

    def note(self, fd, client):
        """A message of this routing id comes over this connection."""
        self._ledger.note(fd, client)

    def read(self, frames):
        """The message that was noted last is this one.

        :returns: whether it is of use; one of a connection that was ended is
            not, for to handle it would take longer than to send another
        """
        return self._ledger.read(frames)

    def answer(self, *arguments):
        """As sockets.answer(), and what was sent is booked."""
        return self._ledger.answer(*arguments)

    # Watching

    def check(self):
        """To be called again and again; it keeps the time."""
        began = time.monotonic()
        if self._port is None or began < self._next:
            return
        try:
            self._check(began)
        except OSError as error:
            LOG.debug('The guard against floods cannot look: %s', error)
        finally:
            took = time.monotonic() - began
            self._next = began + took + (
                max(_WATCHING_TICK, took / _SHARE) if self.is_watching
                else _TICK)

    def _check(self, now):
        grown = self._memory.growth()
        self.is_short = grown > MOST_GROWTH
        if grown > _WATCH_FROM and not self.is_watching:
            self._since, self.is_watching = now, True
        if self.is_watching:
            self._watch(now, grown)

    def _watch(self, now, grown):
        self._lowest = min(self._lowest, grown)
        if self._is_worth_a_look(now, grown):
            self._lowest, self._looked_at = grown, now
            grown = self._look(grown)
        if grown < _WATCH_FROM // 2:
            self._rest()
        elif now - self._since > _LONGEST_WATCH:
            self._since = now
            self._settle()

    def _is_worth_a_look(self, now, grown):
        return (grown > self._lowest + _WORTH_A_LOOK
                or self._is_flood and self.is_short
                or now - self._looked_at > _LONGEST_WATCH)

    def _look(self, grown):
        """:returns: the growth, now that the number of sockets is known"""
        look = tcp_connections.Look(self._port, self._memory.descriptors)
        held = self._ledger.held(look, grown, self._is_reading)
        self._memory.has_sockets(look.sockets)
        grown = self._memory.growth()
        self.is_short = grown > MOST_GROWTH
        total = sum(each.size for each in held if each.size > _INNOCENT)
        since = grown - self._ledger.grown_before
        self._is_flood = since > _WORTH_A_LOOK and (
            total * _MOST_FOR_A_BYTE > max(since, _WATCH_FROM))
        self._end(_worst(held, total) if self.is_short and self._is_flood
                  else [each for each in held
                        if each.size > 2 * self._longest + _MEGABYTE])
        return grown

    def _end(self, worst):
        for each in worst:
            self._ledger.end(each.connection)
            # Asked first: nobody has an address after the end.
            peer = each.connection.peer
            if tcp_connections.end(each.connection.fd, {self._port},
                               each.connection.key):
                self._counters.add('floods_ended')
                LOG.warning(
                    'The connection of %s to port %d was ended. The memory '
                    'of this process grows; since it was looked at, at least '
                    '%d bytes came over this connection of which no message '
                    'was read, and at least %d bytes of answers were written '
                    'to it that its peer has not taken', peer, self._port,
                    each.unread, each.untaken)

    def _settle(self):
        """After a while: what is no flood is how things are now."""
        tcp_connections.trim()
        if not self._is_flood:
            self._forget()
            self.is_watching = not self._memory.accept()

    def _rest(self):
        self.is_watching = False
        self._forget()


def _worst(held, total):
    """Those that have megabytes, or else those that together have half of
    all.
    """
    worst, share = [], 0
    for each in sorted(held, key=lambda each: -each.size):
        if each.size <= _INNOCENT or (each.size < _MEGABYTE
                                      and share > total / 2):
            break
        worst.append(each)
        share += each.size
    return worst
