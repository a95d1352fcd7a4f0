# SPDX-License-Identifier: Apache-2.0
"""The metrics of a node as a text, and over HTTP."""

import socket
import socketserver
from collections.abc import Callable
from wsgiref import simple_server

import prometheus_client
from prometheus_client import core

from zmq_threaded.metrics import families
from zmq_threaded.status import fact_files

# Seconds for which a client may be silent.
_SILENCE = 10.0
# Seconds between two looks whether to end.
_TICK = 0.2


class Node:
    """What prometheus_client asks for the metrics of a node, each time that
    somebody wants them.

    :param ipc_dir: where the processes of the node publish their facts

    Thread: any.
    """

    def __init__(self, ipc_dir: str) -> None:
        self._ipc_dir = ipc_dir

    def collect(self):
        """All metrics as they are now."""
        return families.families(list(fact_files.read(self._ipc_dir)))


def registry(ipc_dir: str) -> core.CollectorRegistry:
    """What prometheus_client exposes: the metrics of a node, and nothing of
    this process.
    """
    made = core.CollectorRegistry(auto_describe=False)
    made.register(Node(ipc_dir))
    return made


def text(ipc_dir: str) -> str:
    """The metrics of a node, in the text format of Prometheus."""
    return prometheus_client.generate_latest(registry(ipc_dir)).decode()


class _Handler(simple_server.WSGIRequestHandler):
    """Thread: one for each connection."""

    timeout = _SILENCE

    def log_message(self, *args):
        """Nothing: each look of Prometheus would be a line."""


class _Http(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    """Thread: zmq-metrics."""

    daemon_threads = True

    def server_bind(self):
        # Not the one of http.server, which asks the resolver for a name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = '', self.server_address[1]
        self.setup_environ()


class _Http6(_Http):
    """Thread: zmq-metrics."""

    address_family = socket.AF_INET6


class Server:
    """Serves the metrics of a node over HTTP.

    :param address: as parse() gives it
    :raises: OSError

    Thread: any.
    """

    def __init__(self, address: tuple[str, int], ipc_dir: str) -> None:
        kind = _Http6 if ':' in address[0] else _Http
        self._http = kind(address, _Handler)
        self._http.set_app(prometheus_client.make_wsgi_app(
            registry(ipc_dir)))
        self._is_ended = False

    def serve(self, is_ended: Callable[[], bool] = lambda: False) -> None:
        """Serve until stop() is called, or is_ended() says so."""
        self._http.timeout = _TICK
        with self._http:
            while not (self._is_ended or is_ended()):
                self._http.handle_request()

    def stop(self) -> None:
        """Let serve() return soon."""
        self._is_ended = True


def parse(address: str) -> tuple[str, int]:
    """What ``ADDRESS:PORT``, ``[IPv6]:PORT`` or ``:PORT`` means.

    :raises: ValueError
    """
    host, colon, port = address.rpartition(':')
    if not colon or not port.isascii() or not port.isdigit() or not (
            0 < int(port) < 65536) or ':' in host and host[:1] != '[':
        raise ValueError(f'{address!r} is not of the form ADDRESS:PORT, for '
                         'instance 127.0.0.1:9502')
    return host.removeprefix('[').removesuffix(']'), int(port)
