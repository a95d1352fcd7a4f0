# SPDX-License-Identifier: Apache-2.0
"""Each count and gauge of the driver says what docs/counters.md says."""

import os
import re
import subprocess
import threading
import time
import timeit

import oslo_messaging
import pytest
import zmq

from tests.support import ids
from tests.support import ports
from tests.support import rpc
from tests.support import waiting
from zmq_threaded import counters as counting
from zmq_threaded import payload
from zmq_threaded import sockets
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import losses
from zmq_threaded.client import requests
from zmq_threaded.receiver import receiver as receiver_loop
from zmq_threaded.service import executors

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))


def _counters(transport):
    return rpc.driver(transport).counters()


def _reaches(transport, name, value):
    """Wait until a count has this value, and see that it stays there."""
    waiting.until(lambda: _counters(transport).get(name, 0) >= value, 30,
                  lambda: (name, _counters(transport)))
    assert _counters(transport)[name] == value


@pytest.fixture
def raw(node, monkeypatch):
    """A bare service and a peer that sends it any frames; .counters()."""
    # For those who do not read: the peer is to take no more than others do.
    monkeypatch.setattr(sockets, '_CLIENT_RCVHWM', 1000)
    parts = node.runtime()
    service = parts.service([topics.rpc('openstack', 'raw')])
    executor = executors.load('threading', max_workers=2)
    service.start(executors.submitting(executor, lambda ctxt, message: None))
    context = zmq.Context()
    service.peer = sockets.Sockets(context, node.settings()).dealer(
        service.instance.endpoints[0])
    assert service.peer.poll(20000, zmq.POLLOUT)
    service.counters = parts.snapshot
    yield service
    service.peer.close()
    context.term()
    service.stop()
    executor.shutdown()
    service.cleanup()
    parts.forget(service)


def _send(raw, kind=wire.CAST, instance=None, message_id=None, body=None,
          **kwargs):
    body = body or payload.dump(({}, {}), 'json')[0]
    raw.peer.send_multipart([b'', wire.encode(
        kind, instance or raw.instance.id, message_id or ids.new_id(), body,
        **kwargs)])


def _raw_reaches(raw, name, value):
    waiting.until(lambda: raw.counters().get(name) == value,
                  what=lambda: raw.counters())


# Counts of a sender

def test_sent_and_acknowledged(node):
    node.server()
    transport = node.transport()
    client = node.client(transport)
    for number in range(7):
        client.call({}, 'echo', value=number)
    assert _counters(transport)['sent'] == 7
    assert 'acknowledged' not in _counters(transport)
    for number in range(5):
        client.cast({}, 'note', value=number)
    _reaches(transport, 'acknowledged', 5)
    assert _counters(transport)['sent'] == 12


def test_a_fanout_counts_a_copy_for_each_server(node):
    for name in 'abc':
        node.server(server=name)
    transport = node.transport()
    node.client(transport, fanout=True).cast({}, 'note', value=1)
    _reaches(transport, 'acknowledged', 3)
    assert _counters(transport)['sent'] == 3


def test_fanouts_to_nobody(node):
    transport = node.transport()
    node.client(transport, fanout=True).cast({}, 'note', value=1)
    _reaches(transport, 'fanouts_to_nobody', 1)
    assert not {'dropped', 'unroutable'} & _counters(transport).keys()


def test_resent(node):
    """Given to another server, after the one that had them was killed."""
    first = node.process(server='first')
    transport = node.transport()
    client = node.client(transport)
    client.cast({}, 'note', value='first')
    _reaches(transport, 'acknowledged', 1)
    first.pause()
    for number in range(9):
        client.cast({}, 'note', value=number)
    waiting.until(lambda: _counters(transport)['sent'] == 10)
    second = node.server(server='second')
    first.kill()
    waiting.until(lambda: len(second.endpoint.seen) == 9)
    _reaches(transport, 'resent', 9)
    _reaches(transport, 'acknowledged', 10)


def test_dropped_and_unroutable_by_their_time_to_live(node):
    transport = node.transport(rpc_message_ttl=1)
    for number in range(4):
        node.client(transport).cast({}, 'note', value=number)
    _reaches(transport, 'dropped', 4)
    assert _counters(transport)['unroutable'] == 4


def test_dropped_and_unroutable_by_the_limit(node):
    transport = node.transport(rpc_zmq_outbox_limit=3, rpc_cast_timeout=1)
    client = node.client(transport)
    for number in range(8):
        client.cast({}, 'note', value=number)
    _reaches(transport, 'dropped', 5)
    assert _counters(transport)['unroutable'] == 5
    assert _counters(transport)['unacknowledged'] == 3


def test_dropped_but_not_unroutable_when_somebody_had_it(node):
    process = node.process()
    transport = node.transport(rpc_message_ttl=2, rpc_cast_timeout=1)
    client = node.client(transport)
    client.cast({}, 'note', value=0)
    _reaches(transport, 'acknowledged', 1)
    process.pause()
    client.cast({}, 'note', value=1)
    _reaches(transport, 'dropped', 1)
    assert 'unroutable' not in _counters(transport)
    process.resume()


def test_unroutable_by_a_limit_of_look_ups(node):
    transport = node.transport()
    with pytest.raises(oslo_messaging.MessageDeliveryFailure):
        node.client(transport, retry=0).cast({}, 'note', value=1)
    _reaches(transport, 'unroutable', 1)


def test_calls_timed_out(node):
    node.server()
    transport = node.transport()
    with pytest.raises(oslo_messaging.MessagingTimeout):
        node.client(transport, timeout=0.3).call({}, 'wait', value=1)
    assert _counters(transport)['calls_timed_out'] == 1


def test_monitored_calls_timed_out(node):
    node.server()
    transport = node.transport()
    with pytest.raises(oslo_messaging.MessagingTimeout):
        node.client(transport, timeout=0.5, call_monitor_timeout=60).call(
            {}, 'wait', value=1)
    assert _counters(transport)['calls_timed_out'] == 1


def test_registry_errors(node, monkeypatch):
    transport = node.transport()
    client = node.client(transport, timeout=1)
    lookup = rpc.driver(transport)._parts().registry._store
    monkeypatch.setattr(type(lookup), 'lookup', lambda *args: 1 / 0)
    with pytest.raises(oslo_messaging.MessagingTimeout):
        client.call({}, 'echo', value=1)
    assert _counters(transport)['registry_errors'] >= 1


def test_loop_errors(node, monkeypatch):
    transport = node.transport()
    node.server(transport=transport)
    monkeypatch.setattr(requests.Requests, 'close_idle',
                        lambda self: 1 / 0)
    waiting.until(lambda: _counters(transport).get('loop_errors'))


# Counts of a service

def test_duplicates_dropped(raw):
    message_id = ids.new_id()
    for _ in range(4):
        _send(raw, message_id=message_id)
    _raw_reaches(raw, 'duplicates_dropped', 3)


def test_malformed(raw):
    raw.peer.send_multipart([b'', b'nonsense'])
    raw.peer.send_multipart([b'no envelope'])
    _send(raw, body=[b'{', b'}'])
    _raw_reaches(raw, 'malformed', 3)
    assert raw.counters()['refused_malformed'] == 1


def test_wrong_version(raw):
    good = wire.encode(wire.CAST, raw.instance.id, ids.new_id(), [b'', b''])
    raw.peer.send_multipart([b'', good[:4] + b'\x63' + good[5:]])
    _raw_reaches(raw, 'wrong_version', 1)
    _raw_reaches(raw, 'refused_version', 1)


def test_refused_gone(raw):
    _send(raw, instance=ids.new_id())
    _raw_reaches(raw, 'refused_gone', 1)


def test_refused_stopping(raw):
    raw.stop()
    _send(raw)
    _raw_reaches(raw, 'refused_stopping', 1)


def test_expired_when_it_is_read(raw):
    _send(raw, expiry=0.0)
    _raw_reaches(raw, 'expired', 1)


def test_refused_busy(node):
    parts = node.runtime()
    service = parts.service([topics.rpc('openstack', 'topic')])
    service.start(lambda messages: 1 / 0)
    transport = node.transport(rpc_cast_timeout=1)
    node.client(transport).cast({}, 'note', value=1)
    waiting.until(lambda: parts.snapshot().get('refused_busy', 0) >= 2)
    service.cleanup()
    parts.forget(service)


def test_expired_before_a_worker_was_free(node):
    server = node.server(workers=1)
    transport = node.transport()
    node.client(transport).cast({}, 'wait', value=1)
    waiting.until(lambda: server.endpoint.seen)
    with pytest.raises(oslo_messaging.MessagingTimeout):
        node.client(transport, timeout=0.3).call({}, 'note', value=2)
    server.endpoint.release.set()
    _reaches(server.transport, 'expired', 1)
    assert server.endpoint.seen == [1]


def test_replies_to_vanished_clients(node):
    server = node.server()
    transport = node.transport()
    client = node.client(transport, timeout=30)
    calling = threading.Thread(target=lambda: pytest.raises(
        oslo_messaging.MessagingTimeout, client.call, {}, 'wait', value=1))
    calling.start()
    waiting.until(lambda: server.endpoint.seen)
    transport.cleanup()
    calling.join(30)
    time.sleep(0.1)
    server.endpoint.release.set()
    _reaches(server.transport, 'replies_to_vanished_clients', 1)


def test_replies_dropped(raw):
    """A client that asks and never reads."""
    for _ in range(30_000):
        assert raw.peer.poll(20_000, zmq.POLLOUT)
        _send(raw, instance=bytes(16))
        if raw.counters().get('replies_dropped'):
            break
    assert raw.counters()['replies_dropped'] > 0


# Gauges

def test_backlog_is_what_a_service_holds(node):
    server = node.server(workers=1)
    transport = node.transport()
    client = node.client(transport)
    client.cast({}, 'wait', value=0)
    waiting.until(lambda: server.endpoint.seen == [0])
    for number in range(6):
        client.cast({}, 'note', value=number)
    _reaches(server.transport, 'backlog', 6)
    # The first one's acknowledgement may be on its way.
    waiting.until(lambda: _counters(transport)['unacknowledged'] == 6)
    server.endpoint.release.set()
    waiting.until(lambda: _counters(server.transport)['backlog'] == 0)
    waiting.until(lambda: _counters(transport)['unacknowledged'] == 0)


def test_sockets_returns_to_its_value(node):
    serving = node.transport()
    transport = node.transport(conn_pool_ttl=1)
    assert _counters(transport)['sockets'] == 0
    server = node.server(transport=serving)
    assert _counters(serving)['sockets'] == 1
    client = node.client(transport)
    client.call({}, 'echo', value=1)
    assert _counters(transport)['sockets'] == 1
    client.cast({}, 'note', value=1)
    waiting.until(lambda: server.endpoint.seen)
    assert _counters(transport)['sockets'] == 2
    waiting.until(lambda: _counters(transport)['sockets'] == 0, 15)
    node.stop(server)
    assert _counters(serving)['sockets'] == 0


def test_sockets_returns_after_many_threads_and_failures(node):
    transport = node.transport(conn_pool_ttl=1)
    client = node.client(transport, timeout=20)
    process = node.process()
    threads = [threading.Thread(target=_end, args=(client,))
               for _ in range(20)]
    for thread in threads:
        thread.start()
    waiting.until(lambda: _counters(transport)['sockets'] >= 10)
    process.kill()
    for thread in threads:
        thread.join(30)
    waiting.until(lambda: _counters(transport)['sockets'] == 0, 20,
                  lambda: _counters(transport))


def _end(client):
    try:
        client.prepare(timeout=5).call({}, 'sleep', seconds=4)
    except oslo_messaging.MessagingTimeout:
        pass


# A receiver's

def test_a_receiver_counts_what_it_passes_on(node):
    receiver = node.receiver()
    server = node.server()
    client = node.client()
    for number in range(3):
        client.call({}, 'echo', value=number)
    node.stop(server)
    assert receiver.terminate() == 0
    assert receiver.counters() == {'forwarded': 3, 'answered': 3}


def test_a_receiver_counts_what_it_refuses(node):
    node.query = {'rpc_zmq_topology': 'receiver', 'rpc_zmq_host': '127.0.0.1',
                  'rpc_zmq_port': ports.free_port()}
    running = receiver_loop.Receiver(node.settings(), node.ipc_dir)
    running.start()
    node.closing(running.stop)
    context = zmq.Context()
    peer = sockets.Sockets(context, node.settings()).dealer(
        f'tcp://127.0.0.1:{node.query["rpc_zmq_port"]}')
    assert peer.poll(20000, zmq.POLLOUT)
    peer.send_multipart([b'', wire.encode(wire.CAST, ids.new_id(),
                                          ids.new_id(), [b'', b''])])
    peer.send_multipart([b'', b'nonsense'])
    waiting.until(lambda: running.counters.snapshot() == {
        'refused_gone': 1, 'malformed': 1}, what=running.counters.snapshot)
    peer.close()
    context.term()


# All of them

def _names_in_the_code():
    found = subprocess.run(
        ['grep', '-rhoE', r"counters\.add\(f?'[a-z_]+", os.path.join(
            _ROOT, 'zmq_threaded')], text=True, check=True,
        stdout=subprocess.PIPE).stdout
    return {line.partition("'")[2] for line in found.splitlines()}


def test_every_name_is_in_the_table():
    with open(os.path.join(_ROOT, 'zmq_threaded', 'docs',
                           'counters.md')) as page:
        table = set(re.findall(r'`([a-z_]+)`', page.read()))
    reasons = set(wire.REASON_NAMES.values()) - {'expired'}
    causes = {each.name for each in vars(losses).values()
              if isinstance(each, losses.Cause)} - {losses.NOBODY_THERE.name}
    names = _names_in_the_code() - {'refused_', 'dropped_'} | {'expired'} | {
        f'refused_{reason}' for reason in reasons} | {
        f'dropped_{cause}' for cause in causes} | {
        'backlog', 'unacknowledged'}
    assert names <= table, names - table


def test_what_counting_costs():
    counters = counting.Counters()
    seconds = min(timeit.repeat(lambda: counters.add('sent'), number=100_000,
                                repeat=5))
    print(f'\ncounters.add(): {seconds * 1e4:.0f} ns')


def test_counts_of_many_threads_are_exact():
    counters = counting.Counters()

    def count():
        for _ in range(5000):
            counters.add('name')
            counters.add('other', -1)
    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.snapshot() == {'name': 40000, 'other': -40000}
