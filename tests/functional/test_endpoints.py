# SPDX-License-Identifier: Apache-2.0
"""What endpoints, workers and executors do with a message, it is answered."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import threading
import time
import types

import futurist
import oslo_messaging
import pytest
import zmq
from oslo_messaging import server as oslo_server

from tests.support import crowd
from tests.support import ids
from tests.support import rpc
from tests.support import waiting
from zmq_threaded import backoff
from zmq_threaded import errors
from zmq_threaded import payload
from zmq_threaded import sockets
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.net import multiparts
from zmq_threaded.service import executors
from zmq_threaded.service import guard
from zmq_threaded.service import requeues
from zmq_threaded.service import saturation

UNUSUAL = [SystemExit(3), KeyboardInterrupt(), GeneratorExit(),
           asyncio.CancelledError()]


class Raising:
    """An endpoint for calls and notifications that raises what it is told."""

    def __init__(self):
        self.seen = []

    def raises(self, ctxt, number):
        raise UNUSUAL[number]

    def note(self, ctxt, value):
        self.seen.append(value)
        raise UNUSUAL[value % len(UNUSUAL)]

    def echo(self, ctxt, value):
        return value

    def info(self, ctxt, publisher, event_type, payload, metadata):
        self.seen.append(payload)
        if isinstance(payload, int):
            raise UNUSUAL[payload % len(UNUSUAL)]


def held_by(listening):
    return listening.listener._service.current._reception.held


# What is no Exception


def test_the_caller_is_told_of_what_is_no_exception(node):
    server = node.server(endpoint=Raising(), workers=2)
    client = node.client(timeout=60)
    for _ in range(3):
        for number, error in enumerate(UNUSUAL):
            began = time.monotonic()
            with pytest.raises(oslo_messaging.RemoteError) as raised:
                client.call({}, 'raises', number=number)
            assert raised.value.exc_type == type(error).__name__
            assert time.monotonic() - began < 20
            client.cast({}, 'note', value=number)
    # More of them than there are workers, each of which goes on.
    assert client.call({}, 'echo', value=1) == 1
    waiting.until(lambda: len(server.endpoint.seen) == 12)
    waiting.until(lambda: held_by(server).unanswered() == 0)


def test_a_monitored_call_ends_too(node):
    node.server(endpoint=Raising())
    client = node.client(timeout=60, call_monitor_timeout=30)
    with pytest.raises(oslo_messaging.RemoteError):
        client.call({}, 'raises', number=0)


@pytest.fixture
def listen(node):
    """Starts a notification listener with two workers."""
    started = []

    def start(endpoint, requeue=False, batch=None, **query):
        transport = node.notification_transport(**query)
        arguments = (transport, [oslo_messaging.Target(topic='notes')],
                     [endpoint])
        if batch:
            listening = oslo_messaging.get_batch_notification_listener(
                *arguments, allow_requeue=requeue, batch_size=batch,
                batch_timeout=1)
        else:
            listening = oslo_messaging.get_notification_listener(
                *arguments, allow_requeue=requeue)
        listening.start(override_pool_size=2)
        started.append(listening)
        return listening
    yield start
    for listening in started:
        listening.stop()
        listening.wait()


def test_notifications_go_on_after_what_is_no_exception(node, listen):
    endpoint = Raising()
    listening = listen(endpoint, rpc_zmq_topic_backlog=5)
    notifier = node.notifier()
    for number in range(20):
        notifier.info({}, 'e', number)
    notifier.info({}, 'e', 'last')
    waiting.until(lambda: 'last' in endpoint.seen)
    waiting.until(lambda: not held_by(listening).unanswered())
    # Once each: with allow_requeue=False an exception is no reason to repeat.
    assert len(endpoint.seen) == 21


def test_with_allow_requeue_they_come_again_but_do_not_loop(node, listen):
    endpoint = Raising()
    listen(endpoint, requeue=True)
    node.notifier().info({}, 'e', 0)
    waiting.until(lambda: len(endpoint.seen) >= 3)
    time.sleep(1)
    assert len(endpoint.seen) <= 6


def test_in_a_batch_each_is_answered(node, listen):
    class Batch:
        seen = []

        def info(self, messages):
            self.seen.append(len(messages))
            raise SystemExit
    listening = listen(Batch(), batch=4)
    for number in range(8):
        node.notifier().info({}, 'e', number)
    waiting.until(lambda: sum(Batch.seen) == 8)
    waiting.until(lambda: not held_by(listening).unanswered())


def test_what_expires_while_it_is_handled_leaves_the_backlog(node, listen):
    class Stuck:
        may_end = threading.Event()
        seen = []

        def info(self, ctxt, publisher, event_type, payload, metadata):
            self.seen.append(payload)
            if payload == 'stuck':
                self.may_end.wait(60)
    try:
        listening = listen(Stuck(), rpc_zmq_topic_backlog=1)
        transport = node.notification_transport(rpc_message_ttl=2)
        node.notifier(transport=transport).info({}, 'e', 'stuck')
        waiting.until(lambda: Stuck.seen == ['stuck'])
        node.notifier().info({}, 'e', 'next')   # there is a second worker
        waiting.until(lambda: 'next' in Stuck.seen)
        assert rpc.driver(listening.transport).counters()['expired'] == 1
    finally:
        Stuck.may_end.set()


def test_a_notification_that_has_expired_is_not_handled(node, listen):
    class Slow:
        may_end = threading.Event()
        seen = []

        def info(self, ctxt, publisher, event_type, payload, metadata):
            self.seen.append(payload)
            self.may_end.wait(60)
    try:
        listening = listen(Slow())
        notifier = node.notifier(
            transport=node.notification_transport(rpc_message_ttl=2))
        for number in range(3):
            notifier.info({}, 'e', number)
        held = held_by(listening)
        waiting.until(lambda: len(held) == 3)
        waiting.until(lambda: len(held) == 1)   # no worker has begun it
        Slow.may_end.set()
        waiting.until(lambda: not len(held))
        assert Slow.seen == [0, 1]
    finally:
        Slow.may_end.set()


# What an executor drops


@pytest.fixture
def raw(node):
    """raw(on_incoming): a bare service, a peer, and a function that sends a
    request of a kind and returns its id.
    """
    with zmq.Context() as context:
        def start(on_incoming, **query):
            parts = node.runtime(**query)
            service = parts.service([topics.rpc('openstack', 'topic')])
            service.start(on_incoming)
            peer = sockets.Sockets(context, node.settings()).dealer(
                service.instance.endpoints[0])
            peer.set(zmq.RCVTIMEO, 30_000)
            opened.append(peer)
            assert peer.poll(30_000, zmq.POLLOUT)
            return service, peer
        opened = []
        yield start
        for peer in opened:
            peer.close()


def send(peer, instance_id, kind, message_id=None, extra=()):
    message_id = message_id or ids.new_id()
    body, _ = payload.dump(({}, {'method': 'echo', 'args': {}}), 'json')
    peer.send_multipart([b'', wire.encode(kind, instance_id, message_id,
                                          [*body, *extra])])
    return message_id


def receive(peer):
    return wire.decode(peer.recv_multipart()[-1])


@pytest.mark.parametrize('kind, reason', [
    (wire.CALL, wire.BUSY), (wire.CAST, wire.BUSY), (wire.FANOUT, wire.BUSY),
    (wire.NOTIFY, wire.REQUEUED)])
def test_what_is_dropped_unbegun_goes_back(raw, kind, reason):
    service, peer = raw(lambda messages: None)
    message_id = send(peer, service.instance.id, kind)
    answer = receive(peer)
    assert (answer.kind, answer.id) == (wire.NACK, message_id)
    assert wire.nack_reason(answer)[0] == reason
    waiting.until(lambda: service._reception.held.unanswered() == 0)


def test_a_call_that_is_dropped_while_it_runs_ends(raw):
    service, peer = raw(lambda messages: messages[0].acknowledge())
    send(peer, service.instance.id, wire.CALL)
    answer = receive(peer)
    assert answer.kind == wire.REPLY and answer.flags & wire.FAILURE
    assert b'NoReply' in answer.body[0]
    waiting.until(lambda: service._reception.held.unanswered() == 0)


def test_what_is_kept_is_not_given_back(raw):
    kept = []
    service, peer = raw(kept.extend)
    send(peer, service.instance.id, wire.CALL)
    waiting.until(lambda: kept)
    gc.collect()
    assert not peer.poll(300)
    assert len(service._reception.held) == 1
    kept.clear()
    assert receive(peer).kind == wire.NACK


def test_a_forked_child_drops_its_copy_in_peace(raw):
    kept = []
    service, peer = raw(kept.extend)
    send(peer, service.instance.id, wire.CALL)
    waiting.until(lambda: kept)
    # As another thread would, at the moment of the fork.
    locked, may_end = threading.Event(), threading.Event()

    def lock():
        with service._crew.poller._mailbox._wakeup._lock:
            locked.set()
            may_end.wait(30)
    thread = threading.Thread(target=lock)
    thread.start()
    assert locked.wait(30)
    child = os.fork()
    if not child:
        signal.alarm(20)
        kept.clear()
        os._exit(0)
    may_end.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert not peer.poll(200) and len(service._reception.held) == 1


def test_an_executor_that_is_shut_down_gives_back_what_it_queued(raw):
    executor = futurist.ThreadPoolExecutor(1)
    may_end, begun = threading.Event(), []

    def handle(ctxt, message):
        begun.append(message)
        may_end.wait(30)
    boxes = [executor]
    service, peer = raw(lambda messages: executors.submitting(
        boxes[0], handle)(messages))
    sent = [send(peer, service.instance.id, wire.CAST) for _ in range(3)]
    waiting.until(lambda: len(service._reception.held) == 2 and begun)
    executor.shutdown(wait=False)
    may_end.set()
    boxes.clear()
    executor = None
    answered = {}
    deadline = time.monotonic() + 20
    while len(answered) < 3 and time.monotonic() < deadline:
        # What the executor has dropped goes with the last reference to it.
        gc.collect()
        if not peer.poll(100):
            continue
        answer = receive(peer)
        answered[answer.id or b''] = answer.kind
        if answer.kind == wire.ACK:
            del answered[answer.id]
            answered.update({each: wire.ACK
                             for each in wire.split_ids(answer.body[0])})
    # Run, or given back: none is forgotten.
    assert set(answered) == set(sent)


@pytest.mark.parametrize('name, kind', [('fast', '_Worker'),
                                        ('server', 'ThreadWorker')])
def test_a_thread_that_cannot_start_costs_no_worker(node, monkeypatch, name,
                                                    kind):
    server = node.server(workers=2,
                         transport=node.transport(rpc_zmq_executor=name))
    client = node.client(timeout=20)
    executor = server._work_executor
    start, tries = threading.Thread.start, []

    def fail(thread):
        if type(thread).__name__ == kind and len(tries) < 4:
            tries.append(thread)
            raise RuntimeError("can't start new thread")
        return start(thread)
    monkeypatch.setattr(threading.Thread, 'start', fail)
    assert client.call({}, 'echo', value=1) == 1
    assert len(tries) == 4
    assert all(thread.is_alive() for thread in executor._workers)


def test_the_server_of_oslo_messaging_is_what_the_guard_takes_it_for():
    """If this fails, read its _on_incoming() and guard.guarded() anew."""
    calls = []

    class Executor:
        def submit(self, *args):
            calls.append(args)

    class Server(oslo_server.MessageHandlingServer):
        def __init__(self):
            self._work_executor = Executor()

        def _process_incoming(self, incoming):
            pass

        def _create_listener(self):
            pass
    server = Server()
    server._on_incoming('messages')
    assert calls == [(server._process_incoming, 'messages')]
    guard.guarded(server._on_incoming)('messages')
    assert calls[1][1:3] == (server._process_incoming, 'messages')

    def other(messages):
        pass
    assert guard.guarded(other) is other


# Replies


@pytest.mark.parametrize('serialization', ['json', 'msgpack'])
def test_a_reply_that_cannot_be_encoded_is_told_and_logged_once(
        node, serialization, caplog):
    class Odd:
        def odd(self, ctxt):
            return object()
    node.server(endpoint=Odd())
    client = node.client(node.transport(
        rpc_zmq_serialization=serialization))
    with pytest.raises(ValueError, match='object'):
        client.call({}, 'odd')
    waiting.until(lambda: 'could not be encoded' in caplog.text)
    told = [record for record in caplog.records
            if record.levelname == 'ERROR']
    assert len(told) == 1 and 'call' in told[0].getMessage()


def test_a_reply_without_memory_is_told(node, monkeypatch):
    node.server()
    client = node.client(timeout=30)
    assert client.call({}, 'echo', value='small') == 'small'
    send = multiparts.send

    def lack_memory(socket, frames):
        if len(frames[-1]) > 10_000 and socket.type == zmq.ROUTER:
            for frame in frames[:-1]:
                socket.send(frame, zmq.NOBLOCK | zmq.SNDMORE)
            raise MemoryError
        send(socket, frames)
    monkeypatch.setattr(multiparts, 'answer', _with(lack_memory))
    with pytest.raises(oslo_messaging.RemoteError, match='not enough memory'):
        client.call({}, 'echo', value='x' * 20_000)
    assert client.call({}, 'echo', value='small') == 'small'


def _with(send):
    answer = multiparts.answer
    return lambda socket, frames: answer(socket, frames, send)


@pytest.mark.parametrize('step', ['_dispatch', '_take'])
@pytest.mark.parametrize('size, is_refused', [(2_000_000, True), (10, False)])
def test_a_message_without_memory_is_refused_or_taken_later(
        node, monkeypatch, step, size, is_refused):
    server = node.server()
    client = node.client(timeout=20)
    assert client.call({}, 'echo', value=1) == 1
    taken = server.listener._service.current._reception
    function, failing = getattr(taken, step), [1, 1, 1]

    def maybe_fail(*args):
        if failing:
            failing.pop()
            raise MemoryError
        return function(*args)
    monkeypatch.setattr(taken, step, maybe_fail)
    if is_refused:
        with pytest.raises(errors.Refused, match='MemoryError'):
            client.call({}, 'echo', value='x' * size)
        client.cast({}, 'note', value='x' * size)
        client.cast({}, 'note', value='x' * size)
    else:
        assert client.call({}, 'echo', value='x' * size) == 'x' * size
    waiting.until(lambda: not failing)
    assert client.call({}, 'echo', value=2) == 2
    counters = rpc.driver(client.transport).counters
    waiting.until(lambda: not counters()['unacknowledged'])
    assert not server.endpoint.seen


def test_a_process_short_of_memory_refuses_what_does_not_fit(node):
    process = node.process()
    client = node.client(timeout=20)
    assert client.call({}, 'echo', value=1) == 1
    with open(f'/proc/{process.pid}/statm') as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    limit = used + 90_000_000
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
    big = 'x' * 40_000_000
    with pytest.raises(errors.Refused, match='MemoryError'):
        client.call({}, 'echo', value=big)
    client.cast({}, 'note', value=big)
    counters = rpc.driver(client.transport).counters
    waiting.until(lambda: counters().get('dropped') == 1)
    assert client.call({}, 'echo', value=2) == 2


# Requeueing


class Refusing:
    def __init__(self):
        self.seen = []

    def info(self, ctxt, publisher, event_type, payload, metadata):
        self.seen.append((payload, time.monotonic()))
        if payload == 'bad':
            return oslo_messaging.NotificationResult.REQUEUE
        return None


class LongFourth(backoff.Backoff):
    """Whose fourth wait, and each after it, takes a minute."""

    def failed(self, now):
        wait = super().failed(now)
        return wait if wait < 0.5 else 60.0


def test_a_requeued_notification_backs_off_and_holds_up_no_other(
        node, listen, monkeypatch):
    monkeypatch.setattr(requeues, 'backoff',
                        types.SimpleNamespace(Backoff=LongFourth))
    endpoint = Refusing()
    listen(endpoint, requeue=True, rpc_zmq_topic_backlog=1)
    notifier = node.notifier()
    notifier.info({}, 'e', 'bad')
    waiting.until(lambda: len(endpoint.seen) == 4)
    began = endpoint.seen[0][1]
    assert endpoint.seen[3][1] - began >= 0.1 + 0.2 + 0.4
    notifier.info({}, 'e', 'good')
    waiting.until(lambda: 'good' in dict(endpoint.seen), 20)


def test_what_is_delayed_is_handed_back_when_the_listener_stops(
        node, listen, monkeypatch):
    monkeypatch.setattr(requeues, '_FIRST_DELAY', 60.0)
    monkeypatch.setattr(requeues, '_LAST_DELAY', 60.0)
    refusing, taking = Refusing(), Raising()
    first = listen(refusing, requeue=True)
    node.notifier().info({}, 'e', 'bad')
    waiting.until(lambda: refusing.seen)
    waiting.until(lambda: not len(held_by(first)))
    listen(taking)
    assert not taking.seen
    first.stop()
    waiting.until(lambda: taking.seen == ['bad'])


# Ids


def test_a_call_whose_id_is_known_is_refused(raw):
    kept = []
    service, peer = raw(kept.extend, rpc_zmq_topic_backlog=5)
    message_id = send(peer, service.instance.id, wire.CALL)
    waiting.until(lambda: kept)
    for is_running in (False, True):
        if is_running:
            kept[0].acknowledge()
        for kind in (wire.CALL, wire.CAST, wire.NOTIFY, wire.FANOUT):
            send(peer, service.instance.id, kind, message_id)
            answer = receive(peer)
            assert (answer.kind, answer.id) == (wire.NACK, message_id)
            reason, text = wire.nack_reason(answer)
            assert reason == wire.MALFORMED and 'this id' in text
    assert len(kept) == 1 and service._reception.held.unanswered() == 1
    assert service.counters.snapshot()['repeated_calls'] == 8
    kept[0].reply(7)
    assert receive(peer).body[0] == b'7'
    # Answered and gone, so that it is none of the above.
    send(peer, service.instance.id, wire.CALL, message_id)
    waiting.until(lambda: len(kept) == 2)


def test_a_call_with_the_id_of_what_is_held_is_refused(raw):
    kept = []
    service, peer = raw(kept.extend)
    message_id = send(peer, service.instance.id, wire.CAST)
    waiting.until(lambda: kept)
    send(peer, service.instance.id, wire.CALL, message_id)
    assert wire.nack_reason(receive(peer))[0] == wire.MALFORMED


def strangers_questions():
    other = ids.new_id()
    for kind in (wire.CALL, wire.CAST, wire.NOTIFY, wire.FANOUT):
        for asked in (other, wire.NO_ID):
            yield asked, lambda asked=asked, kind=kind: wire.encode(
                kind, asked, ids.new_id(), (b'{}', b'{}', b''), wire.CONFIRM)
    yield wire.NO_ID, lambda: wire.encode(
        wire.FANOUT, wire.NO_ID, ids.new_id(), (b'{}', b'{}', other * 3))
    for asked in (other, wire.NO_ID):
        yield asked, lambda asked=asked: wire.encode(
            wire.QUERY, asked, wire.NO_ID, (ids.new_id() * 3,))
        yield asked, lambda asked=asked: wire.encode(
            wire.CALL, asked, ids.new_id(), (b'{}', b'{}'))[:4] + (
                b'\x09' + wire.encode(wire.CALL, asked, ids.new_id(),
                                      (b'{}', b'{}'))[5:])


def test_nobody_learns_the_id_of_an_instance(raw):
    service, peer = raw(lambda messages: None)
    for asked, make in strangers_questions():
        frame = make()
        peer.send_multipart([b'', frame])
        answered = peer.recv_multipart()[-1]
        assert service.instance.id not in answered
        message = wire.decode(answered)
        assert message.kind == wire.NACK and message.instance == asked
    service.stop()
    for _asked, make in strangers_questions():
        peer.send_multipart([b'', make()])
        assert service.instance.id not in peer.recv_multipart()[-1]


# What the operator is told


def test_a_service_says_that_it_listens_and_ends(node, caplog):
    caplog.set_level('INFO')
    server = node.server(topic='compute', server='node-17')
    node.client(topic='compute').call({}, 'echo', value=1)
    instance = server.listener._service.current.instance
    rpc.Node.stop(server)
    listens, = (record.getMessage() for record in caplog.records
                if ' listens on ' in record.getMessage())
    ended, = (record.getMessage() for record in caplog.records
              if ' has ended' in record.getMessage())
    for word in ('node-17', instance.id.hex(), 'compute', instance.host):
        assert word in listens and word in ended
    assert instance.endpoints[0] in listens
    assert 'took 1 messages' in ended


def test_a_saturated_service_says_so(node, caplog, monkeypatch):
    monkeypatch.setattr(saturation, '_FOR_LONG', 1.5)
    caplog.set_level('INFO')
    server = node.server(transport=node.transport(rpc_zmq_topic_backlog=4),
                         workers=2)
    client = node.client()
    for number in range(10):
        client.cast({}, 'wait', value=number)
    waiting.until(lambda: 'is saturated' in caplog.text)
    for word in ('4 messages wait', '2 workers', 'topic', 'server on',
                 'executor_thread_pool_size'):
        assert word in caplog.text
    server.endpoint.release.set()
    waiting.until(lambda: 'no longer saturated' in caplog.text)


def test_why_a_server_cannot_listen_is_logged(node, caplog):
    transport = node.transport(
        rpc_zmq_transport='tcp', rpc_zmq_bind_address='203.0.113.7',
        rpc_zmq_bind_port_retries=1)
    server = oslo_messaging.get_rpc_server(
        transport, oslo_messaging.Target(topic='compute', server='a'),
        [rpc.Recorder()])
    # oslo.messaging 18.3 means to raise ServerListenError, and fails at that.
    with pytest.raises((AttributeError, oslo_server.ServerListenError)):
        server.start()
    waiting.until(lambda: 'Nobody will listen on' in caplog.text)
    assert '203.0.113.7' in caplog.text and 'compute' in caplog.text


def test_calls_that_expire_before_a_worker_is_free_are_no_errors(
        node, caplog):
    """oslo.messaging would log a traceback of each."""
    transport = node.transport()
    server = node.server(workers=1, transport=transport)
    client = node.client(timeout=1)

    def wait(value):
        with contextlib.suppress(oslo_messaging.MessagingTimeout):
            client.call({}, 'wait', value=value)

    crowd.share_out(range(4), wait, 4)
    server.endpoint.release.set()
    waiting.until(
        lambda: transport._driver.counters().get('expired', 0) == 3)
    assert 'Can not acknowledge message' not in caplog.text
    assert server.endpoint.seen in ([0], [1], [2], [3])


def test_a_call_with_the_id_of_a_cast_that_was_run_is_run(raw):
    """Nobody sends one, but it must not be taken for that cast."""
    kept = []
    service, peer = raw(kept.extend)
    message_id = send(peer, service.instance.id, wire.CAST)
    waiting.until(lambda: kept)
    kept[0].acknowledge()
    assert receive(peer).kind == wire.ACK
    send(peer, service.instance.id, wire.CALL, message_id)
    waiting.until(lambda: len(kept) == 2)
    kept[1].acknowledge()
    kept[1].reply(1)
    assert receive(peer).kind == wire.REPLY
