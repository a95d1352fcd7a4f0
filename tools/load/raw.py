# SPDX-License-Identifier: Apache-2.0
"""Both ends of the raw contestant.

The raw contestant is a pyzmq REQ-ROUTER echo without oslo.messaging. Its
sockets are in Linux's abstract namespace (ipc://@...), which leaves no files.
"""

import struct
import threading

import zmq

from load import payload as payloads

_IDENT = struct.Struct('<Q')
_PROBE = b'probe'
_PROBE_TIMEOUT_SECONDS = 2
_STOP_POLL_MS = 100


def endpoint(topic, number):
    """Return the ZeroMQ address of server `number` of a contestant."""
    return f'ipc://@{topic}.{number}'


class RawClient:
    """The sending end: each client thread has a REQ socket of its own."""

    def __init__(self, topic, servers, token, size, timeout):
        self.pool = [text.encode('ascii') for text in payloads.make_pool(size)]
        self._token = token.encode('ascii')
        self._timeout = timeout
        self._endpoints = [
            endpoint(topic, number) for number in range(servers)
        ]
        self._context = zmq.Context()

    def operation(self, thread):
        """Return operation(ident, payload) -> bool; False is a wrong reply."""
        place = self._endpoints[thread % len(self._endpoints)]
        exchange = _Exchange(self._context, place, self._timeout)
        token, pack = self._token, _IDENT.pack

        def operation(ident, payload):
            sent = [pack(ident), token, payload]
            return exchange(sent) == sent
        return operation

    def probe(self):
        """Send every server a message that it only counts.

        May raise zmq.Again.
        """
        for place in self._endpoints:
            exchange = _Exchange(self._context, place, _PROBE_TIMEOUT_SECONDS)
            try:
                exchange([_PROBE])
            finally:
                exchange.close()

    def close(self):
        """Close all sockets."""
        self._context.destroy(linger=0)


class _Exchange:
    """One request and its reply on a REQ socket.

    The socket is renewed after a failure.
    """

    def __init__(self, context, place, timeout):
        self._context = context
        self._place = place
        self._timeout_ms = round(timeout * 1000)
        self._connect()

    def __call__(self, frames):
        try:
            self._socket.send_multipart(frames)
            return self._socket.recv_multipart()
        except zmq.ZMQError:
            # A REQ socket that missed its reply cannot send again.
            self.close()
            self._connect()
            raise

    def _connect(self):
        self._socket = self._context.socket(zmq.REQ)
        self._socket.linger = 0
        self._socket.sndtimeo = self._socket.rcvtimeo = self._timeout_ms
        self._socket.connect(self._place)

    def close(self):
        self._socket.close()


class RawServer:
    """The receiving end: one thread that echoes from a ROUTER socket."""

    def __init__(self, spec, receiver):
        self._receiver = receiver
        self._place = endpoint(spec['topic'], spec['number'])
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.rcvtimeo = _STOP_POLL_MS
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name='raw-echo')

    def start(self):
        """Bind and start the echo thread."""
        self._socket.bind(self._place)
        self._thread.start()

    def stop(self):
        """Stop the echo thread and release everything."""
        self._stopping.set()
        self._thread.join()
        self._context.destroy(linger=0)

    def _serve(self):
        while not self._stopping.is_set():
            try:
                frames = self._socket.recv_multipart()
            except zmq.Again:
                continue
            self._note(frames[2:])
            self._socket.send_multipart(frames)

    def _note(self, body):
        if body == [_PROBE]:
            self._receiver.probed()
            return
        ident, token, payload = body
        self._receiver.accept(_IDENT.unpack(ident)[0], token.decode('ascii'),
                              payload.decode('ascii'))
