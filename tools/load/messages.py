# SPDX-License-Identifier: Apache-2.0
"""Counting what goes over the wire, at the sockets themselves.

As a command it compares replies in one message with replies in two:

    tools/venv env PYTHONPATH=tools python -m load.messages
"""

import collections
import contextlib
import threading
import time
from unittest import mock

import zmq

from zmq_threaded.net import multiparts

_NAMES = {zmq.REQ: 'REQ', zmq.DEALER: 'DEALER', zmq.ROUTER: 'ROUTER'}
_QUIET_SECONDS = 0.05
_CALLS = 1000


class Counted:
    """Multiparts sent by the sockets of this process, by type of socket."""

    def __init__(self):
        self._lock = threading.Lock()
        self._sent = collections.Counter()
        self._opened = collections.Counter()

    def sent(self):
        """A Counter of what was sent so far."""
        with self._lock:
            return +self._sent

    def opened(self):
        """A Counter of the sockets opened so far."""
        with self._lock:
            return +self._opened

    def settle(self):
        """Wait until nothing was sent for a moment."""
        before = None
        while before != self.sent():
            before = self.sent()
            time.sleep(_QUIET_SECONDS)

    def note_sent(self, socket):
        with self._lock:
            self._sent[_NAMES.get(socket.type)] += 1

    def note_opened(self, socket):
        with self._lock:
            self._opened[_NAMES.get(socket.type)] += 1


@contextlib.contextmanager
def counted():
    """Count at all sockets of contexts that are made within."""
    counts = Counted()

    class Socket(zmq.Socket):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            counts.note_opened(self)

        def send(self, data, flags=0, *args, **kwargs):
            sent = super().send(data, flags, *args, **kwargs)
            if not flags & zmq.SNDMORE:
                counts.note_sent(self)
            return sent

    class Context(zmq.Context):
        _socket_class = Socket

    # The driver sends past the method of the class; here it must not.
    with mock.patch('zmq.Context', Context), mock.patch.object(
            multiparts, '_send_frame',
            lambda socket, *args: socket.send(*args)):
        yield counts


def per_call(query, calls=_CALLS):
    """Messages sent by client and server for a call.

    :param query: of the server's transport URL
    :returns: dict of type of socket to messages a call
    """
    with counted() as counts, _echo(query) as call:
        call()
        counts.settle()
        before = counts.sent()
        for _ in range(calls):
            call()
        counts.settle()
        return {name: count / calls
                for name, count in (counts.sent() - before).items()}


@contextlib.contextmanager
def _echo(query):
    from load import oslo
    topic = 'messages'
    server = oslo.make_server(
        {'url': f'zmq://{query}', 'topic': topic, 'name': 'server',
         'mode': 'call', 'workers': 4}, mock.Mock())
    server.start()
    transport = oslo.open_transport('zmq://', topic)
    client = oslo.oslo_messaging.get_rpc_client(
        transport, oslo.oslo_messaging.Target(topic=topic), timeout=10)
    try:
        yield lambda: client.call({}, 'echo', id=1, token='', payload='')
    finally:
        transport.cleanup()
        server.stop()


def main():
    """Print what each mode sends for a call."""
    from load import oslo
    oslo.configure(verbose=False, warnings_to_stderr=False)
    for name, query in (('one', ''),
                        ('two', '?rpc_zmq_two_message_replies=true')):
        sent = per_call(query)
        each = ', '.join(f'{kind} {count:g}'
                         for kind, count in sorted(sent.items()))
        print(f'{name}: {sum(sent.values()):g} messages a call ({each})')


if __name__ == '__main__':
    main()
