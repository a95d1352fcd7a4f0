# SPDX-License-Identifier: Apache-2.0
"""The one socket that two threads share; see service/router.py.

A soak does not find a missing wake-up, since other traffic hides it. This
pair does: the second request arrives while the first reply is being sent.
"""

import time

import zmq

from tests.support import ids
from zmq_threaded import payload
from zmq_threaded import sockets
from zmq_threaded import topic
from zmq_threaded import wire
from zmq_threaded.service import executors

_PAIRS = 3000
_STALL = 0.5    # far below the poller's time-out of one second


def _connected(context, service, settings):
    socket = sockets.Sockets(context, settings).request(
        service.instance.endpoints[0])
    assert socket.poll(20000, zmq.POLLOUT)
    return socket


def _send(socket, service, body):
    socket.send(wire.encode(wire.CALL, service.instance.id, ids.new_id(),
                            body))


def test_a_request_that_arrives_during_a_reply_is_not_overlooked(node):
    parts = node.runtime()
    service = parts.service([topic.rpc('exchange', 'pair')])
    with executors.load('threading', max_workers=4) as executor:
        service.start(executors.submitting(executor, lambda ctxt, msg: msg))
        body, _ = payload.dump(({}, {'n': 1}), 'json')
        context = zmq.Context()
        first, second = (_connected(context, service, node.settings())
                         for _ in range(2))
        longest = 0.0
        for number in range(_PAIRS):
            _send(first, service, body)
            # Aim the second request at the moment of the first reply.
            _spin((number % 40) * 20e-6)
            started = time.monotonic()
            _send(second, service, body)
            for socket in (first, second):
                assert socket.poll(20000), 'no reply at all'
                socket.recv()
            longest = max(longest, time.monotonic() - started)
        for socket in (first, second):
            socket.close()
        context.term()
        service.cleanup()
    parts.forget(service)
    assert longest < _STALL, f'a request lay unread for {longest:.3f} s'


def _spin(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
