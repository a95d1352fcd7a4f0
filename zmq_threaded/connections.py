# SPDX-License-Identifier: Apache-2.0
"""The connections that libzmq has accepted, as the kernel sees them.

libzmq neither names its connections nor closes one. But the descriptors are
those of this process, and shutting one down looks to libzmq like a peer that
has left.
"""

import contextlib
import dataclasses
import os
import socket as system_socket
import struct

# struct tcp_info of linux/tcp.h: tcpi_state, tcpi_bytes_acked and _received.
_TCP_INFO_SIZE, _BYTES_AT = 136, 120
_ALIVE = 1, 8       # TCP_ESTABLISHED, TCP_CLOSE_WAIT


@dataclasses.dataclass(slots=True, frozen=True)
class Connection:
    """One accepted TCP connection.

    :ivar key: of this connection and no later one with its number
    :ivar peer: address of its other end
    :ivar taken: bytes that its other end has taken so far
    :ivar received: bytes that came from there so far
    """

    fd: int
    key: int
    peer: str
    taken: int
    received: int


def accepted(port):
    """List of the Connections to a TCP port of this process."""
    found = []
    for name in os.listdir('/proc/self/fd'):
        with contextlib.suppress(OSError), _borrowed(int(name)) as socket:
            if _local(socket) == port:
                found.append(_described(int(name), socket))
    return [each for each in found if each]


def _described(fd, socket):
    info = socket.getsockopt(system_socket.IPPROTO_TCP,
                             system_socket.TCP_INFO, _TCP_INFO_SIZE)
    if len(info) < _TCP_INFO_SIZE or info[0] not in _ALIVE:
        return None
    taken, received = struct.unpack_from('=QQ', info, _BYTES_AT)
    return Connection(fd, os.fstat(fd).st_ino,
                      socket.getpeername()[0].removeprefix('::ffff:'), taken,
                      received)


def end(fd, local, key=None):
    """End a connection of ours, if it is one: the number may belong to
    something else by now.

    :param local: set of the TCP ports and paths to which it may be accepted
    :param key: of the Connection, if that is known
    :returns: whether it was ended
    """
    with contextlib.suppress(OSError), _kept(fd) as kept, _borrowed(
            kept) as socket:
        if _local(socket) in local and (
                key is None or os.fstat(kept).st_ino == key):
            socket.shutdown(system_socket.SHUT_RDWR)
            return True
    return False


@contextlib.contextmanager
def _kept(fd):
    """A number of our own, so that what it stands for cannot change."""
    kept = os.dup(fd)
    try:
        yield kept
    finally:
        os.close(kept)


@contextlib.contextmanager
def _borrowed(fd):
    """A socket object for a descriptor that stays open."""
    socket = system_socket.socket(fileno=fd)
    try:
        yield socket
    finally:
        socket.detach()


def _local(socket):
    if socket.family == system_socket.AF_UNIX:
        return socket.getsockname()
    return socket.getsockname()[1]
