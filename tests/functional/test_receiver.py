# SPDX-License-Identifier: Apache-2.0
"""Services behind a receiver, as oslo.messaging's users know them."""

import os
import threading
import time

import oslo_messaging
import pytest

from tests.support import ids
from tests.support import ports
from tests.support import relay as relays
from tests.support import rpc
from tests.support import waiting
from zmq_threaded import errors
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import dealer_connection
from zmq_threaded.client import requests
from zmq_threaded.client import send_queue

AT_LEAST_ONCE = oslo_messaging.TransportOptions(at_least_once=True)
TOPIC = topics.rpc('openstack', 'topic')
# When a client begins to ask what became of a message.
_QUESTIONS = [(requests, '_WATCH_AFTER'), (send_queue, '_ASK_AFTER'),
              (dealer_connection, '_ASK_RECEIVER_EVERY')]


def _seconds(function, *args, **kwargs):
    started = time.monotonic()
    function(*args, **kwargs)
    return time.monotonic() - started


def _raises(exception, function, *args, **kwargs):
    def check():
        with pytest.raises(exception):
            function(*args, **kwargs)
    return _seconds(check)


def _instance(server):
    return server.listener._service.current.instance


def _parts(transport):
    return rpc.driver(transport)._parts()


def _counters(transport):
    return rpc.driver(transport).counters()


@pytest.fixture(params=['ipc', 'tcp'])
def reached(request, receiver):
    """The receiver; its clients of this machine reach it by either way."""
    if request.param == 'tcp':
        receiver.cut_off_ipc()
    return receiver


@pytest.fixture
def relay(node):
    """start(**filters): a Relay on the port in the records; only behind it
    is the receiver.
    """
    def start(**filters):
        behind = node.receiver()
        port = ports.free_port()
        node.query = {**node.query, 'rpc_zmq_port': port}
        started = relays.Relay(port, behind.port, **filters)
        node.closing(started.end)
        started.receiver = behind
        return started
    return start


# All kinds of messages


def test_call(node, reached):
    server = node.server()
    client = node.client()
    for number in range(20):
        assert client.call({}, 'echo', value=number) == number
    assert _instance(server).receiver
    node.stop(server)
    assert reached.terminate() == 0
    assert reached.counters() == {'forwarded': 20, 'answered': 20}


def test_remote_exception(node, receiver):
    node.server()
    with pytest.raises(ValueError, match='why'):
        node.client().call({}, 'fail', text='why')


def test_casts(node, reached):
    server = node.server()
    client = node.client()
    for number in range(500):
        client.cast({}, 'note', value=number)
    waiting.until(lambda: len(server.endpoint.seen) >= 500)
    assert sorted(server.endpoint.seen) == list(range(500))


def test_fanout(node, reached):
    servers = [node.server(server=name) for name in 'abc']
    client = node.client(fanout=True)
    for number in range(50):
        client.cast({}, 'note', value=number)
    for server in servers:
        waiting.until(lambda: len(server.endpoint.seen) >= 50)
        assert sorted(server.endpoint.seen) == list(range(50))


def test_notifications_once_in_each_pool(node, reached):
    pools = {name: [node.listener(pool=name) for _ in range(2)]
             for name in ('one', 'two')}
    notifier = node.notifier()
    for number in range(50):
        notifier.info({}, 'event', number)
    for listeners in pools.values():
        waiting.until(lambda: sum(len(each.seen) for each in listeners) >= 50)
        assert sorted(sum((each.seen for each in listeners), [])) == list(
            range(50))


def test_monitored_call(node, receiver):
    server = node.process()
    client = node.client(timeout=60, call_monitor_timeout=2)
    assert client.call({}, 'sleep', seconds=3) == server.pid


def test_at_least_once_cast_returns_when_the_server_has_it(node, receiver):
    server = node.server(workers=1)
    client = node.client(node.transport(rpc_cast_timeout=60), timeout=60,
                         transport_options=AT_LEAST_ONCE)
    client.cast({}, 'wait', value=1)
    waiting.until(lambda: server.endpoint.seen == [1])
    assert _seconds(client.cast, {}, 'note', value=2) < 20
    assert server.endpoint.seen == [1]
    server.endpoint.release.set()
    waiting.until(lambda: server.endpoint.seen == [1, 2])


@pytest.mark.parametrize('method', ['call', 'cast'])
def test_at_least_once_to_nobody_is_undeliverable(node, receiver, method):
    client = node.client(transport_options=AT_LEAST_ONCE, timeout=60)
    with pytest.raises(oslo_messaging.MessageUndeliverable):
        getattr(client, method)({}, 'note', value=1)


def test_slow_call_times_out_and_its_late_reply_harms_nobody(node, receiver):
    server = node.server(workers=4)
    transport = node.transport()
    assert _raises(oslo_messaging.MessagingTimeout, node.client(
        transport, timeout=0.3).call, {}, 'wait', value='slow') < 20
    client = node.client(transport)
    assert client.call({}, 'echo', value='next') == 'next'
    server.endpoint.release.set()
    for number in range(50):
        assert client.call({}, 'echo', value=number) == number


def test_long_call_is_not_given_up(node, receiver):
    server = node.process()
    assert node.client(timeout=30).call({}, 'sleep', seconds=4) == server.pid


def test_a_call_waits_its_turn_in_a_saturated_service(node, receiver):
    transport = node.transport(rpc_zmq_topic_backlog=2)
    server = node.server(transport=transport, workers=1)
    client = node.client(timeout=30)
    client.cast({}, 'wait', value='busy')
    waiting.until(lambda: server.endpoint.seen == ['busy'])
    results, threads = [], []
    for number in range(6):
        threads.append(threading.Thread(target=lambda n=number: results.append(
            client.call({}, 'echo', value=n))))
        threads[-1].start()
    began = time.monotonic()
    waiting.until(lambda: time.monotonic() > began + 4)
    server.endpoint.release.set()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(6))


def test_large_messages(node, reached):
    node.server()
    text = 'x' * (16 << 20)
    client = node.client(timeout=60)
    assert client.call({}, 'echo', value=text) == text
    server = node.server(topic='large')
    client.prepare(topic='large', fanout=True).cast({}, 'note', value=text)
    waiting.until(lambda: server.endpoint.seen == [text], 30)


def test_direct_and_behind_a_receiver_in_one_topic(node, receiver):
    behind = node.server(server='behind')
    direct = node.server(server='direct', transport=node.transport(
        rpc_zmq_topology='direct'))
    assert _instance(behind).receiver and not _instance(direct).receiver
    client = node.client()
    for number in range(40):
        client.call({}, 'note', value=number)
        client.cast({}, 'note', value=100 + number)
    client.prepare(fanout=True).cast({}, 'note', value='all')
    both = (behind, direct)
    waiting.until(lambda: sum(len(each.endpoint.seen) for each in both) == 82)
    for each in both:
        assert each.endpoint.seen.count('all') == 1
        assert len(each.endpoint.seen) > 20
    seen = behind.endpoint.seen + direct.endpoint.seen
    assert len(set(seen)) == 81


def test_a_service_of_another_version_is_refused_by_name(node, receiver):
    """The refusal of a service crosses the receiver, whatever the version."""
    import zmq
    server = node.server()
    context = zmq.Context()
    peer = context.socket(zmq.DEALER)
    peer.connect(f'tcp://127.0.0.1:{receiver.port}')
    good = wire.encode(wire.CALL, _instance(server).id, ids.new_id(),
                       (b'{}', b'{}'))
    peer.send_multipart([b'', good[:4] + b'\x09' + good[5:50]])
    answered = peer.poll(20000)
    frames = answered and peer.recv_multipart()
    context.destroy(linger=0)
    reason, _ = wire.nack_reason(wire.decode(frames[1]))
    assert reason == wire.VERSION


# Options


def test_record_has_host_and_port_of_the_receiver(node, receiver):
    instance = _instance(node.server())
    assert instance.endpoints == (
        f'ipc://{receiver.path()}', f'tcp://127.0.0.1:{receiver.port}')


@pytest.mark.parametrize('query, is_behind', [
    ({'rpc_zmq_topology': 'receiver'}, True),
    ({'rpc_zmq_topology': 'direct'}, False),
    ({'use_router_proxy': 'true'}, True),
    ({'use_router_proxy': 'false'}, False), ({}, False)])
def test_topology_says_how_a_service_is_reached(node, query, is_behind):
    receiver = node.receiver()
    del node.query['rpc_zmq_topology']
    server = node.server(transport=node.transport(**query))
    assert _instance(server).receiver is is_behind
    assert node.client().call({}, 'echo', value=1) == 1
    node.stop(server)
    receiver.terminate()
    assert receiver.counters().get('forwarded', 0) == int(is_behind)


def test_services_of_two_ports_are_behind_two_receivers(node):
    counted = []
    for number in range(2):
        receiver = node.receiver()
        server = node.server()
        assert node.client().call({}, 'echo', value=number) == number
        node.stop(server)
        assert receiver.terminate() == 0
        counted.append(receiver.counters()['forwarded'])
    assert counted == [1, 1]


@pytest.mark.parametrize('bind, host', [('::1', '::1'), ('[::1]', '[::1]'),
                                        ('*', '::1')])
def test_ipv6(node, bind, host):
    receiver = node.receiver(host=host, rpc_zmq_bind_address=bind)
    receiver.cut_off_ipc()
    server = node.server()
    assert _instance(server).endpoints[1] == f'tcp://[::1]:{receiver.port}'
    client = node.client()
    assert client.call({}, 'echo', value='call') == 'call'
    client.cast({}, 'note', value='cast')
    waiting.until(lambda: server.endpoint.seen == ['cast'])


# Without a receiver


def _warnings(caplog):
    return [record.getMessage() for record in caplog.records
            if 'oslo-messaging-zmq-receiver' in record.getMessage()]


def test_a_service_without_a_receiver_says_so_at_once_and_goes_on(
        node, caplog):
    receiver = node.receiver(start=False)
    server = node.server()
    said, = _warnings(caplog)
    for text in ('--config-file', str(receiver.port), node.ipc_dir,
                 receiver.host):
        assert text in said
    client = node.client()
    client.cast({}, 'note', value='early')
    with pytest.raises(oslo_messaging.MessagingTimeout):
        client.prepare(timeout=1).call({}, 'echo', value=1)
    receiver.start()
    assert client.prepare(timeout=30).call({}, 'echo', value=2) == 2
    waiting.until(lambda: server.endpoint.seen == ['early'], 30)
    waiting.until(lambda: 'is there' in caplog.text or len(
        _warnings(caplog)) == 1)


def test_a_service_with_a_receiver_says_nothing(node, receiver, caplog):
    node.server()
    assert node.client().call({}, 'echo', value=1) == 1
    assert not _warnings(caplog)


def test_a_service_says_that_its_receiver_has_gone(node, receiver, caplog):
    node.server()
    receiver.kill()
    waiting.until(lambda: _warnings(caplog))
    receiver.start()
    assert node.client(timeout=30).call({}, 'echo', value=1) == 1


# A fanout crosses the network once


def test_a_fanout_crosses_the_network_once(node, relay):
    between = relay()
    servers = [node.server(server=name) for name in 'abcde']
    client = node.client(fanout=True)
    for number in range(20):
        client.cast({}, 'note', value=number)
    for server in servers:
        waiting.until(lambda: sorted(server.endpoint.seen) == list(range(20)))
    assert between.counted(wire.FANOUT) == 20
    assert all(sorted(ids) == sorted(_instance(each).id for each in servers)
               for kind, ids in between.seen if kind == wire.FANOUT)


def test_a_fanout_crosses_once_amid_other_traffic(node, relay):
    between = relay()
    servers = [node.server(server=name) for name in 'abcde']
    transport = node.transport()
    client = node.client(transport)
    outbox = _parts(transport).outbox
    stopped = threading.Event()

    def cast():
        # A service that is a whole window behind gets its copy later, alone;
        # that is not to happen here, however slow the machine is.
        while not stopped.is_set():
            waiting.until(lambda: outbox.pending() < 300, 30)
            client.cast({}, 'echo', value='x' * 2000)

    threads = [threading.Thread(target=cast) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(50):
            client.prepare(fanout=True).cast({}, 'note', value=number)
        for server in servers:
            waiting.until(lambda: sorted(server.endpoint.seen)
                          == list(range(50)), 30)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert between.counted(wire.CAST) > 50
    assert between.counted(wire.FANOUT) == 50
    assert not _counters(transport).get('resent')


def test_fanouts_are_not_repeated_by_a_lost_acknowledgement(node, relay):
    def lose_one(message):
        is_ack = wire.decode(message).kind == wire.ACK
        lost.append(message) if is_ack and not lost else None
        return lost[-1:] != [message]

    lost = []
    relay(to_client=lose_one)
    servers = [node.server(server=name) for name in 'abc']
    transport = node.transport()
    node.client(transport, fanout=True).cast({}, 'note', value=1)
    waiting.until(lambda: _counters(transport).get('acknowledged') == 3)
    assert lost
    assert [each.endpoint.seen for each in servers] == [[1]] * 3


# Instances that are not there


def _list_a_stranger(parts, instance):
    """A record of a service that is not there, as a killed one leaves it."""
    stranger = type(instance)(os.urandom(16), instance.endpoints, '', True)
    parts.registry.register(stranger, [TOPIC])
    return stranger


def test_a_stale_record_is_refused_at_once_and_another_is_chosen(
        node, receiver, monkeypatch):
    # Whoever has to ask what became of a message does so late.
    for module, name in _QUESTIONS:
        monkeypatch.setattr(module, name, 60.0)
    server = node.server()
    _list_a_stranger(node.runtime(), _instance(server))
    client = node.client(timeout=60)
    for number in range(10):
        assert _seconds(client.call, {}, 'note', value=number) < 15
        client.cast({}, 'note', value=100 + number)
    waiting.until(lambda: len(server.endpoint.seen) == 20)
    assert len(set(server.endpoint.seen)) == 20
    node.stop(server)
    receiver.terminate()
    assert receiver.counters()['refused_gone'] >= 1


def test_a_fanout_to_a_stale_record_reaches_the_others_once(node, receiver):
    servers = [node.server(server=name) for name in 'ab']
    _list_a_stranger(node.runtime(), _instance(servers[0]))
    transport = node.transport()
    node.client(transport, fanout=True).cast({}, 'note', value=1)
    for server in servers:
        waiting.until(lambda: server.endpoint.seen == [1])
    waiting.until(lambda: _counters(transport).get('copies_for_gone') == 1)
    waiting.until(lambda: _parts(transport).outbox._custody.is_empty())


@pytest.mark.parametrize('monitor', [None, 30])
def test_a_call_ends_when_its_server_behind_the_receiver_is_killed(
        node, receiver, monitor):
    server = node.process()
    client = node.client(timeout=60, call_monitor_timeout=monitor)
    client.call({}, 'echo', value=1)
    threading.Timer(0.3, server.kill).start()
    assert _raises(errors.ServerGone, client.call, {}, 'sleep',
                   seconds=60) < 20


def test_one_of_three_killed_the_next_calls_succeed_at_once(
        node, receiver, monkeypatch):
    for module, name in _QUESTIONS:
        monkeypatch.setattr(module, name, 60.0)
    servers = [node.process(server=name) for name in 'abc']
    client = node.client(timeout=60)
    pids = {client.call({}, 'pid') for _ in range(6)}
    assert pids == {server.pid for server in servers}
    servers[0].kill()
    for _ in range(50):
        assert _seconds(client.call, {}, 'pid') < 15


def test_casts_to_a_killed_server_go_to_the_next(node, receiver):
    first = node.process(server='first')
    client = node.client()
    client.call({}, 'echo', value=1)
    first.kill()
    for number in range(20):
        client.cast({}, 'note', value=number)
    second = node.process(server='second')
    waiting.until(lambda: sorted(second.ask('seen')) == list(range(20)))


@pytest.mark.parametrize('monitor', [None, 60])
def test_a_paused_server_ends_its_calls_as_without_a_receiver(
        node, receiver, monitor):
    """README: one that is paused, within about six seconds."""
    server = node.process()
    client = node.client(timeout=40, call_monitor_timeout=monitor)
    client.call({}, 'echo', value=1)
    server.pause()
    try:
        assert _raises(errors.ServerGone, client.call, {}, 'pid') < 20
    finally:
        server.resume()


def test_a_call_that_is_long_on_its_way_is_not_given_up(node, relay):
    """A large request over a slow network is overtaken by the questions
    about it, which have a connection of their own.
    """
    held = []

    def hold_up(message):
        if wire.address(message)[0] != wire.CALL or held:
            return True
        held.append(message)
        return False

    between = relay(to_receiver=hold_up)
    server = node.server()
    result = []
    thread = threading.Thread(target=lambda: result.append(_outcome(
        node.client(timeout=8))))
    thread.start()
    waiting.until(lambda: between.counted(wire.QUERY) >= 2 or result, 20)
    began = time.monotonic()
    waiting.until(lambda: result or time.monotonic() > began + 3)
    thread.join()
    assert server.endpoint.seen == []
    # The call was dropped here; it may end only by its own timeout.
    assert result == ['MessagingTimeout']


def _outcome(client):
    try:
        return client.call({}, 'note', value=1)
    except oslo_messaging.MessagingTimeout as error:
        return type(error).__name__


def test_services_restarted_in_turn_fail_no_call(node, receiver):
    names = 'abc'
    servers = {name: node.server(server=name) for name in names}
    client = node.client(timeout=20)
    stopped, failures, counts = threading.Event(), [], [0] * 3

    def call(number):
        while not stopped.is_set():
            try:
                client.call({}, 'echo', value=1)
                counts[number] += 1
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=call, args=[n]) for n in range(3)]
    for thread in threads:
        thread.start()
    for name in names * 2:
        node.stop(servers[name])
        servers[name] = node.server(server=name)
        before = sum(counts)
        waiting.until(lambda: failures or sum(counts) > before + 50)
    stopped.set()
    for thread in threads:
        thread.join()
    assert not failures


def test_what_was_known_of_services_that_have_gone_is_forgotten(
        node, receiver):
    transport = node.transport(zmq_target_update=1, conn_pool_ttl=1)
    staying = node.server(server='staying')
    client = node.client(transport)
    for number in range(10):
        server = node.server(server=f'short-{number}')
        client.prepare(fanout=True).cast({}, 'note', value=number)
        waiting.until(lambda: server.endpoint.seen == [number])
        node.stop(server)
    waiting.until(lambda: len(staying.endpoint.seen) == 10)
    custody = _parts(transport).outbox._custody

    def few_lanes():
        client.prepare(fanout=True).cast({}, 'note', value='more')
        return len(list(custody._connections)) <= 2

    waiting.until(few_lanes, 30, 'lanes of services that are gone')


# Ids from the network


@pytest.mark.parametrize('instance', [
    b'../../../../etc/', b'/etc/passwd\0\0\0\0\0', b'\0' * 16, b'*' * 16,
    b'registry/.......', b'\xff' * 16, b'../../nova.sock\n'])
def test_ids_from_the_network_are_never_paths(node, receiver, instance):
    import zmq
    before = _files(node.ipc_dir)
    context = zmq.Context()
    peer = context.socket(zmq.DEALER)
    peer.connect(f'tcp://127.0.0.1:{receiver.port}')
    message_id = ids.new_id()
    for kind in (wire.CALL, wire.CAST, wire.NOTIFY, wire.QUERY):
        peer.send_multipart([b'', wire.encode(kind, instance, message_id,
                                              (b'{}', b'{}'))])
        assert peer.poll(20000)
        refusal = wire.decode(peer.recv_multipart()[1])
        assert wire.nack_reason(refusal) == (wire.GONE, '')
        assert (refusal.instance, refusal.id) == (instance, message_id)
    context.destroy(linger=0)
    assert _files(node.ipc_dir) == before


def _files(directory):
    return sorted(os.path.join(path, name)
                  for path, folders, names in os.walk(directory)
                  for name in (*folders, *names))
