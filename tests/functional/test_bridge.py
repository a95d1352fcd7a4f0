# SPDX-License-Identifier: Apache-2.0
"""The bridge to RabbitMQ: a process listens on both and sends over one."""

import collections
import contextlib
import pickle
import signal
import subprocess
import threading
import time
import uuid

import oslo_messaging
import pytest
from oslo_config import cfg
from oslo_messaging import transport as transport_module
from oslo_messaging._drivers import impl_rabbit

from tests.support import forks
from tests.support import processes
from tests.support import rabbit
from tests.support import rpc
from tests.support import servers
from tests.support import waiting
from zmq_threaded import driver as zmq_driver
from zmq_threaded import errors
from zmq_threaded.bridge import driver as bridge_driver
from zmq_threaded.bridge import other_listener
from zmq_threaded.bridge import patience

pytestmark = pytest.mark.xdist_group('rabbit')
NOWHERE = 'rabbit://guest:guest@127.0.0.1:1/'
AT_LEAST_ONCE = oslo_messaging.TransportOptions(at_least_once=True)
both_ways = pytest.mark.parametrize('send', ['other', 'zmq'])


@pytest.fixture(scope='module')
def broker():
    with rabbit.open_broker() as broker:
        yield broker


@pytest.fixture
def own_broker(no_leaks, monkeypatch):
    """One that the test may stop."""
    # pytest keeps what is logged, and that has hold of lost connections.
    monkeypatch.setattr(impl_rabbit.LOG.logger, 'disabled', True)
    with rabbit.open_broker() as broker:
        yield broker


@pytest.fixture
def topic():
    """One that no other test has, for they share the broker."""
    return f'topic-{uuid.uuid4().hex}'


class Bridge:
    """Transports of all kinds that a cloud has while it moves."""

    def __init__(self, node, broker):
        self.node, self.broker = node, broker

    def query(self, send='other'):
        return {'rpc_zmq_bridge': self.broker.url, 'rpc_zmq_bridge_send': send}

    def transport(self, send='other', **kwargs):
        return self.node.transport(**self.query(send), **kwargs)

    def notes(self, send='other'):
        return self.node.notification_transport(**self.query(send))

    def rabbit(self, kind='rpc'):
        """Without our driver."""
        make = getattr(oslo_messaging, f'get_{kind}_transport')
        transport = make(cfg.CONF, self.broker.url)
        self.node.closing(transport.cleanup)
        return transport


@pytest.fixture
def bridge(broker, node):
    return Bridge(node, broker)


# What is made


def test_without_a_bridge_there_is_the_driver_itself(node):
    assert type(node.transport()._driver) is zmq_driver.ZmqDriver


def test_with_a_bridge_there_is_a_driver_that_holds_two(node):
    made = node.transport(rpc_zmq_bridge='fake://')._driver
    assert type(made) is bridge_driver.BridgeDriver
    assert type(made.zmq) is zmq_driver.ZmqDriver


@pytest.mark.parametrize('url', [
    'nonsense', 'zmq://', 'zmq+redis://h', 'nonsense://h',
    'rabbit://user:s3cret/@host:5672/', 'rabbit://user:s3cret@host:s3cret/',
    '://', 'rabbit://[user:s3cret@h/'])
def test_a_wrong_url_is_refused_and_not_shown(node, url):
    with pytest.raises(errors.ConfigurationError) as raised:
        node.transport(rpc_zmq_bridge=url)
    assert 'rpc_zmq_bridge' in str(raised.value)
    assert 's3cret' not in str(raised.value)


def test_a_wrong_option_of_the_other_driver_is_told_at_the_start(node):
    url = 'rabbit://u:s3cret@h/?rpc_conn_pool_size=1'
    with pytest.raises(errors.ConfigurationError) as raised:
        node.transport(rpc_zmq_bridge=url)
    assert 'rpc_conn_pool_size' in str(raised.value)
    assert 's3cret' not in str(raised.value)


def test_a_password_is_not_logged(node, caplog, topic):
    caplog.set_level('DEBUG', 'zmq_threaded')
    transport = node.transport(
        rpc_zmq_bridge='rabbit://user:s3cret@127.0.0.1:1/')
    node.server(topic, transport=transport)
    assert 'rabbit://127.0.0.1:1' in caplog.text
    assert 's3cret' not in caplog.text


def test_a_driver_with_a_bridge_can_be_pickled(bridge, topic):
    transport = bridge.transport()
    made = pickle.loads(pickle.dumps(transport._driver))
    copy = transport_module.RPCTransport(made)
    bridge.node.closing(rpc._clean_up, copy)
    bridge.node.server(topic, transport=transport)
    assert bridge.node.client(copy, topic=topic).call(
        {}, 'echo', value=1) == 1


# RPC


@both_ways
def test_all_of_two_neighbouring_steps_call_each_other(bridge, topic, send):
    node = bridge.node
    node.server(topic, 'bridged', transport=bridge.transport(send))
    plain = node.transport() if send == 'zmq' else bridge.rabbit()
    node.server(topic, 'plain', transport=plain)
    for transport in plain, bridge.transport(send):
        for server in 'bridged', 'plain':
            client = node.client(transport, topic=topic, server=server)
            assert client.call({}, 'echo', value=server) == server


@pytest.mark.parametrize('kind', ['zmq', 'rabbit'])
def test_a_server_with_a_bridge_is_called_over_both(bridge, topic, kind):
    node = bridge.node
    server = node.server(topic, transport=bridge.transport())
    client = node.client(node.transport() if kind == 'zmq'
                         else bridge.rabbit(), topic=topic)
    assert client.call({}, 'echo', value=[1, None]) == [1, None]
    with pytest.raises(ValueError, match='on purpose'):
        client.call({}, 'fail', text='on purpose')
    client.cast({}, 'note', value='cast')
    client.prepare(fanout=True).cast({}, 'note', value='fanout')
    waiting.until(lambda: len(server.endpoint.seen) == 2)
    assert sorted(server.endpoint.seen) == ['cast', 'fanout']


@both_ways
def test_it_sends_over_the_one_that_is_named(bridge, topic, send):
    node = bridge.node
    node.server(topic, transport=bridge.transport(send))
    transport = bridge.transport(send)
    client = node.client(transport, topic=topic)
    client.cast({}, 'note', value=1)
    client.call({}, 'echo', value=1)
    assert transport._driver.counters().get('sent', 0) == (
        2 if send == 'zmq' else 0)


@both_ways
def test_everything_arrives_once(bridge, topic, send):
    node = bridge.node
    listening = [node.server(topic, name, transport=bridge.transport(send))
                 for name in 'abc']
    for sends in 'other', 'zmq':
        client = node.client(bridge.transport(sends), topic=topic)
        for number in range(50):
            client.cast({}, 'note', value=f'{sends}-{number}')
            client.prepare(fanout=True).cast({}, 'note',
                                             value=f'fanout-{sends}-{number}')
    expected = {f'{sends}-{number}': 1 for sends in ('other', 'zmq')
                for number in range(50)}
    expected |= {f'fanout-{token}': 3 for token in expected}
    waiting.until(lambda: _counted(listening).total() >= 400, 20)
    time.sleep(0.2)     # for what comes twice
    assert _counted(listening) == expected


def _counted(listening):
    return collections.Counter(
        value for each in listening for value in each.endpoint.seen)


@both_ways
def test_errors_keep_their_meaning(bridge, topic, send):
    node = bridge.node
    node.server(topic, transport=bridge.transport(send))
    client = node.client(bridge.transport(
        send, allowed_remote_exmods=['builtins']), topic=topic)
    with pytest.raises(ValueError, match='on purpose'):
        client.call({}, 'fail', text='on purpose')
    nobody = client.prepare(topic=f'{topic}-nobody', timeout=0.5)
    with pytest.raises(oslo_messaging.MessagingTimeout):
        nobody.call({}, 'echo', value=1)


@both_ways
def test_at_least_once(bridge, topic, send):
    node = bridge.node
    server = node.server(topic, transport=bridge.transport(send))
    transport = bridge.transport(send)
    client = node.client(transport, topic=topic,
                         transport_options=AT_LEAST_ONCE)
    client.cast({}, 'note', value=1)
    waiting.until(lambda: server.endpoint.seen == [1])
    with pytest.raises(oslo_messaging.MessageUndeliverable):
        client.prepare(topic=f'{topic}-nobody').call({}, 'echo', value=1)


@both_ways
def test_monitored_call(bridge, topic, send):
    node = bridge.node
    server = node.server(topic, transport=bridge.transport(send))
    client = node.client(bridge.transport(send), topic=topic,
                         call_monitor_timeout=4)
    threading.Timer(5.5, server.endpoint.release.set).start()
    assert client.call({}, 'wait', value=5) == 5


def test_an_endpoint_that_exits_ends_no_worker(bridge, topic):
    class Exits(rpc.Recorder):
        def leave(self, ctxt):
            raise SystemExit(1)

    node = bridge.node
    # futurist's own ends a worker, for a message of the other driver.
    node.server(topic, transport=bridge.transport(rpc_zmq_executor='fast'),
                endpoint=Exits(), workers=1)
    client = node.client(bridge.rabbit(), topic=topic)
    client.cast({}, 'leave')
    assert client.call({}, 'echo', value=1) == 1


# Notifications


@both_ways
def test_notifications_come_once_to_each_pool(bridge, topic, send):
    node = bridge.node
    pools = {pool: [node.listener(topic, pool and f'{topic}-{pool}',
                                  transport=bridge.notes(send))
                    for _ in range(2)] for pool in (None, 'a', 'b')}
    for sends in 'other', 'zmq':
        notifier = node.notifier(topic, bridge.notes(sends))
        for number in range(30):
            notifier.info({}, 'event', f'{sends}-{number}')
    expected = {f'{sends}-{number}': 1 for sends in ('other', 'zmq')
                for number in range(30)}
    for members in pools.values():
        waiting.until(lambda: sum(len(each.seen) for each in members) >= 60,
                      20)
        assert collections.Counter(
            value for each in members for value in each.seen) == expected


class Reluctant(rpc.Notes):
    """Takes each notification at its second coming."""

    def info(self, ctxt, publisher, event_type, payload, metadata):
        self.seen.append(payload)
        return (oslo_messaging.NotificationResult.REQUEUE
                if self.seen.count(payload) == 1
                else oslo_messaging.NotificationResult.HANDLED)


@both_ways
def test_what_is_requeued_comes_again_the_same_way(bridge, topic, send):
    node = bridge.node
    endpoint = Reluctant()
    listening = oslo_messaging.get_notification_listener(
        bridge.notes(send), [oslo_messaging.Target(topic=topic)], [endpoint],
        allow_requeue=True)
    listening.endpoint = endpoint
    listening.start()
    node.closing(node.stop, listening)
    node.notifier(topic, bridge.notes(send)).info({}, 'event', 1)
    waiting.until(lambda: endpoint.seen == [1, 1])
    time.sleep(0.2)
    assert endpoint.seen == [1, 1]


class Batches:
    def __init__(self):
        self.sizes = []

    def info(self, messages):
        self.sizes.append(len(messages))


@both_ways
def test_batches(bridge, topic, send):
    node = bridge.node
    endpoint = Batches()
    listening = oslo_messaging.get_batch_notification_listener(
        bridge.notes(send), [oslo_messaging.Target(topic=topic)], [endpoint],
        batch_size=5, batch_timeout=2)
    listening.endpoint = endpoint
    listening.start()
    node.closing(node.stop, listening)
    notifier = node.notifier(topic, bridge.notes(send))
    for number in range(10):
        notifier.info({}, 'event', number)
    waiting.until(lambda: sum(endpoint.sizes) == 10)
    assert max(endpoint.sizes) <= 5 and len(endpoint.sizes) <= 4


def test_rpc_over_zmq_and_notifications_over_rabbit_in_one_process(
        bridge, topic):
    node = bridge.node
    node.server(topic)
    notes = bridge.rabbit('notification')
    listening = node.listener(topic, transport=notes)
    node.notifier(topic, bridge.rabbit('notification')).info({}, 'event', 1)
    assert node.client(topic=topic).call({}, 'echo', value=1) == 1
    waiting.until(lambda: listening.seen == [1])


# What the operator is told


@pytest.mark.parametrize('how', ['call', 'cast', 'fanout', 'notify'])
def test_who_sends_over_zmq_to_nobody_is_reminded_once(
        bridge, topic, how, caplog):
    node = bridge.node
    client = node.client(bridge.transport('zmq'), topic=topic, timeout=0.5)
    notifier = node.notifier(topic, bridge.notes('zmq'))
    for _ in range(3):
        if how == 'call':
            with pytest.raises(oslo_messaging.MessagingTimeout):
                client.call({}, 'echo', value=1)
        elif how == 'notify':
            notifier.info({}, 'event', 1)
        else:
            client.prepare(fanout=how == 'fanout').cast({}, 'note', value=1)
        waiting.until(lambda: _reminders(caplog))
    assert len(_reminders(caplog)) == 1
    assert topic in _reminders(caplog)[0]


def _reminders(caplog):
    return [record.getMessage() for record in caplog.records
            if 'Nobody listens over zmq' in record.getMessage()]


@both_ways
def test_who_finds_somebody_is_not_reminded(bridge, topic, send, caplog):
    node = bridge.node
    server = node.server(topic, transport=bridge.transport(send))
    client = node.client(bridge.transport(send), topic=topic)
    for _ in range(3):
        client.cast({}, 'note', value=1)
    client.call({}, 'echo', value=1)
    waiting.until(lambda: len(server.endpoint.seen) == 3)
    assert not _reminders(caplog)


def test_nothing_falls_back(bridge, topic):
    """The one on rabbit does not get what was sent over zmq."""
    node = bridge.node
    server = node.server(topic, transport=bridge.rabbit())
    client = node.client(bridge.transport('zmq'), topic=topic, timeout=0.5)
    client.cast({}, 'note', value=1)
    with pytest.raises(oslo_messaging.MessagingTimeout):
        client.call({}, 'echo', value=1)
    assert server.endpoint.seen == []


# Forks, signals, the end


@both_ways
def test_a_transport_that_was_used_bears_a_fork(bridge, topic, send):
    node = bridge.node
    transport = bridge.transport(send)
    node.server(topic, transport=bridge.transport(send))

    def calls(name):
        server = oslo_messaging.get_rpc_server(
            transport, oslo_messaging.Target(topic=topic, server=name),
            [rpc.Recorder()])
        server.start()
        client = node.client(transport, topic=topic, timeout=20)
        said = [client.call({}, 'echo', value=f'{name}-{number}')
                for number in range(20)]
        said.append(client.prepare(server=name).call({}, 'echo', value=name))
        server.stop()
        server.wait()
        transport.cleanup()
        return said

    client = node.client(transport, topic=topic)
    assert client.call({}, 'echo', value=1) == 1
    children = [forks.Forked(calls, name) for name in 'xy']
    for number in range(20):
        assert client.call({}, 'echo', value=number) == number
    for name, child in zip('xy', children):
        assert child.result(60) == [
            f'{name}-{number}' for number in range(20)] + [name]
    assert client.call({}, 'echo', value=2) == 2


def test_a_forked_child_does_not_stop_its_parents_listener(bridge, topic):
    node = bridge.node
    server = node.server(topic, transport=bridge.transport())

    def stop():
        server.stop()
        server.wait()

    forks.Forked(stop).result(20)
    for transport in node.transport(), bridge.rabbit():
        assert node.client(transport, topic=topic).call(
            {}, 'echo', value=1) == 1


@both_ways
def test_stop_and_wait_in_a_signal_handler(bridge, send):
    url = bridge.node.url(**bridge.query(send))
    popen = subprocess.Popen(
        processes.command('signal_main.py', url), stdout=subprocess.PIPE,
        text=True, env=processes.ENVIRONMENT)
    try:
        assert popen.stdout.readline() == 'ready\n'
        time.sleep(0.5)
        popen.send_signal(signal.SIGTERM)
        assert popen.stdout.readline() == 'stopped\n'
        assert popen.wait(20) == 0
    finally:
        popen.kill()
        popen.wait()
        popen.stdout.close()


def test_start_again_and_stop_without_a_start(bridge, topic):
    node = bridge.node
    server = node.server(topic, transport=bridge.transport())
    server.stop()
    server.wait()
    server.start()
    for transport in node.transport(), bridge.rabbit():
        assert node.client(transport, topic=topic).call(
            {}, 'echo', value=1) == 1
    made = bridge.transport()._driver.listen(
        oslo_messaging.Target(topic=topic, server='other'), 1, None)
    made.stop()
    made.cleanup()
    made.cleanup()


@both_ways
def test_cleanup_and_a_later_use(bridge, topic, send):
    node = bridge.node
    node.server(topic, transport=bridge.transport(send))
    transport = bridge.transport(send)
    client = node.client(transport, topic=topic)
    for _ in range(2):
        assert client.call({}, 'echo', value=1) == 1
        transport.cleanup()
        transport.cleanup()


def test_what_comes_while_a_server_stops_goes_to_another(bridge, topic):
    """The rabbit driver loses it."""
    node = bridge.node
    stopping = node.server(topic, 'a', transport=bridge.transport())
    client = node.client(bridge.rabbit(), topic=topic)
    sent, over = [], threading.Event()

    def cast():
        while not over.is_set():
            client.cast({}, 'note', value=len(sent))
            sent.append(len(sent))

    casting = threading.Thread(target=cast)
    casting.start()
    waiting.until(lambda: len(sent) > 20)
    stopping.stop()
    during = len(sent)
    waiting.until(lambda: len(sent) > during + 20)
    stopping.wait()
    other = node.server(topic, 'b', transport=bridge.transport())
    over.set()
    casting.join()
    both = stopping.endpoint.seen, other.endpoint.seen
    waiting.until(lambda: sum(map(len, both)) >= len(sent))
    time.sleep(0.2)
    assert sorted(sum(both, [])) == sent


# One of the two is down


def _start_timed(node, topic, transport):
    began = time.monotonic()
    server = node.server(topic, transport=transport)
    return server, time.monotonic() - began


def test_a_service_starts_without_the_broker(node, topic, caplog,
                                             monkeypatch):
    # So long it would wait for one that hangs.
    monkeypatch.setattr(other_listener, '_START_LIMIT', 60.0)
    monkeypatch.setattr(patience, 'LIMIT', 60.0)
    transport = node.transport(rpc_zmq_bridge=NOWHERE)
    server, took = _start_timed(node, topic, transport)
    assert took < 20
    assert 'cannot listen on rabbit://127.0.0.1:1' in caplog.text
    assert node.client(topic=topic).call({}, 'echo', value=1) == 1
    began = time.monotonic()
    server.stop()
    server.wait()
    assert time.monotonic() - began < 20


def test_a_broker_that_hangs_holds_up_nobody_for_ever(own_broker, node,
                                                      topic, caplog):
    own_broker.pause()
    bridge = Bridge(node, own_broker)
    server, took = _start_timed(node, topic, bridge.transport())
    assert took < 5 + 15
    assert 'does not listen on rabbit://' in caplog.text
    assert node.client(topic=topic).call({}, 'echo', value=1) == 1
    own_broker.resume()
    client = node.client(bridge.rabbit(), topic=topic, timeout=2)
    waiting.until(lambda: _answers(client), 60)


def test_a_broker_that_hangs_holds_up_the_end_of_a_process_once(
        own_broker, node, topic):
    transport = Bridge(node, own_broker).transport()
    running = [node.server(topic, name, transport=transport)
               for name in ('a', 'b', 'c')]
    own_broker.pause()
    began = time.monotonic()
    for each in running:
        each.stop()
        each.wait()
    transport.cleanup()
    took = time.monotonic() - began
    own_broker.resume()
    assert took < 12 + 15    # not 12 seconds for each


def test_a_broker_that_comes_later_is_listened_to(own_broker, node, topic):
    own_broker.kill()
    bridge = Bridge(node, own_broker)
    server, _ = _start_timed(node, topic, bridge.transport())
    own_broker.start()
    client = node.client(bridge.rabbit(), topic=topic, timeout=2)
    waiting.until(lambda: _answers(client), 60)


def test_a_broker_that_is_killed_does_not_disturb_zmq(own_broker, node,
                                                      topic):
    bridge = Bridge(node, own_broker)
    node.server(topic, transport=bridge.transport('zmq'))
    client = node.client(bridge.transport('zmq'), topic=topic, timeout=30)
    sender = node.client(bridge.transport('other'), topic=topic, timeout=5,
                         retry=0)
    assert sender.prepare(timeout=30).call({}, 'echo', value=1) == 1
    own_broker.kill()
    for number in range(20):
        assert client.call({}, 'echo', value=number) == number
    with pytest.raises(oslo_messaging.MessageDeliveryFailure):
        sender.cast({}, 'note', value=1)
    own_broker.start()
    waiting.until(lambda: _answers(sender), 60)


def _answers(client):
    with contextlib.suppress(oslo_messaging.MessagingException):
        return client.call({}, 'echo', value=True)


def test_a_registry_that_is_paused_does_not_disturb_rabbit(broker, node,
                                                           topic):
    with servers.open_engine('redis') as engine:
        bridge = Bridge(node, broker)
        query = {'rpc_zmq_matchmaker': engine.url,
                 'rpc_zmq_topology': 'direct', 'rpc_zmq_transport': 'ipc'}
        transport = bridge.transport(**query)
        node.server(topic, 'before', transport=transport)
        client = node.client(bridge.transport(**query), topic=topic)
        with servers.out_of_order(engine, 'pause', 0):
            for server in 'before', 'after':
                if server == 'after':
                    node.server(topic, server,
                                transport=bridge.transport(**query))
                assert client.prepare(server=server).call(
                    {}, 'echo', value=server) == server
        over_zmq = node.client(bridge.transport('zmq', **query), topic=topic,
                               server='after', timeout=20)
        assert over_zmq.call({}, 'echo', value=1) == 1
