# SPDX-License-Identifier: Apache-2.0
"""The connections that libzmq has accepted, as the kernel sees them.

libzmq neither names its connections nor closes one. But the descriptors are
those of this process, and shutting one down looks to libzmq like a peer that
has left.

The C library is asked directly. A socket object of Python may set O_NONBLOCK
on a descriptor that belongs to somebody else; a listing of the descriptors
needs one more; and most calls of Python let all other threads go first.
"""

import contextlib
import ctypes
import dataclasses
import errno
import functools
import os
import socket as system_socket
import struct
import sys

# struct tcp_info of linux/tcp.h: tcpi_state, tcpi_bytes_acked and _received.
_TCP_INFO_SIZE, _BYTES_AT = 136, 120
_ALIVE = 1, 8       # TCP_ESTABLISHED, TCP_CLOSE_WAIT
_SO_COOKIE = 57
_LONGEST_ADDRESS = 128
_NO_SOCKET = {errno.EBADF, errno.ENOTSOCK}
_MAPPED = '::ffff:'


@dataclasses.dataclass(slots=True, frozen=True)
class Connection:
    """One accepted TCP connection.

    :ivar key: of this connection and no later one with its number
    :ivar taken: bytes that its other end has taken so far
    :ivar received: bytes that came from there so far
    """

    fd: int
    key: int
    taken: int
    received: int

    @property
    def peer(self):
        """Address of its other end, or '' when the connection has ended."""
        address = _address(self.fd, _library().getpeername)
        if address is None or key(self.fd) != self.key:
            return ''
        return str(address[0]).removeprefix(_MAPPED)


class Look:
    """One look at all descriptors of this process.

    :param port: TCP port to which the connections were accepted
    :param end: the first number that no descriptor can have
    :ivar sockets: how many sockets there are, of all kinds

    Thread: any, one for each.
    """

    def __init__(self, port, end):
        self._port = port
        self._end = end
        self.sockets = 0

    def __iter__(self):
        """Yield each Connection, as it is at that moment."""
        for fd in range(self._end):
            info = _tcp_info(fd)
            self.sockets += info is not None
            if info and info[0] in _ALIVE and _local(fd) == self._port:
                yield Connection(fd, key(fd), *_counts(info))


def accepted(port):
    """List of the Connections to a TCP port of this process."""
    with open('/proc/self/status', 'rb') as status:
        return list(Look(port, table_size(status.read())))


def table_size(status):
    """The first number that no descriptor can have.

    :param status: bytes of /proc/self/status
    """
    return int(status.partition(b'FDSize:')[2].split(None, 1)[0])


def counts(fd):
    """(bytes that were taken, bytes that came), or None if it has ended."""
    info = _tcp_info(fd)
    return _counts(info) if info else None


def _counts(info):
    return struct.unpack_from('=QQ', info, _BYTES_AT)


def key(fd):
    """What no other socket of this machine has, or None."""
    value = _option(fd, system_socket.SOL_SOCKET, _SO_COOKIE, 8)
    return int.from_bytes(value, sys.byteorder) if value else None


def end(fd, local, key=None):
    """End a connection of ours, if it is one: the number may belong to
    something else by now.

    :param local: set of the TCP ports and paths to which it may be accepted
    :param key: of the Connection, if that is known
    :returns: whether it was ended
    """
    try:
        kept = os.dup(fd)
    except OSError as error:
        # Without a descriptor of our own the number might change its meaning
        # between two of our calls, within microseconds.
        return error.errno == errno.EMFILE and _end(fd, local, key)
    # A number of our own: what it stands for cannot change.
    try:
        return _end(kept, local, key)
    finally:
        os.close(kept)


def _end(fd, local, expected):
    return (_local(fd) in local and expected in (None, key(fd))
            and _library().shutdown(fd, system_socket.SHUT_RDWR) == 0)


def _local(fd):
    """The port or path of a socket's own end, or None."""
    address = _address(fd, _library().getsockname)
    return address if address is None or isinstance(address, str) else (
        address[1])


def _address(fd, ask):
    """(host, port), or the path of a Unix socket; None for anything else."""
    data = ctypes.create_string_buffer(_LONGEST_ADDRESS)
    size = ctypes.c_uint32(_LONGEST_ADDRESS)
    if ask(fd, data, ctypes.byref(size)):
        return None
    raw = data.raw[:size.value]
    family = int.from_bytes(raw[:2], sys.byteorder)
    if family == system_socket.AF_UNIX:
        return os.fsdecode(raw[2:].rstrip(b'\0'))
    return _internet(family, raw)


def _internet(family, raw):
    places = {system_socket.AF_INET: slice(4, 8),
              system_socket.AF_INET6: slice(8, 24)}
    if family not in places:
        return None
    return (system_socket.inet_ntop(family, raw[places[family]]),
            int.from_bytes(raw[2:4], 'big'))


def _tcp_info(fd):
    """Bytes of struct tcp_info; b'' for another socket, None for none."""
    info = _option(fd, system_socket.IPPROTO_TCP, system_socket.TCP_INFO,
                   _TCP_INFO_SIZE)
    if info is None:
        return None if ctypes.get_errno() in _NO_SOCKET else b''
    return info if len(info) == _TCP_INFO_SIZE else b''


def _option(fd, level, name, size):
    """Bytes of a socket option, or None and an errno of ctypes."""
    value = ctypes.create_string_buffer(size)
    length = ctypes.c_uint32(size)
    if _library().getsockopt(fd, level, name, value, ctypes.byref(length)):
        return None
    return value.raw[:length.value]


@functools.cache
def _library():
    # A PyDLL keeps the interpreter's lock, which these short calls would get
    # back only after all who wait for it.
    return ctypes.PyDLL(None, use_errno=True)


def trim():
    """Give memory that libzmq has freed back to the system."""
    with contextlib.suppress(AttributeError):       # glibc has it
        ctypes.CDLL(None).malloc_trim(0)
