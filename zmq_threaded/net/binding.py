# SPDX-License-Identifier: Apache-2.0
"""Binding the ROUTER of a service or a receiver: to a Unix socket, to ports.
"""

import contextlib
import errno
import functools
import os
import random

import zmq

from zmq_threaded import endpoints
from zmq_threaded import options
from zmq_threaded import sockets
from zmq_threaded.net import accept_gates
from zmq_threaded.net import descriptors
from zmq_threaded.security import access as accesses
from zmq_threaded.security import curve
from zmq_threaded.security import keys

# Bytes of the path of a Unix socket.
_IPC_PATH_LIMIT = 107
# Descriptors of an accept gate.
_FOR_A_GATE = 8


class BindError(Exception):
    """A service could not bind; the text names the address.

    :ivar is_full: the disk has no room for the file of a Unix socket
    """

    def __init__(self, text, is_full=False):
        self.is_full = is_full
        super().__init__(text)


# What making a socket, a thread or a file may raise.
FAILURES = BindError, descriptors.Short, OSError, zmq.ZMQError


def bind_ipc(socket: zmq.Socket, path: str) -> str:
    """Bind to a Unix socket and return its endpoint. Clients come in through
    an accept gate (net/accept_gate.py).

    The path must be new: a live one is taken away from its owner without an
    error. unbind_ipc() is to be called before the socket is closed.

    :raises: BindError, descriptors.Short
    """
    if len(os.fsencode(path)) > _IPC_PATH_LIMIT:
        raise BindError(f'rpc_zmq_ipc_dir: {path} is longer than the '
                        f'{_IPC_PATH_LIMIT} bytes of a Unix socket')
    endpoint = f'ipc://{path}'
    with _bind_errors(endpoint):
        descriptors.demand(_FOR_A_GATE)
        accept_gates.bind(path, functools.partial(
            sockets.listen_on, socket, endpoint))
    return endpoint


def reopen_ipc(path: str) -> bool:
    """Make the file of a path anew, to which a socket is bound still.

    :returns: False when none is
    :raises: BindError, descriptors.Short
    """
    with _bind_errors(f'ipc://{path}'):
        descriptors.demand(_FOR_A_GATE)
        return accept_gates.reopen(path)


@contextlib.contextmanager
def _bind_errors(endpoint):
    try:
        yield
    except (zmq.ZMQError, OSError) as error:
        if descriptors.is_shortage(error):
            raise descriptors.short(error) from None
        is_full = getattr(error, 'errno', 0) in (errno.ENOSPC, errno.EDQUOT)
        raise BindError(f'{endpoint}: {error}', is_full) from None


def holds_ipc(path: str) -> bool:
    """Whether the file of a path that was bound here is there, and ours."""
    return accept_gates.holds(path)


def unbind_ipc(path: str) -> None:
    """Remove the file of a Unix socket, if it is still ours. Clients that are
    connected stay connected. Twice is fine.
    """
    accept_gates.unbind(path)


def bind_tcp(socket: zmq.Socket, settings: options.Settings,
             pair: keys.Pair | None = None) -> str:
    """Bind to a free port of the configured range.

    :param pair: with which it is encrypted; None for an open port
    :raises: BindError
    :returns: the endpoint under which other hosts reach it
    """
    tries = min(settings.bind_retries, len(settings.ports))
    for port in random.sample(settings.ports, tries):
        if _bind_port(socket, settings, port, pair):
            return endpoints.tcp_endpoint(settings, port)
    raise BindError(
        f'no free port on {settings.bind_address} in {tries} tries between '
        f'rpc_zmq_min_port {settings.ports.start} and '
        f'rpc_zmq_max_port {settings.ports.stop - 1}')


def listen_again(socket: zmq.Socket, settings: options.Settings,
                 port: int, pair: keys.Pair | None = None) -> bool:
    """Bind anew to a port on which nobody listens any more.

    :param pair: with which it is encrypted; None for an open port
    :returns: False when somebody does, be it the socket itself
    :raises: BindError
    """
    # Never by unbinding first: libzmq would drop all clients with it.
    return _bind_port(socket, settings, port, pair)


def bind_receiver_port(socket: zmq.Socket, settings: options.Settings,
                       pair: keys.Pair | None = None) -> None:
    """Bind to the one TCP port of the node.

    :param pair: with which it is encrypted; None for an open port
    :raises: BindError
    """
    if not _bind_port(socket, settings, settings.receiver_port, pair):
        raise BindError(
            f'rpc_zmq_port {settings.receiver_port} on '
            f'{settings.bind_address} is taken: another receiver, or '
            'something else, listens there')


def _bind_port(socket, settings, port, pair):
    """False when the port is taken."""
    if pair is None and accesses.is_serving(settings):
        raise BindError('a port is to be encrypted, and there is no key')
    address = endpoints.bracketed(settings.bind_address)
    if address != '*' and ':' not in address:
        sockets.listen_on_ipv4(socket)
    try:
        # IPv6 sockets bound to '*' take IPv4 too.
        with (curve.encrypted(socket, pair) if pair
              else contextlib.nullcontext()):
            socket.bind(f'tcp://{address}:{port}')
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            return False
        raise BindError(f'rpc_zmq_bind_address: tcp://{address}:{port}: '
                        f'{error}') from None
    return True


def bound_port(socket: zmq.Socket) -> int | None:
    """The TCP port to which a socket was bound last, or None."""
    endpoint = bytes(socket.get(zmq.LAST_ENDPOINT)).rstrip(b'\0').decode()
    is_tcp = endpoint.startswith('tcp://')
    return int(endpoint.rpartition(':')[2]) if is_tcp else None
