# SPDX-License-Identifier: Apache-2.0
"""A message belongs to its sender until it is acknowledged, and every message
ends as acknowledged or reported.
"""

import contextlib
import logging
import os
import re
import subprocess
import sys
import threading
import time
from concurrent import futures

import oslo_messaging
import pytest
import zmq

from tests.support import chaos_cloud
from tests.support import ids
from tests.support import old_server
from tests.support import ports
from tests.support import processes
from tests.support import rpc
from tests.support import waiting
from zmq_threaded import errors
from zmq_threaded import logs
from zmq_threaded import payload
from zmq_threaded import sockets
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import custody
from zmq_threaded.client import dealer_connection
from zmq_threaded.client import losses
from zmq_threaded.client import outbox
from zmq_threaded.client import requests
from zmq_threaded.client import spreading
from zmq_threaded.receiver import receiver as receiver_loop
from zmq_threaded.registry import look_ups
from zmq_threaded.registry import registrations
from zmq_threaded.registry import registry as registries
from zmq_threaded.service import held
from zmq_threaded.service import poller
from zmq_threaded.service import poller_thread
from zmq_threaded.service import reception
from zmq_threaded.service import replies
from zmq_threaded.service import reply_thread

# Of the executor of an oslo.messaging server.
_WORKERS = 64
TOPIC = str(topics.rpc('openstack', 'topic'))
_ID = re.compile(r'\b[0-9a-f]{32}\b')


def _counters(transport):
    return rpc.driver(transport).counters()


def _unacknowledged(transport):
    return rpc.driver(transport).unacknowledged(20)


@pytest.fixture
def each_drop(caplog):
    """Those that follow the first are in the log at level DEBUG."""
    caplog.set_level(logging.DEBUG, losses.__name__)


def _drops(caplog):
    logs.flush()
    return [record.getMessage() for record in caplog.records
            if 'was dropped' in record.getMessage()]


@pytest.fixture(params=['direct', 'receiver'])
def reached(request, node):
    """The node, whose services are reached in one way or the other."""
    if request.param == 'receiver':
        node.receiver()
    return node


# A saturated executor

@pytest.fixture
def questions(monkeypatch):
    """How many messages the services of this process were asked about."""
    asked = []
    answer = reception.Reception._answer_query

    def counted(self, envelope, message):
        asked.extend(wire.split_ids(message.body[0]))
        answer(self, envelope, message)
    monkeypatch.setattr(reception.Reception, '_answer_query', counted)
    return asked


def test_casts_to_busy_workers_are_asked_about_and_never_sent_again(
        reached, questions):
    server = reached.server(workers=2)
    transport = reached.transport(rpc_cast_timeout=20)
    client = reached.client(transport)
    for number in range(2):
        client.cast({}, 'wait', value=f'busy {number}')
    waiting.until(lambda: len(server.endpoint.seen) == 2)
    for number in range(60):
        client.cast({}, 'note', value=number)
    # Two rounds of questions about all, and nothing else happens
    waiting.until(lambda: len(questions) >= 120, 30)
    assert len(server.endpoint.seen) == 2
    assert _unacknowledged(transport)[TOPIC]['count'] == 60
    server.endpoint.release.set()
    waiting.until(lambda: not _unacknowledged(transport))
    assert sorted(map(str, server.endpoint.seen)) == sorted(
        ['busy 0', 'busy 1', *map(str, range(60))])
    assert 'resent' not in _counters(transport)
    assert 'duplicates_dropped' not in _counters(server.transport)


def test_a_full_service_keeps_its_connections(reached, questions):
    """With more than fits into it and its pipe (but not more than a receiver
    takes), for longer than a silent connection lives.
    """
    server = reached.server(workers=1)
    transports = [reached.transport() for _ in range(3)]
    with futures.ThreadPoolExecutor(1) as thread:
        call = thread.submit(reached.client(timeout=60).call, {}, 'wait',
                             value='busy')
        waiting.until(lambda: server.endpoint.seen)
        for number, transport in enumerate(transports):
            client = reached.client(transport)
            for each in range(1200):
                client.cast({}, 'note', value=(number, each))
        began = time.monotonic()
        waiting.until(lambda: time.monotonic() > began + 9)
        server.endpoint.release.set()
        assert call.result(60) == 'busy'
    waiting.until(lambda: not any(map(_unacknowledged, transports)), 60)
    assert len(server.endpoint.seen) == 1 + 3 * 1200
    for transport in transports:
        assert 'resent' not in _counters(transport)
    assert 'duplicates_dropped' not in _counters(server.transport)


def test_notifications_to_busy_workers_are_never_sent_again(
        reached, questions):
    release = threading.Event()

    class Slow(rpc.Notes):
        def info(self, ctxt, publisher, event_type, payload, metadata):
            release.wait(30)
            self.seen.append(payload)
    listener = reached.listener(endpoint=Slow())
    transport = reached.notification_transport()
    notifier = reached.notifier(transport=transport)
    for number in range(30):
        notifier.info({}, 'event', number)
    try:
        waiting.until(lambda: len(questions) >= 60, 30)
        assert 'resent' not in _counters(transport)
    finally:
        release.set()
    waiting.until(lambda: not _unacknowledged(transport))
    assert sorted(listener.seen) == list(range(30))
    assert 'duplicates_dropped' not in _counters(listener.transport)


# Reports

def test_each_dropped_cast_is_logged_by_id_topic_and_reason(
        node, each_drop, caplog):
    transport = node.transport(rpc_message_ttl=1)
    for _ in range(30):
        node.client(transport).cast({}, 'note', value='secret')
    waiting.until(lambda: _counters(transport).get('dropped') == 30)
    lines = _drops(caplog)
    assert len({_ID.search(line)[0] for line in lines}) == len(lines) == 30
    for line in lines:
        assert line.startswith('CAST ') and f' for {TOPIC} ' in line
        assert 'rpc_message_ttl' in line and 'secret' not in line


def test_each_cast_over_the_limit_to_nobody_is_logged_oldest_first(
        node, each_drop, caplog):
    transport = node.transport(rpc_zmq_outbox_limit=10)
    client = node.client(transport)
    for number in range(10):
        client.cast({}, 'note', value=number)
    for number in range(25):
        client.cast({}, 'note', value=10 + number)
    lines = _drops(caplog)
    ids = [_ID.search(line)[0] for line in lines]
    assert len(ids) == 25 and ids == sorted(ids)
    assert all('rpc_zmq_outbox_limit' in line for line in lines)
    server = node.server()
    waiting.until(lambda: len(server.endpoint.seen) == 10)
    assert sorted(server.endpoint.seen) == list(range(25, 35))


def test_a_fanout_copy_for_a_killed_server_is_logged(
        node, each_drop, caplog):
    killed = node.process(server='killed')
    staying = node.server(server='staying')
    transport = node.transport()
    client = node.client(transport, fanout=True)
    client.cast({}, 'note', value=0)
    waiting.until(lambda: killed.ask('seen') and staying.endpoint.seen)
    # Else the first copy may be dropped as well
    waiting.until(lambda: not _unacknowledged(transport))
    killed.kill()
    client.cast({}, 'note', value=1)
    waiting.until(lambda: len(_drops(caplog)) == 1)
    waiting.until(lambda: staying.endpoint.seen == [0, 1])
    assert f' for {TOPIC} ' in _drops(caplog)[0]
    assert 'its instance is gone' in _drops(caplog)[0]
    assert not _unacknowledged(transport)


# What waits is visible

def test_what_waits_is_shown_with_count_age_and_the_id_of_the_oldest(node):
    transport = node.transport(rpc_cast_timeout=1)
    assert _unacknowledged(transport) == {}
    began = time.monotonic()
    for number in range(5):
        node.client(transport).cast({}, 'note', value=number)
    node.client(transport, topic='other').cast({}, 'note', value=0)
    waiting.until(lambda: len(_unacknowledged(transport)) == 2)
    first = _unacknowledged(transport)
    assert first[TOPIC]['count'] == 5
    assert 0 <= first[TOPIC]['oldest'] <= time.monotonic() - began
    assert _ID.fullmatch(first[TOPIC]['id'])
    waiting.until(lambda: _unacknowledged(transport)[TOPIC]['oldest']
                  > first[TOPIC]['oldest'] + 0.3)
    assert _unacknowledged(transport)[TOPIC]['id'] == first[TOPIC]['id']
    node.server()
    waiting.until(lambda: TOPIC not in _unacknowledged(transport))
    assert _counters(transport)['unacknowledged'] == 1


@pytest.mark.parametrize('where', ['waiting', 'queued', 'sent'])
def test_old_messages_are_reported_again_and_again(node, monkeypatch, caplog,
                                                   where):
    monkeypatch.setattr(custody, '_REPORT_OLD_EVERY', 0.2)
    monkeypatch.setattr(custody, '_OLD', 0.5)
    transport = node.transport(rpc_cast_timeout=1)
    client = node.client(transport)
    if where != 'waiting':
        process = node.process()
        client.call({}, 'echo', value=1)
        process.pause()
    if where == 'queued':
        monkeypatch.setattr('zmq_threaded.client.send_queue._WINDOW', 0)
    client.cast({}, 'note', value='secret')
    waiting.until(lambda: len(_reports(caplog)) >= 2)
    assert all(re.match(r'1 messages have been waiting for more than 0 s to '
                        r'be acknowledged, for \d+ s: CAST [0-9a-f]{32} for '
                        r'topic ', line) for line in _reports(caplog))
    assert 'secret' not in caplog.text
    if where != 'waiting':
        process.resume()


def _reports(caplog):
    return [record.getMessage() for record in caplog.records
            if 'have been waiting' in record.getMessage()
            and record.levelno == logging.WARNING]


# Ends of drivers and processes

_SHORT = '''
import native_threads; native_threads.use_native_threads()
import logging, sys; logging.basicConfig(stream=sys.stdout)
logging.getLogger("zmq_threaded.client.losses").setLevel(logging.DEBUG)
import oslo_messaging
from oslo_config import cfg
cfg.CONF([], project="short")
transport = oslo_messaging.get_rpc_transport(cfg.CONF, sys.argv[1])
client = oslo_messaging.get_rpc_client(
    transport, oslo_messaging.Target(topic="topic"))
notifier = oslo_messaging.Notifier(
    oslo_messaging.get_notification_transport(cfg.CONF, sys.argv[1]),
    "short", driver="messagingv2", topics=["notes"], retry=-1)
for number in range(50):
    client.cast({}, "note", value=number)
    client.prepare(fanout=True).cast({}, "note", value=100 + number)
    notifier.info({}, "event", number)
'''


def _short_process(node, **query):
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, '-c', _SHORT, node.url(**query)], check=True,
        timeout=60, env=processes.ENVIRONMENT, text=True,
        stdout=subprocess.PIPE)
    return ended.stdout, time.monotonic() - started


def test_a_process_that_sends_and_exits_has_delivered_all_kinds(reached):
    servers = [reached.server(server=name) for name in 'ab']
    listener = reached.listener()
    output, _ = _short_process(reached)
    # It has ended: nothing is on its way any more but what workers hold.
    waiting.until(lambda: sum(len(server.endpoint.seen)
                              for server in servers) == 150, 20)
    waiting.until(lambda: sorted(listener.seen) == list(range(50)), 20)
    assert 'dropped' not in output


def test_a_process_that_sends_to_nobody_exits_in_time_and_reports(node):
    output, seconds = _short_process(node, rpc_cast_timeout=2,
                                     rpc_zmq_exit_timeout=50)
    # Casts and notifications; a fanout to nobody is at its end.
    assert len(set(re.findall(r'(?:CAST|NOTIFY) ([0-9a-f]{32}) for \S+ .*'
                              r'was dropped: the driver was closed',
                              output))) == 100
    assert 2 <= seconds < 2 + 25


def test_cleanup_waits_no_longer_than_rpc_cast_timeout_and_reports(
        reached, each_drop, caplog):
    process = reached.process()
    transport = reached.transport(rpc_cast_timeout=2)
    client = reached.client(transport)
    client.call({}, 'echo', value=1)
    process.pause()
    for number in range(20):
        client.cast({}, 'note', value=number)
    started = time.monotonic()
    transport.cleanup()
    assert 2 <= time.monotonic() - started < 2 + 20
    assert len({_ID.search(line)[0] for line in _drops(caplog)}) == 20
    assert all('the driver was closed' in line and TOPIC in line
               for line in _drops(caplog))
    process.resume()


def test_cleanup_waits_only_as_long_as_it_must(reached):
    server = reached.server(workers=1)
    transport = reached.transport(rpc_cast_timeout=60)
    reached.client(transport).cast({}, 'wait', value=1)
    waiting.until(lambda: server.endpoint.seen)
    reached.client(transport).cast({}, 'note', value=2)
    threading.Timer(0.7, server.endpoint.release.set).start()
    started = time.monotonic()
    transport.cleanup()
    assert 0.5 < time.monotonic() - started < 20
    assert server.endpoint.seen == [1, 2]


# What a caller is told must be true

def _outbox(transport):
    return rpc.driver(transport)._parts().outbox


def test_a_monitored_call_that_expires_is_a_timeout(node, caplog):
    transport = node.transport(rpc_cast_timeout=1)
    process = node.process()
    client = node.client(transport, timeout=20, call_monitor_timeout=20)
    client.call({}, 'echo', value=1)
    process.pause()

    def expire():
        # As after a pause of this process, of which the outbox awakes first
        box = _outbox(transport)
        waiting.until(box.pending)
        box._tell(lambda: box._custody._sweep_expired(time.monotonic() + 60))
    expiring = threading.Thread(target=expire)
    expiring.start()
    try:
        with pytest.raises(oslo_messaging.MessagingTimeout):
            client.call({}, 'echo', value=2)
    finally:
        expiring.join()
        process.resume()


def test_what_was_confirmed_is_delivered_or_reported_when_its_server_dies(
        node, tmp_path, caplog):
    first = chaos_cloud.server(node, str(tmp_path), 'first',
                               chaos_cloud.Timeline(), 'topic')
    waiting.until(first.is_ready, 30)
    transport = node.transport(rpc_cast_timeout=20)
    client = node.client(transport)
    for number in range(8):     # all its workers
        client.cast({}, 'run', token=str(number), seconds=60)
    waiting.until(lambda: not _unacknowledged(transport))
    at_least_once = oslo_messaging.TransportOptions(at_least_once=True)
    node.client(transport, transport_options=at_least_once).cast(
        {}, 'note', value='confirmed')
    assert _unacknowledged(transport)[TOPIC]['count'] == 1
    first.kill()
    chaos_cloud.clear_killed(node.ipc_dir)
    waiting.until(lambda: _drops(caplog) or not _unacknowledged(transport)
                  or _waits(transport))
    second = node.server()
    waiting.until(lambda: second.endpoint.seen == ['confirmed']
                  or _drops(caplog))


def _waits(transport):
    return len(_outbox(transport)._custody._waiting)


@pytest.fixture(params=[False, True])
def refusing(request, node):
    """Start a server, or none, that refuses everything."""
    with contextlib.ExitStack() as servers:
        def start():
            if request.param:
                servers.enter_context(old_server.OldServer(
                    node.ipc_dir, lambda asked: asked.send(wire.NACK, (
                        bytes((wire.STOPPING,)), b'closing'))))
        yield start


def test_what_a_killed_server_may_have_run_is_not_called_undeliverable(
        node, refusing):
    process = node.process()
    transport = node.transport(rpc_cast_timeout=20)
    at_least_once = oslo_messaging.TransportOptions(at_least_once=True)
    client = node.client(transport, transport_options=at_least_once)
    client.cast({}, 'note', value=1)
    process.pause()
    # Sent into the buffers of the server, which may have read it as well
    sent = _counters(transport)['sent']

    def kill():
        waiting.until(lambda: _counters(transport)['sent'] > sent)
        refusing()
        process.kill()
    killing = threading.Thread(target=kill)
    killing.start()
    with pytest.raises(oslo_messaging.MessageDeliveryFailure) as raised:
        client.cast({}, 'note', value=2)
    killing.join()
    assert not isinstance(raised.value, oslo_messaging.MessageUndeliverable)
    assert 'may have been executed' in str(raised.value)


def _ticks(outbox, count):
    for _ in range(count):
        due = outbox._next_tick
        waiting.until(lambda: outbox._next_tick != due)


def test_a_server_that_comes_back_while_its_sender_is_paused_is_not_gone(node):
    node.query = {'zmq_target_update': 1, 'zmq_target_expire': 7}
    process = node.process()
    transport = node.transport()
    client = node.client(transport, fanout=True)
    client.cast({}, 'note', value=1)
    waiting.until(lambda: _counters(transport).get('acknowledged') == 1)
    # Given a fanout for a server that has lost its connection
    process.pause()
    client.cast({}, 'note', value=2)
    waiting.until(lambda: _counters(transport)['sent'] == 2)
    outbox = _outbox(transport)
    queue, = outbox._custody._connections
    waiting.until(lambda: not queue.connection.connected, 20)
    lost_at = time.monotonic()
    # When its record expires while the sender is paused
    goes_on, paused = threading.Event(), threading.Event()
    outbox._tell(lambda: (paused.set(), goes_on.wait(30)))
    assert paused.wait(10)
    known, topic = outbox._registry, topics.rpc('openstack', 'topic')
    waiting.until(
        lambda: (
            not known.cache.is_listed(topic, queue.instance)
            and time.monotonic() > lost_at + 2 * dealer_connection._GRACE
        ),
        20,
    )
    goes_on.set()
    _ticks(outbox, 2)
    # Then there is time to find out that it is back
    process.resume()
    waiting.until(lambda: not outbox.pending(), 20)
    assert _counters(transport)['acknowledged'] == 2
    assert 'dropped' not in _counters(transport)
    assert process.ask('seen') == [1, 2]


@pytest.mark.parametrize('is_behind', [False, True])
@pytest.mark.parametrize('is_full', [False, True])
def test_what_was_given_to_another_in_a_pause_runs_once(node, is_behind,
                                                        is_full):
    if is_behind:
        node.receiver()
    first = node.process(server='first', rpc_zmq_topic_backlog=10)
    transport = node.transport()
    client = node.client(transport)
    client.cast({}, 'note', value='before')
    # Given casts that lie unread, or unbegun, in a server that is paused
    for _ in range(_WORKERS if is_full else 0):
        client.cast({}, 'sleep', seconds=8)
    begun = 1 + _WORKERS * is_full
    waiting.until(
        lambda: _counters(transport).get('acknowledged') == begun, 20
    )
    if not is_full:
        first.pause()
    for number in range(50):
        client.cast({}, 'note', value=number)
    waiting.until(lambda: _counters(transport)['sent'] == begun + 50)
    if is_full:
        waiting.until(lambda: first.ask('counters')['backlog'] == 10)
        first.pause()
    second = node.server(server='second')
    waiting.until(lambda: len(second.endpoint.seen) == 50, 30)
    # When it goes on, it leaves to the other what the other has
    first.resume()
    client.prepare(server='first').cast({}, 'note', value='after')
    waiting.until(lambda: 'after' in first.ask('seen'), 30)
    assert first.ask('seen') == ['before', 'after']


# The registry in the hands of somebody who is paused

def test_who_is_paused_inside_the_registry_finds_nobody_gone(
        node, monkeypatch):
    """A pause of this process while it reads the records (SIGSTOP, a
    debugger, a machine that swaps). Found by the mixed load.
    """
    query = {'zmq_target_expire': 3, 'zmq_target_update': 1}
    server = node.process(**query)
    transport = node.transport(**query)
    client = node.client(transport, fanout=True)
    client.cast({}, 'note', value=0)
    waiting.until(lambda: server.ask('seen') == [0])
    scandir, paused = os.scandir, []

    def pausing(path='.'):
        if not paused and 'groups' in str(path):
            paused.append(time.sleep(5))
        return scandir(path)
    monkeypatch.setattr(os, 'scandir', pausing)
    client.cast({}, 'note', value=1)
    waiting.until(lambda: paused)
    client.cast({}, 'note', value=2)
    waiting.until(lambda: not _unacknowledged(transport))
    waiting.until(lambda: sorted(server.ask('seen')) == [0, 1, 2], 20,
                  lambda: _counters(transport))


# The memory of what was acknowledged

class Raw:
    """A peer of a service that sends what it likes, again if it likes."""

    def __init__(self, node):
        self.parts = node.runtime(rpc_message_ttl=3)
        self.service = self.parts.service([topics.rpc('openstack', 'raw')])
        self.ran = []
        self.hold_up = None
        self.service.start(self._run)
        self._context = zmq.Context()
        self._socket = sockets.Sockets(
            self._context, node.settings()).dealer(
                self.service.instance.endpoints[0])
        assert self._socket.poll(20000, zmq.POLLOUT)
        node.closing(self._close)

    def _run(self, messages):
        if self.hold_up:
            self.hold_up.wait(20)
        for message in messages:
            with contextlib.suppress(errors.ExpiredMessage):
                message.acknowledge()
                self.ran.append(message.id)

    def _close(self):
        self._socket.close()
        self._context.term()
        self.service.cleanup()
        self.parts.forget(self.service)

    def cast(self, message_id, settled=b''):
        body, _ = payload.dump(({}, {}), 'json')
        self._socket.send_multipart([b'', wire.encode(
            wire.CAST, self.service.instance.id, message_id,
            [*body, settled], expiry=60)])

    def acknowledged(self, count):
        """Wait until so many ids were acknowledged; returns them."""
        ids = []
        while len(ids) < count:
            assert self._socket.poll(20000)
            frame = self._socket.recv_multipart()[1]
            ids += wire.split_ids(wire.decode(frame).body[0])
        return ids

    def remembered(self):
        return len(self.service._reception.held._seen)


def test_a_duplicate_is_acknowledged_again_and_not_run(node):
    raw = Raw(node)
    message_id = ids.new_id()
    for _ in range(5):
        raw.cast(message_id)
        assert raw.acknowledged(1) == [message_id]
    assert raw.ran == [message_id]
    assert raw.parts.counters.snapshot()['duplicates_dropped'] == 4


def test_what_waited_for_a_worker_in_a_pause_is_left_to_its_sender(node):
    raw = Raw(node)
    raw.hold_up = threading.Event()
    message_id = ids.new_id()
    # Given a cast that was read, and not begun, before a pause
    raw.cast(message_id)
    waiting.until(raw.service.backlog)
    raw.service._reception.stalls._count += 1
    # When a worker takes it up, then it is refused
    raw.hold_up.set()
    waiting.until(lambda: raw.parts.counters.snapshot().get('refused_busy'))
    assert not raw.ran
    # And run when it comes again
    raw.cast(message_id)
    waiting.until(lambda: raw.ran == [message_id])


def test_an_id_is_remembered_through_traffic_for_rpc_message_ttl(
        node, monkeypatch):
    """As long as its sender may send it again, it does not settle it."""
    # A fast machine sends more than the limit in this time; the limit has a
    # test of its own.
    monkeypatch.setattr(held, '_SEEN_LIMIT', 10_000_000)
    raw = Raw(node)
    message_id, began = ids.new_id(), time.monotonic()
    raw.cast(message_id)
    assert raw.acknowledged(1) == [message_id]
    while time.monotonic() < began + 2.5:
        others = [ids.new_id() for _ in range(200)]
        for other in others:
            raw.cast(other, settled=message_id)
        assert sorted(raw.acknowledged(200)) == others
        raw.cast(message_id)
        assert raw.acknowledged(1) == [message_id]
        # A round may take long on a busy machine, and the id is forgotten.
        if time.monotonic() < began + 3:
            assert raw.ran.count(message_id) == 1


def test_what_is_settled_is_forgotten_and_what_is_not_expires(
        node, monkeypatch):
    monkeypatch.setattr(held, '_ON_ITS_WAY', 0.1)
    raw = Raw(node)
    most, began = 0, time.monotonic()
    while time.monotonic() < began + 2:
        made = [ids.new_id() for _ in range(100)]
        for each in made:
            raw.cast(each, settled=each)
        raw.acknowledged(100)
        most = max(most, raw.remembered())
    assert most < len(raw.ran) / 2
    # Of a process that never settles anything (it was killed)
    strange = [b'stranger' + n.to_bytes(8, 'big') for n in range(200)]
    for each in strange:
        raw.cast(each)
    raw.acknowledged(200)
    waiting.until(lambda: _goes_on(raw) and raw.remembered() < 100, 20)


def _goes_on(raw):
    message_id = ids.new_id()
    raw.cast(message_id, settled=message_id)
    return raw.acknowledged(1)


def test_the_memory_is_bounded_whatever_is_settled(node, monkeypatch):
    monkeypatch.setattr(held, '_SEEN_LIMIT', 50)
    raw = Raw(node)
    for _ in range(5):
        for _ in range(100):
            raw.cast(ids.new_id())
        raw.acknowledged(100)
        _goes_on(raw)
        assert raw.remembered() <= 51


# Background loops survive

class Injected(Exception):
    pass


def _raise_once(monkeypatch, owner, name):
    """The next call of a method raises."""
    step, calls = getattr(owner, name), []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise Injected(f'{owner.__name__}.{name}')
        return step(*args, **kwargs)
    monkeypatch.setattr(owner, name, failing)
    return calls


_STEPS = [
    (poller.Poller, '_read'), (reception.Reception, 'admit'),
    (poller_thread.PollerThread, '_time_to_wait'),
    (replies.Replies, '_write'), (reply_thread.ReplyThread, '_time_to_wait'),
    (outbox.Outbox, '_time_to_wait'), (custody.Custody, 'tick'),
    (dealer_connection.Connection, 'pump'),
    (registrations.Registrations, 'beat_if_due'),
    (look_ups.LookUps, 'refresh'), (look_ups.LookUps, '_read'),
    (requests.Requests, 'close_idle')]


def _named(value):
    return value if isinstance(value, str) else value.__name__


@pytest.mark.parametrize('owner, name', _STEPS, ids=_named)
def test_a_loop_survives_an_unexpected_error(node, monkeypatch, caplog,
                                             owner, name):
    server = node.server()
    transport = node.transport(zmq_target_update=1)
    client = node.client(transport, timeout=30)
    client.call({}, 'echo', value=0)
    client.cast({}, 'note', value=0)
    waiting.until(lambda: server.endpoint.seen == [0])
    calls = _raise_once(monkeypatch, owner, name)
    client.cast({}, 'note', value=1)
    waiting.until(lambda: calls)
    waiting.until(lambda: server.endpoint.seen == [0, 1])
    for number in range(5):
        assert client.call({}, 'echo', value=number) == number
    client.cast({}, 'note', value=2)
    waiting.until(lambda: server.endpoint.seen == [0, 1, 2])
    waiting.until(lambda: not _unacknowledged(transport))
    assert 'Injected' in caplog.text


@pytest.mark.parametrize('name', ['_read_front', '_forward', '_read_backend',
                                  '_tick_when_due', '_answer', '_move'])
def test_the_receiver_survives_an_unexpected_error(node, monkeypatch, caplog,
                                                   name):
    node.query = {'rpc_zmq_topology': 'receiver', 'rpc_zmq_host': '127.0.0.1',
                  'rpc_zmq_port': ports.free_port()}
    running = receiver_loop.Receiver(node.settings(), node.ipc_dir)
    running.start()
    node.closing(running.stop)
    server = node.server()
    transport = node.transport()
    client = node.client(transport, timeout=30)
    client.call({}, 'echo', value=0)
    calls = _raise_once(monkeypatch, receiver_loop.Receiver, name)
    client.cast({}, 'note', value=1)
    waiting.until(lambda: calls)
    waiting.until(lambda: server.endpoint.seen == [1])
    for number in range(5):
        assert client.call({}, 'echo', value=number) == number
    waiting.until(lambda: not _unacknowledged(transport))
    assert running.counters.snapshot()['loop_errors'] == 1
    assert 'Injected' in caplog.text


@pytest.mark.parametrize('fanout', [False, True])
def test_a_message_that_raises_while_it_is_routed_is_reported(
        node, monkeypatch, caplog, fanout):
    node.server()
    transport = node.transport(rpc_cast_timeout=3)
    _raise_once(monkeypatch, custody.connections.Connections, 'to')
    node.client(transport, fanout=fanout).cast({}, 'note', value=1)
    waiting.until(lambda: not _unacknowledged(transport), 20)
    assert len(_drops(caplog)) == 1


def test_what_raises_while_it_is_routed_takes_nothing_else_along(
        node, monkeypatch, caplog):
    transport = node.transport(rpc_cast_timeout=1)
    for number in range(5):
        node.client(transport).cast({}, 'note', value=number)
    waiting.until(lambda: _unacknowledged(transport)[TOPIC]['count'] == 5)
    _raise_once(monkeypatch, custody.connections.Connections, 'to')
    server = node.server()
    waiting.until(lambda: len(server.endpoint.seen) + len(_drops(caplog)) == 5,
                  20)


def test_a_fanout_whose_look_up_never_ends_expires(node, monkeypatch, caplog):
    monkeypatch.setattr(registries.Registry, 'ask', lambda *args: None)
    transport = node.transport(rpc_message_ttl=1, rpc_cast_timeout=1)
    node.client(transport, fanout=True).cast({}, 'note', value=1)
    waiting.until(lambda: _drops(caplog), 20)
    assert 'rpc_message_ttl' in _drops(caplog)[0]


@pytest.mark.parametrize('owner, name', [
    (spreading.Spreading, '_spread'), (dealer_connection.Connection, '_frame'),
    (spreading.Spreading, '_copies_for_instances')
    ], ids=_named)
def test_a_message_is_delivered_or_reported_after_an_unexpected_error(
        node, monkeypatch, caplog, owner, name):
    server = node.server()
    transport = node.transport(rpc_cast_timeout=2)
    client = node.client(transport, fanout=True)
    _raise_once(monkeypatch, owner, name)
    client.cast({}, 'note', value=1)
    client.prepare(fanout=False).call({}, 'echo', value=1)
    transport.cleanup()
    assert server.endpoint.seen == [1] or len(_drops(caplog)) == 1
