# SPDX-License-Identifier: Apache-2.0
"""How much memory this process has taken without a known reason."""

import io
import os

from zmq_threaded.net import tcp_connections

# Of one that is idle: 28 kB in a receiver, mostly libzmq's buffers.
_FOR_A_SOCKET = 32 * 1024
_STATUS, _OPEN = '/proc/self/status', '/proc/self/fd'
_LONGEST_STATUS = 16 * 1024


class Memory:
    """The resident memory of this process, against what it was.

    :param most_accepted: bytes without a reason that accept() may take as
        given, in all
    :ivar descriptors: the first number that no descriptor can have

    Thread: guard.
    """

    def __init__(self, most_accepted):
        self._most_accepted = most_accepted
        self._accepted = 0
        self._calm: int | None = None
        self._resident = 0
        self._sockets = self._most_sockets = self._sockets_then = 0
        self.descriptors = 0
        self._file = None

    def growth(self):
        """Bytes more than accepted, and than the sockets explain.

        :raises: OSError
        """
        # Opened once: there may be no descriptor when it matters most.
        self._file = self._file or io.FileIO(_STATUS)
        status = os.pread(self._file.fileno(), _LONGEST_STATUS, 0)
        self.descriptors = tcp_connections.table_size(status)
        self._resident = int(status.partition(b'VmRSS:')[2].split(None, 1)[0]
                             ) * 1024
        # All that is open, Linux 6.2 and later say. That needs no descriptor.
        self.has_sockets(os.stat(_OPEN).st_size or self._sockets)
        if self._calm is None:
            self._take_as_given()
        grown = self._unexplained()
        if grown < 0:
            self._accepted = max(0, self._accepted + grown)
            self._take_as_given()
        return max(0, grown)

    def _unexplained(self):
        more = self._most_sockets - self._sockets_then
        return self._resident - (self._calm or 0) - more * _FOR_A_SOCKET

    def has_sockets(self, count):
        """So many there are now. Memory of those that have gone may stay."""
        self._sockets = count
        self._most_sockets = max(self._most_sockets, count)

    def accept(self):
        """Measure from what is there now on, if that may be.

        :returns: whether it may
        """
        self.growth()
        grown = max(0, self._unexplained())
        if self._accepted + grown > self._most_accepted:
            return False
        self._accepted += grown
        self._take_as_given()
        return True

    def _take_as_given(self):
        self._calm = self._resident
        self._sockets_then = self._most_sockets = self._sockets

    def close(self):
        if self._file:
            self._file.close()
