# SPDX-License-Identifier: Apache-2.0
"""Happy eyeballs (RFC 8305): which of several TCP addresses answers, and why
the others do not.

libzmq says nothing about a connection that it cannot make, and tries for ever.
"""

import collections
import contextlib
import errno
import os
import select
import socket
import time

from zmq_threaded.net import descriptors

# Until the next address is tried beside one that does not answer (RFC 8305).
_STAGGER = 0.25
# Errors of this process, which the other end could not mend.
_OURS = descriptors.SHORTAGES | {errno.EADDRNOTAVAIL, errno.EAGAIN}
_PENDING = {0, errno.EINPROGRESS}


class HappyEyeballs:
    """Plain connects to some addresses, one soon after the other; the first
    that succeeds wins. Nothing is sent.

    :param addresses: list of (host, port), both numbers
    :ivar winner: one of them, or None
    :ivar problems: dict of address to text
    :ivar is_blind: this process had no means to find out

    Thread: any, one at a time.
    """

    def __init__(self, addresses):
        self._addresses = list(addresses)
        self._next = collections.deque(self._addresses)
        self._next_at = 0.0
        self._running = {}
        self._poll = select.poll()
        self._began = time.monotonic()
        self.winner = None
        self.problems = {}
        self.is_blind = False

    def run(self, deadline):
        """:param deadline: monotonic seconds
        :returns: the winner, or None
        """
        with contextlib.closing(self):
            while not self.advance(min(deadline, self._wait_until(deadline))):
                if time.monotonic() >= deadline:
                    break
        return self.winner

    def _wait_until(self, deadline):
        return self._next_at if self._next else deadline

    def advance(self, until=0.0):
        """Look what has happened, and begin what is due.

        :param until: monotonic seconds until which to wait for an event
        :returns: whether it is over
        """
        while self._next and (not self._running
                              or time.monotonic() >= self._next_at):
            self._begin(self._next.popleft())
        if self._running and self.winner is None:
            wait = max(0.0, until - time.monotonic())
            for fd, _ in self._poll.poll(int(wait * 1000 + 0.999)):
                self._judge(*self._running[fd])
        return self.winner is not None or not (self._next or self._running)

    def _begin(self, address):
        if self.winner is not None:
            return
        self._next_at = time.monotonic() + _STAGGER
        try:
            probe = _probe(address[0])
        except OSError as error:
            return self._failed(address, error.errno)
        self._running[probe.fileno()] = address, probe
        self._poll.register(probe, select.POLLOUT)
        try:
            code = probe.connect_ex(address)
        except (OSError, OverflowError) as error:
            code = getattr(error, 'errno', None) or errno.EINVAL
        if code not in _PENDING:
            self._drop(probe)
            self._failed(address, code)

    def _judge(self, address, probe):
        code = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code and _is_connected_to_itself(probe):
            code = errno.ECONNREFUSED
        self._drop(probe)
        if code:
            self._failed(address, code)
        elif self.winner is None:
            self.winner = address

    def _failed(self, address, code):
        self.is_blind = self.is_blind or code in _OURS
        self.problems[address] = os.strerror(code).lower()

    def _drop(self, probe):
        del self._running[probe.fileno()]
        self._poll.unregister(probe)
        probe.close()

    def close(self):
        """It is over: those that have not answered did not do so."""
        waited = time.monotonic() - self._began
        for address, probe in list(self._running.values()):
            self.problems[address] = f'no answer within {waited:.1f} s'
            self._drop(probe)
        for address in self._next:
            self.problems[address] = 'there was no time to try it'
        self._next.clear()


def _probe(host):
    probe = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET,
                          socket.SOCK_STREAM)
    probe.setblocking(False)
    return probe


def _is_connected_to_itself(probe):
    # A port of this machine in the range from which the system takes the
    # port of the probe.
    with contextlib.suppress(OSError):
        return probe.getsockname() == probe.getpeername()
    return False
