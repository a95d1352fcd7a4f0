# SPDX-License-Identifier: Apache-2.0
"""What each live option does to a real driver."""

import contextlib
import importlib.util
import os
import queue
import socket
import threading
import time

import oslo_messaging
import pytest
import zmq

from tests.support import ids
from tests.support import leaks
from tests.support import ports
from tests.support import rpc
from tests.support import waiting
from zmq_threaded import errors
from zmq_threaded import sockets
from zmq_threaded import topic
from zmq_threaded import wire
from zmq_threaded.client import outbox as outboxes
from zmq_threaded.net import binding
from zmq_threaded.registry import engines
from zmq_threaded.registry import record
from zmq_threaded.service import executors

TOPIC = topic.rpc('openstack', 'topic')
# An address of nobody (RFC 5737).
UNREACHABLE = '203.0.113.1'


def _seconds(function, *args, **kwargs):
    started = time.monotonic()
    function(*args, **kwargs)
    return time.monotonic() - started


def _echo(parts):
    """A started service that replies with what it gets."""
    service = parts.service([TOPIC])
    service.start(executors.submitting(
        executors.load('synchronous'),
        lambda ctxt, message: message['args']['value']))
    return service


class Gate:
    """A started service that takes its time: a message is acknowledged when
    the test says so.
    """

    def __init__(self, parts):
        self.delivered = []
        self.acknowledged = self.most_held = 0
        self.service = parts.service([TOPIC])
        self.service.start(self._on_incoming)

    def _on_incoming(self, messages):
        self.delivered += messages
        self.most_held = max(self.most_held,
                             len(self.delivered) - self.acknowledged)

    def wait_for(self, count):
        waiting.until(lambda: len(self.delivered) >= count)
        assert len(self.delivered) == count

    def values(self):
        return [each.message['args']['value'] for each in self.delivered]

    def acknowledge(self, count=1):
        for _ in range(count):
            self.acknowledged += 1
            self.delivered[self.acknowledged - 1].acknowledge()


def _parts(transport):
    return rpc.driver(transport)._parts()


def _listen(transport):
    # As a server does it, which should make a ServerListenError of what is
    # raised; oslo.messaging 18.3.1 fails at that ("no attribute 'target'").
    transport._listen(
        oslo_messaging.Target(topic='topic', server='server'), 1, None)


# rpc_zmq_ipc_dir


def test_ipc_dir_has_the_socket(node, ipc_dir):
    service = _echo(node.runtime())
    path = os.path.join(ipc_dir, service.instance.id.hex() + '.sock')
    assert service.instance.endpoints == (f'ipc://{path}',)
    assert os.path.exists(path)
    service.cleanup()
    assert not os.path.exists(path)


def test_two_ipc_dirs_do_not_meet(node, ipc_dir):
    other = os.path.join(ipc_dir, 'other')
    _echo(node.runtime())
    client = node.client(node.transport(rpc_zmq_ipc_dir=other), timeout=0.5)
    with pytest.raises(oslo_messaging.MessagingTimeout):
        client.call({}, 'echo', value=1)
    _echo(node.runtime(rpc_zmq_ipc_dir=other))
    assert client.prepare(timeout=10).call({}, 'echo', value=2) == 2


def test_unusable_ipc_dir_is_named_at_once(node, ipc_dir):
    path = os.path.join(ipc_dir, 'file')
    open(path, 'w').close()
    with pytest.raises(errors.ConfigurationError, match='rpc_zmq_ipc_dir'):
        node.transport(rpc_zmq_ipc_dir=path)


def test_ipc_dir_that_cannot_be_made_is_named_when_it_is_used(node):
    transport = node.transport(rpc_zmq_ipc_dir='/proc/nowhere')
    with pytest.raises(oslo_messaging.ClientSendError,
                       match='rpc_zmq_ipc_dir'):
        node.client(transport).call({}, 'echo', value=1)
    with pytest.raises(errors.ConfigurationError, match='rpc_zmq_ipc_dir'):
        _listen(transport)


def test_ipc_dir_that_is_too_long_for_a_socket_is_named(node, ipc_dir):
    transport = node.transport(rpc_zmq_ipc_dir=f'{ipc_dir}/{80 * "x"}')
    with pytest.raises(errors.ListenError, match='rpc_zmq_ipc_dir'):
        _listen(transport)


# rpc_zmq_matchmaker


@pytest.mark.parametrize('name', ['embedded', 'dummy'])
def test_embedded_matchmaker_by_either_name(node, name):
    _echo(node.runtime(rpc_zmq_matchmaker=name))
    client = node.client(node.transport(rpc_zmq_matchmaker=name))
    assert client.call({}, 'echo', value=1) == 1


@pytest.mark.parametrize('name', ['mongodb', 'mongodb://localhost'])
def test_matchmaker_that_there_is_not_is_refused(node, name):
    with pytest.raises(errors.ConfigurationError,
                       match='rpc_zmq_matchmaker.*mongodb'):
        node.transport(rpc_zmq_matchmaker=name)


def test_matchmaker_whose_library_is_missing_is_refused(node, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: (
        None if name == 'kazoo' else find(name)))
    with pytest.raises(errors.ConfigurationError,
                       match=r'pip install zmq-threaded\[zookeeper\]'):
        node.transport(rpc_zmq_matchmaker='zookeeper')


# rpc_zmq_transport, rpc_zmq_bind_address, rpc_zmq_host


def _tcp(bind='127.0.0.1', host='127.0.0.1', lowest=None, highest=None,
         **query):
    """The query of a service that is reached over TCP."""
    lowest = lowest or ports.free_port()
    return {'rpc_zmq_transport': 'tcp', 'rpc_zmq_bind_address': bind,
            'rpc_zmq_host': host, 'rpc_zmq_min_port': lowest,
            'rpc_zmq_max_port': highest or lowest, **query}


def _listening(port):
    return socket.create_server(('127.0.0.1', port))


def _port(service):
    return int(service.instance.endpoints[1].rpartition(':')[2])


def _cut_off_ipc(service):
    """From now on nobody reaches the service over IPC."""
    service._ipc.is_lost = lambda: False    # nor does it notice
    os.unlink(service.instance.endpoints[0].removeprefix('ipc://'))


def _connects(address, port):
    try:
        socket.create_connection((address, port), 5).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return False
    return True


def test_without_tcp_nothing_listens_on_tcp(node):
    assert len(_echo(node.runtime()).instance.endpoints) == 1


@pytest.mark.parametrize('bind, host', [
    ('127.0.0.1', '127.0.0.1'), ('127.0.0.1', 'localhost'), ('::1', '::1'),
    ('[::1]', '[::1]'), ('*', '127.0.0.1'), ('*', '::1'),
    ('lo', '127.0.0.1')])
def test_client_without_ipc_goes_over_tcp(node, bind, host):
    service = _echo(node.runtime(**_tcp(bind, host)))
    _cut_off_ipc(service)
    client = node.client()
    assert client.call({}, 'echo', value='call') == 'call'
    client.cast({}, 'echo', value='cast')


def test_casts_arrive_over_tcp(node):
    gate = Gate(node.runtime(**_tcp()))
    _cut_off_ipc(gate.service)
    client = node.client()
    for number in range(100):
        client.cast({}, 'note', value=number)
    gate.wait_for(100)
    assert sorted(gate.values()) == list(range(100))
    gate.acknowledge(100)


def test_client_on_this_machine_prefers_ipc(node):
    service = _echo(node.runtime(**_tcp(host=UNREACHABLE)))
    assert node.client().call({}, 'echo', value=1) == 1
    assert service.instance.endpoints[0].startswith('ipc://')


def test_only_the_bind_address_listens(node):
    port = _port(_echo(node.runtime(**_tcp())))
    assert _connects('127.0.0.1', port)
    assert not _connects('127.0.0.2', port)
    assert not _connects('::1', port)


@pytest.mark.parametrize('is_open', [False, True])
def test_open_ports_are_warned_of_once_at_the_start(node, caplog, is_open):
    parts = node.runtime(**(_tcp(highest=65535) if is_open else {}))
    for _ in range(2):
        _echo(parts)
    assert caplog.text.count('open without encryption') == is_open


def test_star_listens_on_all_addresses(node):
    port = _port(_echo(node.runtime(**_tcp('*'))))
    assert all(_connects(address, port)
               for address in ('127.0.0.1', '127.0.0.2', '::1'))


@pytest.mark.parametrize('host, shown', [
    ('node-1', 'node-1'), ('2001:db8::1', '[2001:db8::1]')])
def test_host_is_what_others_are_told(node, host, shown):
    service = _echo(node.runtime(**_tcp(host=host)))
    assert service.instance.endpoints[1] == f'tcp://{shown}:{_port(service)}'


@pytest.mark.parametrize('address', [UNREACHABLE, 'no-such-interface'])
def test_bind_address_that_is_not_ours_is_named(node, address):
    with pytest.raises(binding.BindError, match='rpc_zmq_bind_address'):
        node.runtime(**_tcp(address)).service([TOPIC])


# rpc_zmq_min_port, rpc_zmq_max_port, rpc_zmq_bind_port_retries


def test_ports_are_of_the_range(node):
    free = ports.free_ports(4)
    parts = node.runtime(**_tcp(lowest=free[0], highest=free[-1]))
    assert {_port(_echo(parts)) for _ in range(4)} == set(free)


def test_range_that_is_taken_names_its_options(node):
    query = _tcp()
    with _listening(query['rpc_zmq_min_port']):
        with pytest.raises(errors.ListenError) as raised:
            _listen(node.transport(**query))
    for text in ('rpc_zmq_min_port', 'rpc_zmq_max_port',
                 str(query['rpc_zmq_min_port'])):
        assert text in str(raised.value)


def _bind_result(parts):
    """The port that a new service got, or why it got none."""
    try:
        service = parts.service([TOPIC])
    except binding.BindError as error:
        return str(error)
    service.cleanup()
    # ZeroMQ closes sockets in the background.
    waiting.until(lambda: not _connects('127.0.0.1', _port(service)))
    return _port(service)


def test_one_try_does_not_always_find_the_free_port(node):
    first = ports.free_ports(2)[0]
    parts = node.runtime(**_tcp(lowest=first, highest=first + 1,
                                rpc_zmq_bind_port_retries=1))
    with _listening(first):
        results = {_bind_result(parts) for _ in range(50)}
    assert first + 1 in results
    refusal, = results - {first + 1}
    assert '1 tries' in refusal


def test_two_tries_always_find_the_free_one_of_two_ports(node):
    first = ports.free_ports(2)[0]
    parts = node.runtime(**_tcp(lowest=first, highest=first + 1,
                                rpc_zmq_bind_port_retries=2))
    with _listening(first):
        assert {_bind_result(parts) for _ in range(20)} == {first + 1}


# Sockets


@pytest.fixture
def opened(node):
    """opened(kind, **query): a socket of the kind that the driver opens."""
    with contextlib.ExitStack() as stack:
        def make(kind, **query):
            settings = node.settings(**query)
            context = sockets.new_context(settings)
            stack.callback(context.destroy, linger=0)
            made = sockets.Sockets(context, settings)
            if kind == 'router':
                return made.router()
            return getattr(made, kind)('tcp://127.0.0.1:1')
        yield make


KEEPALIVE = {'zmq_tcp_keepalive': (zmq.TCP_KEEPALIVE, 1),
             'zmq_tcp_keepalive_idle': (zmq.TCP_KEEPALIVE_IDLE, 22),
             'zmq_tcp_keepalive_cnt': (zmq.TCP_KEEPALIVE_CNT, 3),
             'zmq_tcp_keepalive_intvl': (zmq.TCP_KEEPALIVE_INTVL, 24)}
KINDS = ['request', 'dealer', 'router']


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', KEEPALIVE)
def test_keepalive_option_is_set_on_the_socket(opened, kind, name):
    option, value = KEEPALIVE[name]
    assert opened(kind, **{name: value}).get(option) == value
    assert opened(kind).get(option) == -1


def test_keepalive_can_be_switched_off(opened):
    assert opened('request', zmq_tcp_keepalive=0).get(zmq.TCP_KEEPALIVE) == 0


def test_keepalive_reaches_the_kernel(node):
    query = _tcp(zmq_tcp_keepalive=1, zmq_tcp_keepalive_idle=100)
    _cut_off_ipc(_echo(node.runtime(**query)))
    client = node.client(node.transport(zmq_tcp_keepalive=1,
                                        zmq_tcp_keepalive_idle=100))
    client.call({}, 'echo', value=1)
    # The connection has two ends, and both are in this process.
    waiting.until(lambda: _keepalive_timers(query['rpc_zmq_min_port']) == 2)


def _keepalive_timers(port):
    """How many established connections have this port at either end and a
    keepalive timer (proc_net_tcp.rst: tr is 2).
    """
    count = 0
    for table in ('/proc/net/tcp', '/proc/net/tcp6'):
        with open(table) as lines:
            for line in list(lines)[1:]:
                _, local, remote, state, _, timer, *_ = line.split()
                count += (f':{port:04X}' in (local[-5:], remote[-5:])
                          and state == '01' and timer.startswith('02:'))
    return count


@pytest.mark.parametrize('given, milliseconds', [
    (0, 0), (5, 5000), (-1, 30000), (100, 30000)])
def test_linger_is_set_on_the_socket(opened, given, milliseconds):
    assert opened('router', zmq_linger=given).get(
        zmq.LINGER) == milliseconds


@pytest.mark.parametrize('linger', [0, 2])
def test_linger_is_how_long_a_client_that_does_not_read_is_waited_for(
        node, linger):
    parts = node.runtime(zmq_linger=linger)
    gate = Gate(parts)
    with _dealer(gate.service, receive_limit=1) as dealer:
        for _ in range(20):
            dealer.send_multipart(_call(gate.service, ids.new_id()))
        gate.wait_for(20)
        for each in gate.delivered:
            each.acknowledge()
            each.reply('x' * 1_000_000)
        closing = _seconds(parts.close, time.monotonic())
    assert linger <= closing < linger + 1.5


@pytest.mark.parametrize('count', [1, 3])
def test_contexts_is_the_number_of_io_threads(node, count):
    before = _io_threads()
    _echo(node.runtime(rpc_zmq_contexts=count))
    assert _io_threads() - before == count


def _io_threads():
    return sum(_thread_name(task).startswith('ZMQbg/IO')
               for task in os.listdir('/proc/self/task'))


def _thread_name(task):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        with open(f'/proc/self/task/{task}/comm') as comm:
            return comm.read().strip()
    return ''


# rpc_zmq_topic_backlog


def test_service_holds_no_more_than_its_backlog(node):
    gate = Gate(node.runtime(rpc_zmq_topic_backlog=3))
    client = node.client()
    for number in range(50):
        client.cast({}, 'note', value=number)
    gate.wait_for(3)
    for count in range(4, 51):
        gate.acknowledge()
        gate.wait_for(count)
    gate.acknowledge(3)
    assert gate.most_held == 3
    assert sorted(gate.values()) == list(range(50))


def test_one_busy_worker_behind_a_small_backlog_loses_nothing(node):
    transport = node.transport(rpc_zmq_topic_backlog=3)
    server = node.server(transport=transport, workers=1)
    client = node.client()
    client.cast({}, 'wait', value='busy')
    waiting.until(lambda: server.endpoint.seen == ['busy'])
    for number in range(50):
        client.cast({}, 'note', value=number)
    held = _parts(transport)._services[0]._reception.held
    waiting.until(lambda: len(held) == 3)
    server.endpoint.release.set()
    counts = []
    waiting.until(lambda: counts.append(len(held))
                  or len(server.endpoint.seen) == 51)
    assert max(counts) <= 3
    assert sorted(server.endpoint.seen[1:]) == list(range(50))


# rpc_zmq_outbox_limit, rpc_cast_timeout, rpc_message_ttl


def test_outbox_to_nobody_drops_the_oldest(node, caplog):
    transport = node.transport(rpc_zmq_outbox_limit=5, rpc_cast_timeout=60)
    client = node.client(transport)
    for number in range(20):
        assert _seconds(client.cast, {}, 'note', value=number) < 20
    counters = rpc.driver(transport).counters
    waiting.until(lambda: counters().get('dropped') == 15)
    assert 'rpc_zmq_outbox_limit' in caplog.text
    gate = Gate(node.runtime())
    gate.wait_for(5)
    assert sorted(gate.values()) == [15, 16, 17, 18, 19]
    gate.acknowledge(5)
    assert counters()['dropped'] == 15


def test_outbox_to_a_slow_service_makes_casts_wait_and_then_fail(node):
    gate = Gate(node.runtime())
    client = node.client(node.transport(rpc_zmq_outbox_limit=3,
                                        rpc_cast_timeout=1), timeout=60)
    for number in range(3):
        client.cast({}, 'note', value=number)
    gate.wait_for(3)

    def refused():
        with pytest.raises(oslo_messaging.MessageDeliveryFailure,
                           match='rpc_cast_timeout'):
            client.cast({}, 'note', value='too many')
    assert 1 <= _seconds(refused) < 1 + 20
    gate.acknowledge(3)
    assert sorted(gate.values()) == [0, 1, 2]


def test_cast_that_waits_for_room_goes_on_when_there_is_room(node):
    gate = Gate(node.runtime())
    client = node.client(node.transport(rpc_zmq_outbox_limit=3,
                                        rpc_cast_timeout=60))
    for number in range(3):
        client.cast({}, 'note', value=number)
    gate.wait_for(3)
    threads = [threading.Thread(target=client.cast, args=({}, 'note'),
                                kwargs={'value': number})
               for number in range(3, 6)]
    for thread in threads:
        thread.start()
    for count in range(4, 7):
        gate.acknowledge()
        gate.wait_for(count)
    for thread in threads:
        thread.join(60)
    gate.acknowledge(3)
    assert sorted(gate.values()) == list(range(6))


@pytest.mark.parametrize('senders', [1, 3])
def test_outbox_of_one_message_never_stalls(node, senders, monkeypatch):
    # An outbox that misses its waking sleeps for so long.
    monkeypatch.setattr(outboxes, '_IDLE_TICK', 60.0)
    noted = []
    service = node.runtime().service([TOPIC])
    service.start(executors.submitting(
        executors.load('synchronous'),
        lambda ctxt, message: noted.append(message['args']['value'])))
    client = node.client(node.transport(rpc_zmq_outbox_limit=1,
                                        rpc_cast_timeout=60))
    slowest = []

    def cast():
        slowest.append(max(_seconds(client.cast, {}, 'note', value=number)
                           for number in range(500)))
    threads = [threading.Thread(target=cast) for _ in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(slowest) == senders
    assert max(slowest) < 20
    waiting.until(lambda: len(noted) == 500 * senders, 30)


def test_cleanup_waits_cast_timeout_for_what_nobody_takes(node, caplog):
    transport = node.transport(rpc_cast_timeout=1)
    node.client(transport).cast({}, 'note', value=1)
    assert 1 <= _seconds(transport.cleanup) < 1 + 20
    assert 'was dropped' in caplog.text


@pytest.mark.parametrize('timeout', [0, 60])
def test_cleanup_does_not_wait_when_everything_is_acknowledged(node, timeout):
    gate = Gate(node.runtime())
    transport = node.transport(rpc_cast_timeout=timeout)
    node.client(transport).cast({}, 'note', value=1)
    gate.wait_for(1)
    gate.acknowledge()
    parts = _parts(transport)
    waiting.until(lambda: parts.counters.snapshot().get('acknowledged') == 1)
    assert _seconds(transport.cleanup) < 20
    assert 'dropped' not in parts.counters.snapshot()


def test_cast_timeout_of_zero_waits_for_nothing(node):
    transport = node.transport(rpc_cast_timeout=0)
    node.client(transport).cast({}, 'note', value=1)
    assert _seconds(transport.cleanup) < 20     # not the default of 30 s


def test_message_that_nobody_takes_is_dropped_after_its_ttl(node, caplog):
    transport = node.transport(rpc_message_ttl=1)
    posted = time.monotonic()
    node.client(transport).cast({}, 'note', value=1)
    counters = rpc.driver(transport).counters
    waiting.until(lambda: counters().get('dropped') == 1, 20)
    assert 1 <= time.monotonic() - posted < 20
    assert 'rpc_message_ttl' in caplog.text


def test_service_remembers_for_its_ttl_what_it_has_taken(node):
    gate = Gate(node.runtime(rpc_message_ttl=1))
    request = _cast(gate.service, ids.new_id())
    with _dealer(gate.service) as dealer:
        dealer.send_multipart(request)
        gate.wait_for(1)
        gate.acknowledge()
        assert _receive(dealer).kind == wire.ACK
        waiting.until(lambda: _is_taken_again(gate, dealer, request))


def _is_taken_again(gate, dealer, request):
    """Whether a repeated cast is delivered again; else it is only
    acknowledged again.
    """
    dealer.send_multipart(request)
    waiting.until(lambda: dealer.poll(0) or len(gate.delivered) == 2)
    if len(gate.delivered) == 2:
        gate.acknowledge()
    assert _receive(dealer).kind == wire.ACK
    return len(gate.delivered) == 2


# Peers that speak the protocol without the driver


@contextlib.contextmanager
def _dealer(service, receive_limit=1000):
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 0)
        dealer.set(zmq.RCVHWM, receive_limit)
        dealer.set(zmq.RCVTIMEO, 30000)
        dealer.connect(service.instance.endpoints[0])
        yield dealer


def _request(kind, service, message_id, flags=0, body=(b'{}', b'')):
    return [b'', wire.encode(kind, service.instance.id, message_id, body,
                             flags)]


MESSAGE = b'{"method": "echo", "args": {"value": 1}}'
MSGPACK_MESSAGE = b'\x81\xa4args\x81\xa5value\x01'


def _cast(service, message_id):
    return _request(wire.CAST, service, message_id, 0, (b'{}', MESSAGE))


def _call(service, message_id):
    return _request(wire.CALL, service, message_id, 0, (b'{}', MESSAGE))


def _receive(raw):
    """The next message to a raw peer."""
    return wire.decode(wire.split_envelope(raw.recv_multipart())[1])


@pytest.fixture
def receiver(node, ipc_dir):
    """A raw ROUTER that is registered as a service: receiver() is the next
    request, which it acknowledges.
    """
    instance = record.Instance(os.urandom(16),
                                   (f'ipc://{ipc_dir}/raw.sock',))
    registry = engines.embedded(ipc_dir, 30)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.set(zmq.LINGER, 1000)
        router.set(zmq.RCVTIMEO, 30000)
        router.bind(instance.endpoints[0])
        registry.register(instance, [TOPIC.key])

        def receive():
            envelope, frame = wire.split_envelope(router.recv_multipart())
            message = wire.decode(frame)
            router.send_multipart([*envelope, wire.encode(
                wire.ACK, instance.id, wire.NO_ID, (message.id,))])
            return message
        yield receive
        registry.close()
    os.unlink(f'{ipc_dir}/raw.sock')


# rpc_zmq_serialization


@pytest.mark.parametrize('name, flags, first', [
    ('json', 0, b'{'), ('msgpack', wire.MSGPACK, b'\x82')],
    ids=['json', 'msgpack'])
def test_serialization_on_the_wire(node, receiver, name, flags, first):
    transport = node.transport(rpc_zmq_serialization=name)
    node.client(transport).cast({'a': 1, 'b': 2}, 'note', value=1)
    message = receiver()
    assert message.flags & wire.MSGPACK == flags
    assert message.body[0][:1] == first
    counters = rpc.driver(transport).counters
    waiting.until(lambda: counters().get('acknowledged') == 1)


@pytest.mark.parametrize('own', ['json', 'msgpack'])
@pytest.mark.parametrize('flags, body, reply', [
    (0, (b'{}', MESSAGE), b'1'),
    (wire.MSGPACK, (b'\x80', MSGPACK_MESSAGE), b'\x01')],
    ids=['asked in json', 'asked in msgpack'])
def test_reply_is_encoded_as_its_request_was(node, own, flags, body, reply):
    service = _echo(node.runtime(rpc_zmq_serialization=own))
    with _dealer(service) as dealer:
        dealer.send_multipart(_request(wire.CALL, service, ids.new_id(),
                                       flags, body))
        message = _receive(dealer)
    assert (message.kind, message.body) == (wire.REPLY, [reply])
    assert message.flags & wire.MSGPACK == flags


# zmq_target_expire, zmq_target_update


def test_killed_server_is_gone_after_target_expire(node):
    query = {'zmq_target_expire': 3, 'zmq_target_update': 1}
    killed = node.process(server='killed', **query)
    node.process(server='living', **query)
    transport = node.transport(**query)
    assert node.client(transport).call({}, 'echo', value=1) == 1
    listed = _parts(transport).registry.cache.listed
    waiting.until(lambda: len(listed(TOPIC)) == 2)
    killed.kill()
    assert 1 < _seconds(waiting.until, lambda: len(listed(TOPIC)) == 1,
                        20) < 20    # not the default of 30 s
    assert node.client(transport).call({}, 'echo', value=2) == 2


def test_second_server_is_found_after_target_update(node):
    transport = node.transport(zmq_target_update=1)
    client = node.client(transport)
    first = node.server(server='first')
    client.call({}, 'note', value=1)
    second = node.server(server='second')
    waiting.until(lambda: (client.call({}, 'note', value=1)
                           or second.endpoint.seen), 20)
    assert first.endpoint.seen


# rpc_conn_pool_size, conn_pool_ttl


def _idle(transport):
    pool = _parts(transport).requests._pool
    return sum(len(stack) for stack in list(pool._idle.values()))


def _call_at_once(node, gate, transport, count):
    """Make calls at one time, each of which needs a connection."""
    client = node.client(transport, timeout=60)
    replies = queue.SimpleQueue()
    threads = [threading.Thread(target=lambda number=number: replies.put(
        client.call({}, 'echo', value=number))) for number in range(count)]
    for thread in threads:
        thread.start()
    gate.wait_for(count)
    gate.acknowledge(count)
    for each in gate.delivered:
        each.reply(each.message['args']['value'])
    for thread in threads:
        thread.join(60)
    assert sorted(replies.get_nowait()
                  for _ in range(count)) == list(range(count))


@pytest.mark.parametrize('size, idle', [(2, 2), (128, 8)])
def test_pool_keeps_no_more_than_its_size(node, size, idle):
    transport = node.transport(rpc_conn_pool_size=size)
    _call_at_once(node, Gate(node.runtime()), transport, 8)
    assert _idle(transport) == idle


def test_pool_size_is_over_all_services(node):
    gates = [Gate(node.runtime()) for _ in range(4)]
    transport = node.transport(rpc_conn_pool_size=3)
    client = node.client(transport)
    threads = [threading.Thread(target=client.call, args=({}, 'echo'),
                                kwargs={'value': 1}) for _ in range(8)]
    for thread in threads:
        thread.start()
    waiting.until(lambda: sum(len(gate.delivered) for gate in gates) == 8)
    for gate in gates:
        assert gate.delivered
        gate.acknowledge(len(gate.delivered))
        for each in gate.delivered:
            each.reply(1)
    for thread in threads:
        thread.join(60)
    assert _idle(transport) == 3


def test_idle_connections_are_closed_after_their_ttl(node):
    transport = node.transport(conn_pool_ttl=1)
    _call_at_once(node, Gate(node.runtime()), transport, 8)
    before = leaks.descriptors()
    waiting.until(lambda: _idle(transport) == 0)
    # Each had a connection, of which this process has both ends.
    waiting.until(lambda: leaks.descriptors() <= before - 2 * 8)


def test_connection_that_is_used_outlives_its_ttl(node):
    transport = node.transport(conn_pool_ttl=1)
    _echo(node.runtime())
    client = node.client(transport)
    client.call({}, 'echo', value=1)
    pool = _parts(transport).requests._pool
    (connection,), = pool._idle.values()
    began = last = time.monotonic()
    while last < began + 2.5:
        client.call({}, 'echo', value=1)
        before, last = last, time.monotonic()
        if last > before + 0.5:
            # This process stood still, and used nothing meanwhile.
            began = last
            (connection,), = pool._idle.values()
    assert list(pool._idle.values()) == [[connection]]


def test_idle_link_of_the_outbox_is_closed_after_the_same_ttl(node):
    gate = Gate(node.runtime())
    transport = node.transport(conn_pool_ttl=1)
    node.client(transport).cast({}, 'note', value=1)
    gate.wait_for(1)
    gate.acknowledge()
    during = leaks.descriptors()
    waiting.until(lambda: leaks.descriptors() < during, seconds=20)
    node.client(transport).cast({}, 'note', value=2)
    gate.wait_for(2)
    gate.acknowledge()
