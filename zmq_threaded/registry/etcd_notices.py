# SPDX-License-Identifier: Apache-2.0
"""Which topics of an etcd have changed, told by its watches.

All watches of a process share one stream of HTTP, which is one connection
beside the one that reads and writes. What comes is read without waiting: a
client of HTTP would wait in the middle of a line.
"""

import base64
import contextlib
import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Collection
from typing import Any
from urllib import parse

from zmq_threaded.registry import notices as noticing

# Seconds. A look-up waits for the watch of its topic.
_TIMEOUT = 1.0
# Topics that nobody uses any more and that are still watched.
_MOST_FORGOTTEN = 100
_AT_ONCE, _LONGEST_TAIL = 1 << 16, 1 << 12
# With keep-alive the server would read no request once it answers.
_HEADERS = {'Content-Type': 'application/json', 'Connection': 'close',
            'Transfer-Encoding': 'chunked'}
_CREATED = re.compile(rb'"created":true')
_REFUSED = re.compile(rb'"canceled":true|"error":|HTTP/1\.[01] [^2]')
_KEY = re.compile(rb'"key":"([A-Za-z0-9+/=]*)"')


class EtcdNotices(noticing.Readable):
    """The prefixes of the groups that somebody looks up.

    Thread: as notices.Notices says.
    """

    def __init__(self) -> None:
        self._connection: http.client.HTTPConnection | None = None
        self._keys: dict[bytes, str] = {}
        self._forgotten: set[str] = set()
        self._created = 0
        self._tail = b''

    def watch(self, coordinator: Any, key: str) -> bool:
        """As Notices says."""
        self._forgotten.discard(key)
        prefix = coordinator._prefix_group(key.encode())
        if self._connection is not None and prefix in self._keys:
            self._listen()
            return False
        if len(self._forgotten) > _MOST_FORGOTTEN:
            self.close()    # the others are watched with their next look-up
        try:
            stream = self._stream(coordinator.client)
            self._keys[prefix] = key
            self._create(stream, prefix)
        except BaseException:
            self.close()
            raise
        self.read()
        return True

    def _stream(self, client: Any) -> socket.socket:
        if self._connection is None:
            self._keys, self._forgotten = {}, set()
            self._created, self._tail = 0, b''
            made = self._connection = _connection(client)
            made.putrequest('POST', parse.urlsplit(
                client.get_url('/watch')).path)
            for name, value in _HEADERS.items():
                made.putheader(name, value)
            made.endheaders()
            noticing.keep_alive(made.sock)
            self.fd = made.sock.fileno()
        stream: socket.socket = self._connection.sock
        return stream

    def _create(self, stream: socket.socket, prefix: bytes) -> None:
        """Ask for one more watch, and wait until it is there."""
        wanted, deadline = self._created + 1, time.monotonic() + _TIMEOUT
        stream.settimeout(_TIMEOUT)
        stream.sendall(_request(prefix))
        while self._created < wanted:
            stream.settimeout(max(0.001, deadline - time.monotonic()))
            self._take(stream.recv(_AT_ONCE))

    def read(self) -> None:
        """As Notices says. A stream that has ended is made again with the
        next look-up.
        """
        if self._connection is None:
            return
        stream = self._connection.sock
        stream.setblocking(False)
        try:
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                while True:
                    self._take(stream.recv(_AT_ONCE))
        except BaseException:
            self.close()
            raise
        self._listen()

    def _take(self, more: bytes) -> None:
        """:raises: ConnectionError at the end of the stream"""
        read = self._tail + more
        if not more or _REFUSED.search(read):
            raise ConnectionError('etcd has ended the watches')
        end = 0
        for created in _CREATED.finditer(read):
            self._created += 1
            end = created.end()
        for changed in _KEY.finditer(read):
            self._tell_of(base64.b64decode(changed[1]))
            end = max(end, changed.end())
        self._tail = read[end:][-_LONGEST_TAIL:]

    def _tell_of(self, changed: bytes) -> None:
        for prefix, key in list(self._keys.items()):
            if changed.startswith(prefix):
                self._tell(key, 0)

    def announce(self, coordinator: Any, keys: Collection[str]) -> None:
        """Etcd tells."""

    def forget(self, key: str) -> None:
        """As Notices says. What is told of it is of no use to anybody."""
        self._forgotten.add(key)

    def close(self) -> None:
        """As Notices says."""
        closing, self._connection = self._connection, None
        self._listen_no_more()
        if closing is not None:
            closing.close()


def _connection(client: Any) -> http.client.HTTPConnection:
    """With the certificates that the session of etcd3gw has."""
    if client.protocol != 'https':
        return http.client.HTTPConnection(client.host, client.port,
                                          timeout=_TIMEOUT)
    session = client.session
    context = ssl.create_default_context(
        cafile=session.verify if isinstance(session.verify, str) else None)
    if session.cert:
        context.load_cert_chain(*session.cert)
    return http.client.HTTPSConnection(client.host, client.port,
                                       timeout=_TIMEOUT, context=context)


def _request(prefix: bytes) -> bytes:
    """One chunk of the body."""
    end = prefix[:-1] + bytes([prefix[-1] + 1])
    body = json.dumps({'create_request': {
        'key': base64.b64encode(prefix).decode(),
        'range_end': base64.b64encode(end).decode()}}).encode()
    return b'%x\r\n%s\r\n' % (len(body), body)
