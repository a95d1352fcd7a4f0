# SPDX-License-Identifier: Apache-2.0
"""A service that is registered and answers nonsense, over both ways."""

import time

import oslo_messaging
import pytest

from tests.support import old_server
from tests.support import replies
from tests.support import rpc
from zmq_threaded import errors
from zmq_threaded import wire

WAYS = {'REQ': None, 'outbox': 60}


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


class Strange:
    """A service that answers what it is told to, and a client of it.

    :ivar answer: called with each Request
    """

    def __init__(self, node, monitor_timeout):
        self.transport = node.transport()
        self._client = node.client(self.transport, timeout=60,
                                   call_monitor_timeout=monitor_timeout)
        self.answer = None

    def call(self, answer):
        """What the caller gets, which must come at once."""
        self.answer = answer
        began = time.monotonic()
        try:
            return self._client.call({}, 'echo', value=1)
        except Exception as error:
            str(error), repr(error)
            return error
        finally:
            assert time.monotonic() - began < 20

    def reply(self, body, flags):
        return self.call(lambda request: request.send(
            wire.REPLY, (body,), flags))

    def still_works(self):
        assert self.call(lambda request: request.result(
            'fine', wire.ENDING)) == 'fine'
        assert 'loop_errors' not in rpc.driver(self.transport).counters()


@pytest.fixture
def strange(node, way):
    made = Strange(node, way)
    with old_server.OldServer(node.ipc_dir, lambda request:
                              made.answer(request), False):
        yield made


def test_what_cannot_be_read_is_refused(strange):
    for name, (body, flags) in replies.UNREADABLE.items():
        assert type(strange.reply(body, flags)) is errors.Refused, name
    strange.still_works()


def test_odd_exceptions_arrive_as_some_exception(strange):
    for name, (body, flags) in replies.ODD.items():
        error = strange.reply(body, flags)
        assert isinstance(error, Exception), name
        assert not isinstance(error, errors.Refused), name
    strange.still_works()


def test_odd_results_arrive(strange):
    for body, flags in replies.RESULTS.values():
        assert not isinstance(strange.reply(body, flags), Exception)
    strange.still_works()


def test_a_constructor_that_raises(strange):
    for name, args in (('UnicodeDecodeError', ['x']), ('ExceptionGroup', []),
                       ('UnicodeEncodeError', [])):
        body, flags = replies.failure(**{'class': name, 'args': args,
                                         'message': 'text'})
        error = strange.reply(body, flags)
        assert isinstance(error, oslo_messaging.RemoteError), name
        assert (error.exc_type, error.value) == (name, 'text')


def _frame(request, kind, body=(), flags=0, **changes):
    message = request.message
    return wire.encode(kind, changes.get('instance', message.instance),
                       changes.get('id', message.id), body, flags)


FRAMES = {
    'junk': lambda request: b'junk',
    'nothing': lambda request: b'',
    'a request': lambda request: _frame(request, wire.CALL, (b'{}', b'{}')),
    'kind 0': lambda request: _frame(request, 0),
    'kind 255': lambda request: _frame(request, 255),
    'cut short': lambda request: _frame(request, wire.REPLY, (b'1',))[:-1],
    'header cut': lambda request: _frame(request, wire.REPLY, (b'1',))[:55],
    'no parts': lambda request: _frame(request, wire.REPLY),
    'no reason': lambda request: _frame(request, wire.NACK, (b'', b'')),
    'a long reason': lambda request: _frame(request, wire.NACK,
                                            (b'\1\1', b'')),
    'refused as malformed': lambda request: _frame(
        request, wire.NACK, (bytes((wire.MALFORMED,)), b'\xff\n\x1b' * 9999)),
    'refused as expired': lambda request: _frame(
        request, wire.NACK, (bytes((wire.EXPIRED,)), b'\xff\n\x1b' * 9999)),
    'half an id acknowledged': lambda request: _frame(
        request, wire.ACK, (b'x' * 24,)),
    'states without ids': lambda request: _frame(
        request, wire.STATUS, (b'', b'\0\1\2')),
}


@pytest.mark.parametrize('name', FRAMES)
def test_frames_that_are_no_reply(node, name):
    """A REQ has no second answer; another connection gets what comes then."""
    for monitor_timeout in WAYS.values():
        strange = Strange(node, monitor_timeout)

        def answer(request):
            request.server.socket.send_multipart(
                [*request.envelope, FRAMES[name](request)])
            if monitor_timeout:
                request.result('fine', wire.ENDING)
        with old_server.OldServer(node.ipc_dir, lambda request:
                                  strange.answer(request), False):
            found = strange.call(answer)
            assert found == 'fine' or isinstance(
                found, oslo_messaging.MessagingException), found
            if isinstance(found, Exception):
                assert '\n' not in str(found) and len(str(found)) < 2000
            strange.still_works()
