# SPDX-License-Identifier: Apache-2.0
"""Records the bytes that go over a TCP connection."""

import contextlib
import socket
import threading


class WireTap:
    """Passes on what comes to a port of its own, and keeps all of it.

    :ivar port: its own
    :ivar recorded: bytes of both directions
    """

    def __init__(self, target_port):
        self._target_port = target_port
        self.recorded = bytearray()
        self._sockets = []
        self._threads = []
        self._listening = socket.create_server(('127.0.0.1', 0))
        self.port = self._listening.getsockname()[1]
        self._begin(self._accept)

    def _begin(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(('127.0.0.1',
                                                self._target_port))
                self._sockets += near, far
                self._begin(self._copy, near, far)
                self._begin(self._copy, far, near)

    def _copy(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.recorded += data
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def end(self):
        for each in (self._listening, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)
