# SPDX-License-Identifier: Apache-2.0
"""What closes at the end, in which order, and whatever comes in between."""

import contextlib
import threading
import time

import pytest
import zmq

from tests.support import ids
from tests.support import rpc
from tests.support import signals
from tests.support import waiting
from zmq_threaded import exits
from zmq_threaded import payload
from zmq_threaded import sockets
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.net import multiparts
from zmq_threaded.service import poller
from zmq_threaded.service import service as services

DEADLINE = 20.0


def a_service(node, on_incoming=lambda messages: None, **query):
    """A started bare service and the runtime that it belongs to."""
    parts = node.runtime(**query)
    service = parts.service([topics.rpc('openstack', 'topic')])
    service.start(on_incoming)
    return parts, service


@contextlib.contextmanager
def a_peer(node, service):
    """A DEALER that is connected to the service."""
    with zmq.Context() as context, sockets.Sockets(
            context, node.settings()).dealer(
                service.instance.endpoints[0]) as peer:
        assert peer.poll(DEADLINE * 1000, zmq.POLLOUT)
        yield peer


def send(peer, service):
    """Send a notification and return its id."""
    message_id = ids.new_id()
    body, _ = payload.dump(({}, {}), 'json')
    peer.send_multipart([b'', wire.encode(
        wire.NOTIFY, service.instance.id, message_id, body)])
    return message_id


def receive(peer):
    assert peer.poll(DEADLINE * 1000), 'no answer'
    return peer.recv_multipart()[-1]


class Held:
    """Holds up the reply thread at its first answer, until release().

    :ivar trouble: by frame, what is raised in place of sending it
    """

    def __init__(self, monkeypatch):
        self._answer = multiparts.answer
        self.is_reached, self._may_go = threading.Event(), threading.Event()
        self.release = self._may_go.set
        self.trouble = {}
        monkeypatch.setattr(multiparts, 'answer', self._hold)

    def _hold(self, socket, frames, *args):
        self.is_reached.set()
        self._may_go.wait(DEADLINE)
        if frames[-1] in self.trouble:
            raise self.trouble[frames[-1]]
        return self._answer(socket, frames, *args)


def envelope_of(peer, service, messages):
    send(peer, service)
    return waiting.until(lambda: messages)[0].envelope


def begin(function):
    """Run a function by a thread of its own; it is a daemon, for some of them
    once hung.
    """
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


class Interrupted:
    """A socket during whose close() something else happens, as when a signal
    handler runs.
    """

    def __init__(self, socket, handler):
        self._socket = socket
        self._handlers = [handler]

    def __getattr__(self, name):
        return getattr(self._socket, name)

    def __hash__(self):
        return hash(self._socket)

    def __eq__(self, other):
        return other is self._socket

    def close(self, linger=None):
        while self._handlers:
            self._handlers.pop()()
        self._socket.close(linger)


def test_a_signal_handler_may_clean_up_a_service_that_is_being_closed(node):
    parts, service = a_service(node)
    service._router._socket = Interrupted(service._router._socket,
                                          service.cleanup)
    closing = begin(service.cleanup)
    closing.join(DEADLINE)
    assert not closing.is_alive()
    assert parts.snapshot()['sockets'] == 0


def test_a_service_that_is_cleaned_up_twice_is_one_socket_less(node):
    parts, service = a_service(node)
    service.cleanup()
    service.cleanup()
    assert parts.snapshot()['sockets'] == 0


def test_an_answer_that_fails_takes_no_other_with_it(
    node, monkeypatch, caplog
):
    messages = []
    parts, service = a_service(node, messages.extend)
    with a_peer(node, service) as peer:
        envelope = envelope_of(peer, service, messages)
        held = Held(monkeypatch)
        held.trouble[b'bad'] = ValueError('on purpose')
        service._replies.put(envelope, b'first')
        assert held.is_reached.wait(DEADLINE)
        service._replies.put(None, b'no envelope')
        for frame in (b'second', b'bad', b'third'):
            service._replies.put(envelope, frame)
        held.release()
        assert [receive(peer) for _ in range(3)] == [b'first', b'second',
                                                     b'third']
    waiting.until(lambda: parts.snapshot().get('replies_dropped') == 2)
    assert parts.snapshot()['loop_errors'] == 2
    waiting.until(lambda: 'on purpose' in caplog.text)
    service.cleanup()


def test_all_answers_that_are_queued_go_out_at_the_end(node, monkeypatch):
    messages = []
    _, service = a_service(node, messages.extend)
    with a_peer(node, service) as peer:
        envelope = envelope_of(peer, service, messages)
        held = Held(monkeypatch)
        frames = [b'%d' % number for number in range(300)]
        for frame in frames:
            service._replies.put(envelope, frame)
        assert held.is_reached.wait(DEADLINE)
        # As if the time for this had passed: most are in the queue.
        service._replies.stop()
        held.release()
        assert [receive(peer) for _ in frames] == frames
    service.cleanup()


def test_what_the_poller_refuses_in_its_last_turn_goes_out(node, monkeypatch):
    monkeypatch.setattr(poller, '_STOP_LIMIT', 0.1)
    is_called, may_fail = threading.Event(), threading.Event()

    def fail(messages):
        is_called.set()
        may_fail.wait(DEADLINE)
        raise ValueError('on purpose')
    _, service = a_service(node, fail)
    join = service._poller.join

    def join_last(deadline):
        # An early end of the reply thread comes before the poller's.
        if service._replies.is_stopping:
            service._replies.join(deadline)
        may_fail.set()
        return join(deadline)
    monkeypatch.setattr(service._poller, 'join', join_last)
    with a_peer(node, service) as peer:
        message_id = send(peer, service)
        assert is_called.wait(DEADLINE)
        # As its sender does, who is waiting for it: a DEALER with IMMEDIATE
        # forgets what it has not read when its connection ends.
        closing = begin(service.cleanup)
        refusal = wire.decode(receive(peer))
        closing.join(DEADLINE)
    assert (refusal.kind, refusal.id) == (wire.NACK, message_id)


def test_answers_that_a_closing_service_gives_up_are_counted(
        node, monkeypatch, caplog):
    monkeypatch.setattr(services, '_REPLIES_LIMIT', 0.1)
    messages = []
    parts, service = a_service(node, messages.extend)
    with a_peer(node, service) as peer:
        envelope = envelope_of(peer, service, messages)
        monkeypatch.setattr(
            multiparts, 'answer', lambda *args: multiparts.SLOW
        )
        for _ in range(100):
            service._replies.put(envelope, b'unread')
        waiting.until(lambda: not len(service._replies._mailbox))
        service.cleanup()
        assert parts.snapshot()['replies_dropped'] == 100
        # The endpoint ends later than its server.
        messages[0].acknowledge()
    assert parts.snapshot()['replies_dropped'] == 101
    waiting.until(lambda: '100 answers' in caplog.text)


# The whole driver


def a_cast_to_nobody(node, **query):
    """A transport with something in its outbox, and its Runtime."""
    transport = node.transport(**query)
    node.client(transport).cast({}, 'note', value=1)
    return transport, rpc.driver(transport)._parts()


def is_flushing(parts):
    return bool(parts.outbox._flushers)


def flushing(parts):
    """Returns as soon as somebody waits for what is in custody."""
    return lambda: waiting.until(lambda: is_flushing(parts))


def raise_keyboard_interrupt():
    raise KeyboardInterrupt


def test_an_interrupted_cleanup_still_ends_and_reports(node, caplog):
    transport, parts = a_cast_to_nobody(node, rpc_cast_timeout=5)
    with signals.interrupting(flushing(parts), raise_keyboard_interrupt):
        with pytest.raises(KeyboardInterrupt):
            transport.cleanup()
    assert parts.is_closed
    assert parts.counters.snapshot()['dropped'] == 1
    waiting.until(lambda: 'closed before it was acknowledged' in caplog.text)


def test_an_interrupted_cleanup_does_not_wait_out_its_time(node):
    transport, parts = a_cast_to_nobody(node, rpc_cast_timeout=60)
    began = time.monotonic()
    with signals.interrupting(flushing(parts), raise_keyboard_interrupt):
        with pytest.raises(KeyboardInterrupt):
            transport.cleanup()
    assert parts.is_closed
    assert time.monotonic() - began < 15


def test_a_second_cleanup_waits_for_the_first(node):
    transport, parts = a_cast_to_nobody(node, rpc_cast_timeout=30)
    first = begin(transport.cleanup)
    waiting.until(lambda: is_flushing(parts))
    left = []
    second = begin(lambda: (transport.cleanup(),
                            left.append(parts.outbox.pending())))
    server = node.server()
    second.join(DEADLINE)
    first.join(DEADLINE)
    assert left == [0] and server.endpoint.seen == [1]


def test_cleanup_in_a_handler_that_interrupts_it_does_not_hang(node):
    transport, parts = a_cast_to_nobody(node, rpc_cast_timeout=1)
    seen = []
    with signals.interrupting(flushing(parts), lambda: (
            transport.cleanup(), seen.append(parts.is_closed))):
        transport.cleanup()
    assert seen == [False] and parts.is_closed
    assert parts.counters.snapshot()['dropped'] == 1


def test_a_handler_that_takes_longer_than_the_flush_does_not_prolong_it(node):
    transport, parts = a_cast_to_nobody(node, rpc_cast_timeout=1,
                                        rpc_message_ttl=30)
    began = time.monotonic()
    with signals.interrupting(flushing(parts), lambda: time.sleep(1.5)):
        transport.cleanup()
    assert parts.counters.snapshot()['dropped'] == 1
    assert time.monotonic() - began < 15


def test_a_driver_that_fails_at_exit_keeps_no_other_from_closing(
        node, monkeypatch):
    (bad, failing), (good, parts) = (
        a_cast_to_nobody(node, rpc_cast_timeout=1) for _ in range(2))
    monkeypatch.setattr(exits, '_open', {failing, parts})
    monkeypatch.setattr(exits, '_ending_in', None)
    with monkeypatch.context() as patch:
        patch.setattr(failing, 'close', lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            exits.close_all()
    assert parts.counters.snapshot()['dropped'] == 1


def test_a_service_that_fails_keeps_nothing_else_from_closing(
        node, monkeypatch):
    transport, parts = a_cast_to_nobody(node, rpc_cast_timeout=1)
    first, second = (parts.service([topics.rpc('openstack', 'other')])
                     for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(first._poller, 'stop', lambda: 1 / 0)
        patch.setattr(parts, '_terminate', lambda: None)
        with pytest.raises(ZeroDivisionError):
            transport.cleanup()
    assert parts.snapshot()['sockets'] == 1    # the first one's
    assert parts.counters.snapshot()['dropped'] == 1
    first.cleanup()
    parts._terminate()
