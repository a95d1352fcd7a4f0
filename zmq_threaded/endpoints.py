# SPDX-License-Identifier: Apache-2.0
"""Where an endpoint is, and whether somebody can be reached there."""

import os
import socket as system_socket
import time
from collections.abc import Iterable

from zmq_threaded import timings
from zmq_threaded.net import accept_gate

# The name that a socket file gets when its service closes. It stays until all
# senders have noticed the end of their connections.
_CLOSING = '.closing'


class BadEndpoint(Exception):
    """A record names an endpoint to which nobody can connect."""


def reachable(endpoints: Iterable[str]) -> str | None:
    """The first endpoint that this process can use: IPC where its file is
    on this machine and its user may connect, else TCP; None when there is
    none.
    """
    for endpoint in endpoints:
        if (not endpoint.startswith('ipc://')
                or os.access(endpoint[6:], os.W_OK)):
            return endpoint
    return None


def is_there(endpoint: str) -> bool:
    """False when an IPC endpoint has no file on this machine."""
    return not endpoint.startswith('ipc://') or os.path.exists(endpoint[6:])


def is_closing(endpoint: str, heard_at: float) -> bool:
    """Whether the service of an endpoint is closing, so that what is sent to
    it now may be lost: libzmq notices the end of a connection too late.

    :param heard_at: monotonic seconds of its last sign of life
    """
    return (time.monotonic() - heard_at > timings.FRESH
            and endpoint.startswith('ipc://')
            and os.path.exists(closing_marker(endpoint[6:])))


def closing_marker(path: str) -> str:
    """The name that the file of a Unix socket gets when its owner closes."""
    return path.removesuffix('.sock') + _CLOSING


def missing(endpoints: Iterable[str]) -> str | None:
    """The IPC endpoint among these whose file is not there, or None. Its
    service may be about to make the file anew.
    """
    return next((endpoint for endpoint in endpoints
                 if not is_there(endpoint)), None)


def is_gone(endpoint: str) -> bool:
    """Whether the service of an endpoint has ended, known for certain: a
    missing file alone says nothing, unless the service said that it closes.
    """
    if is_there(endpoint):
        return is_dead(endpoint)
    return os.path.exists(closing_marker(endpoint[6:]))


def is_dead(endpoint: str) -> bool:
    """Whether nobody listens on an endpoint now, known for certain: libzmq
    says nothing about it and tries for ever. False for TCP, where a host that
    is down gives no answer either way.
    """
    if not endpoint.startswith('ipc://'):
        return False
    try:
        with system_socket.socket(system_socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(endpoint[6:])
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except OSError:
        pass    # busy, not ours to judge, or no descriptor left
    return False


def tcp_endpoint(settings, port):
    """The endpoint under which other hosts reach a TCP port of this one."""
    return f'tcp://{bracketed(settings.host)}:{port}'


def bracketed(address: str) -> str:
    """An IP address as it stands in an endpoint."""
    plain = ':' in address and not address.startswith('[')
    return f'[{address}]' if plain else address


def own_addresses(port: int | None, path: str) -> set[int | str | None]:
    """What the connections that were accepted on a port and a path have as
    their own address: the port, the path, and the paths from which the socket
    file was renamed.
    """
    return {port, path, *accept_gate.beside(path)}
