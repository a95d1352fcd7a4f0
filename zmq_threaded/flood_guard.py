# SPDX-License-Identifier: Apache-2.0
"""Ends TCP connections that take memory without ever sending a message.

libzmq keeps the frames of a multipart until its last one has come; nothing
limits how many they are, or how many peers leave big frames unfinished, and
nobody hears of them. So when the memory of this process grows, a guard looks
which connections receive much and deliver nothing.
"""

import ctypes
import math
import os
import time

from zmq_threaded import connections
from zmq_threaded import logs

LOG = logs.get(__name__)

_MEGABYTE = 1024 * 1024
# libzmq takes about 300 MB of memory for frames in a second.
_TICK = 0.2
# From this growth on the guard watches, and from this one on it acts.
_WATCH_FROM, _ACT_FROM = 64 * _MEGABYTE, 192 * _MEGABYTE
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
    :ivar tick: check() is to be called so often, in seconds
    :ivar is_watching: what is read is to be told by note()

    Thread: one for check(), the reader's for note().
    """

    def __init__(self, port, longest, counters):
        self._port = port
        self.tick = math.inf if port is None else _TICK
        self._longest = longest
        self._counters = counters
        self._calm = _resident()
        self._next = 0.0
        self._since = 0.0
        self._marks = {}
        self._heard = set()
        self._has_ended_some = False
        self.is_watching = False

    def note(self, fd):
        """A message has come over this connection."""
        self._heard.add(fd)

    def check(self):
        """To be called every tick or more often."""
        now = time.monotonic()
        if self._port is None or now < self._next:
            return
        self._next = now + _TICK
        grown = _resident() - self._calm
        if grown < 0:
            self._calm += grown
        if self.is_watching:
            self._watch(now, grown)
        elif grown > _WATCH_FROM:
            self._since, self.is_watching = now, True

    def _watch(self, now, grown):
        heard, self._heard = self._heard, set()
        unfinished = self._unfinished(heard)
        total = sum(size for size, _ in unfinished)
        if grown > _ACT_FROM:
            self._end(_worst(unfinished, total))
        else:
            self._end([pair for pair in unfinished
                       if pair[0] > self._longest + _MEGABYTE])
        if grown < _WATCH_FROM // 2 or (
                now - self._since > _LONGEST_WATCH
                and total * _MOST_FOR_A_BYTE < grown):
            self._rest()

    def _unfinished(self, heard):
        """List of (bytes since its last message, Connection)."""
        marks, self._marks = self._marks, {}
        sizes = []
        for each in connections.accepted(self._port):
            mark = (each.received if each.fd in heard
                    else marks.get(each.key, each.received))
            self._marks[each.key] = mark
            sizes.append((each.received - mark, each))
        return sizes

    def _end(self, worst):
        for size, each in worst:
            if connections.end(each.fd, {self._port}, each.key):
                self._has_ended_some = True
                self._counters.add('floods_ended')
                LOG.warning(
                    'The connection of %s to port %d was ended: it sent %d '
                    'bytes and no message, while the memory of this process '
                    'grew', each.peer, self._port, size)

    def _rest(self):
        self.is_watching = False
        self._marks, self._heard = {}, set()
        if self._has_ended_some:
            self._has_ended_some = False
            _trim()
        self._calm = _resident()


def _worst(unfinished, total):
    """Those that have the most, together half of all."""
    worst, share = [], 0
    for size, each in sorted(unfinished, key=lambda pair: -pair[0]):
        if size <= _INNOCENT or share > total / 2:
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
