# SPDX-License-Identifier: Apache-2.0
"""Ends TCP connections that only take memory.

libzmq keeps the frames of a multipart until its last one has come; nothing
limits how many they are, or how many peers leave big frames unfinished, and
nobody hears of them. It counts the answers that a peer does not read, but not
their bytes. So when the memory of this process grows, a guard asks the kernel
which connections sent much of which no message came, and which do not take
what was written to them.
"""

import collections
import ctypes
import math
import os
import time

from zmq_threaded import connections
from zmq_threaded import logs

LOG = logs.get(__name__)

_MEGABYTE = 1024 * 1024
# libzmq takes 300 MB of memory for small frames in a second, and more for big
# ones.
_TICK, _WATCHING_TICK = 0.1, 0.05
# Looking at all connections may take this part of the time.
_SHARE = 0.2
# From this growth on the guard watches, and from this one on it acts.
_WATCH_FROM, _ACT_FROM = 48 * _MEGABYTE, 128 * _MEGABYTE
# What nobody has to answer for: an ordinary message may be on its way.
_INNOCENT = 16 * 1024
# An empty frame has two bytes on the wire and 64 in memory; what has grown by
# more than that has grown for another reason.
_MOST_FOR_A_BYTE = 32
_LONGEST_WATCH = 5.0
_PAGE = os.sysconf('SC_PAGE_SIZE')


class FloodGuard:
    """Watches the connections to one TCP port.

    :param port: None for none, and then it does nothing
    :param longest: bytes that a message may have
    :param is_alone: nothing else in this process takes memory
    :ivar tick: check() is to be called so often, in seconds
    :ivar is_watching: what is read and written is to be told to note(),
        read() and wrote()
    :ivar is_acting: the memory has grown too much

    Thread: one for check() and wrote(), the reader's for note() and read().
    """

    def __init__(self, port, longest, counters, is_alone=False):
        self._port = port
        self.tick = math.inf if port is None else _TICK
        self._longest = longest
        self._counters = counters
        self._is_alone = is_alone
        self._calm = _resident()
        self._next = self._since = 0.0
        self._forget()
        self.is_watching = self.is_acting = False

    def _forget(self):
        self._marks, self._fds, self._latest = {}, {}, None
        self._ended = set()
        self._read = collections.Counter()
        self._written = collections.Counter()

    def note(self, fd, client):
        """A message of this routing id comes over this connection."""
        self._latest = fd
        self._fds[client] = fd

    def read(self, frames):
        """The message that was noted last is this one.

        :returns: whether it is of use; one of a connection that was ended is
            not, for to handle it would take longer than to send another
        """
        self._read[self._latest] += sum(map(len, frames))
        return frames[0] not in self._ended

    def wrote(self, client, size):
        """An answer of so many bytes was given to libzmq."""
        fd = self._fds.get(client)
        if fd is not None:
            self._written[fd] += size

    def check(self, is_reading=True):
        """To be called every tick or more often.

        :param is_reading: False while nothing is read, on purpose
        """
        now = time.monotonic()
        if self._port is None or now < self._next:
            return
        grown = _resident() - self._calm
        if grown < 0:
            self._calm += grown
        self.is_acting = grown > _ACT_FROM
        if self.is_watching:
            self._watch(now, grown, is_reading)
        elif grown > _WATCH_FROM:
            self._since, self.is_watching = now, True
        self._next = now + self._time_to_rest(time.monotonic() - now)

    def _time_to_rest(self, took):
        if self.is_watching:
            return max(_WATCHING_TICK, took / _SHARE)
        return _TICK

    def _watch(self, now, grown, is_reading):
        held = self._held(is_reading)
        total = sum(size for size, _ in held)
        self._end(_worst(held, total) if self.is_acting else
                  [pair for pair in held
                   if pair[0] > 2 * self._longest + _MEGABYTE])
        if grown < _WATCH_FROM // 2:
            self._rest()
        elif now - self._since > _LONGEST_WATCH:
            self._since = now
            _trim()
            if not self._is_alone and total * _MOST_FOR_A_BYTE < grown:
                self._rest()

    def _held(self, is_reading):
        """List of (bytes that it makes this process hold, Connection)."""
        marks, self._marks = self._marks, {}
        sizes = []
        for each in connections.accepted(self._port):
            unread = each.received - self._read[each.fd]
            untaken = self._written[each.fd] - each.taken
            # Least of all so far, for what was there before is not known.
            least, least_out = marks.get(each.key, (unread, untaken))
            self._marks[each.key] = (min(least, unread) if is_reading
                                     else unread, min(least_out, untaken))
            sizes.append((unread - self._marks[each.key][0]
                          + untaken - self._marks[each.key][1], each))
        return sizes

    def _end(self, worst):
        for size, each in worst:
            self._ended |= {client for client, fd in list(self._fds.items())
                            if fd == each.fd}
            if connections.end(each.fd, {self._port}, each.key):
                self._counters.add('floods_ended')
                LOG.warning(
                    'The connection of %s to port %d was ended: this process '
                    'holds %d bytes for it, unfinished or unread, and its '
                    'memory grows', each.peer, self._port, size)

    def _rest(self):
        self.is_watching = False
        self._forget()
        if not self._is_alone:
            self._calm = _resident()


def _worst(held, total):
    """Those that have megabytes, or else those that together have half of
    all.
    """
    worst, share = [], 0
    for size, each in sorted(held, key=lambda pair: -pair[0]):
        if size <= _INNOCENT or size < _MEGABYTE and share > total / 2:
            break
        worst.append((size, each))
        share += size
    return worst


def _resident():
    with open('/proc/self/statm', 'rb') as statm:
        return int(statm.read().split()[1]) * _PAGE


def _trim():
    """Give memory that libzmq has freed back to the system."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim:        # glibc's
        trim(0)
