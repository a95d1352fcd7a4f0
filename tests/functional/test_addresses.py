# SPDX-License-Identifier: Apache-2.0
"""Names and addresses of records: resolved aside, all tried, and explained."""

import contextlib
import os
import socket
import threading
import time

import oslo_messaging
import pytest

from tests.support import leaks
from tests.support import waiting
from zmq_threaded import logs
from zmq_threaded import topic as topics
from zmq_threaded.net import addresses
from zmq_threaded.registry import record

# Of 127.0.0.0/8 every address is this machine; services bind the first.
HERE, REFUSING = '127.0.0.1', '127.0.0.9'


class Dns:
    """Names as a test gives them; those with 'slow' hang until told."""

    def __init__(self):
        self.names = {}
        self.asked = []
        self.answers = threading.Event()

    def __call__(self, name):
        self.asked.append(name)
        if 'slow' in name:
            self.answers.wait(30)
        if name not in self.names:
            raise OSError(-2, 'Name or service not known')
        return self.names[name]


@pytest.fixture
def dns(monkeypatch):
    dns = Dns()
    monkeypatch.setattr(
        addresses, '_by_pid', {os.getpid(): addresses.Addresses(dns)}
    )
    yield dns
    dns.answers.set()


@pytest.fixture
def cloud(dns, node):
    cloud = Cloud(node)
    yield cloud
    dns.answers.set()


class Cloud:
    """Services that other hosts know by TCP alone."""

    def __init__(self, node):
        self.node = node
        self._registry = node.runtime().registry

    def server(self, name, server='server', topic='remote'):
        """A server whose record leads to a host of this name."""
        transport = self.node.transport(rpc_zmq_transport='tcp',
                                        rpc_zmq_bind_address=HERE,
                                        rpc_zmq_host=HERE)
        listening = self.node.server(f'own-{server}', server,
                                     transport=transport)
        instance = transport._driver._parts()._services[0].instance
        port = instance.endpoints[1].rpartition(':')[2]
        self.plant(f'tcp://{name}:{port}', topic, instance.id, server, name)
        return listening

    def plant(self, *endpoints, topic='remote', id=None, server='', host=''):
        """A record of an instance."""
        if len(endpoints) == 5:
            endpoint, topic, id, server, host = endpoints
            endpoints = (endpoint,)
        keys = [topics.rpc('openstack', topic)]
        if server:
            keys.append(topics.rpc('openstack', topic, server))
        self._registry.register(record.Instance(
            id or os.urandom(16), endpoints, host=host, server=server), keys)

    def client(self, **kwargs):
        kwargs.setdefault('topic', 'remote')
        return self.node.client(**kwargs)


@pytest.fixture
def refusing_port():
    with socket.socket() as bound:
        bound.bind((HERE, 0))
        yield bound.getsockname()[1]


@pytest.fixture
def silent_port():
    """Of a server that takes no more connections, as a host that is off."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind((HERE, 0))
        server.listen(0)
        for _ in range(3):
            held = stack.enter_context(socket.socket())
            held.setblocking(False)
            held.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def _seconds(function, *args, **kwargs):
    began = time.monotonic()
    function(*args, **kwargs)
    return time.monotonic() - began


def _error(function, *args, **kwargs):
    with pytest.raises((oslo_messaging.MessagingException,
                        oslo_messaging.MessageUndeliverable)) as raised:
        function(*args, **kwargs)
    return str(getattr(raised.value, 'exception', None) or raised.value)


@pytest.mark.parametrize('addresses', [
    [HERE], [REFUSING, HERE], [HERE, REFUSING], ['fd00::9', HERE],
    ['::1', '127.0.0.99', HERE]], ids='-'.join)
@pytest.mark.parametrize('do', ['call', 'cast', 'fanout', 'monitored'])
def test_one_of_several_addresses_is_enough(cloud, dns, addresses, do):
    dns.names['node'] = addresses
    server = cloud.server('node')
    client = cloud.client(
        fanout=do == 'fanout',
        timeout=60, call_monitor_timeout=60 if do == 'monitored' else None)
    method = client.call if do in ('call', 'monitored') else client.cast
    for number in range(3):
        assert _seconds(method, {}, 'note', value=number) < 20
    waiting.until(lambda: sorted(server.endpoint.seen) == [0, 1, 2])


def test_what_worked_last_is_tried_first(cloud, dns):
    dns.names['node'] = [REFUSING, HERE]
    cloud.server('node')
    client = cloud.client()
    client.call({}, 'echo', value=1)
    found = addresses.of_process()._worked
    assert [address[0] for address in found.values()] == [HERE]


def test_numbers_and_pooled_connections_are_never_resolved(cloud, dns):
    dns.names['node'] = [HERE]
    cloud.server(HERE, 'first')
    client = cloud.client(server='first')
    client.call({}, 'echo', value=1)
    assert not dns.asked
    cloud.server('node', 'second')
    client = cloud.client(server='second')
    for number in range(20):
        client.call({}, 'echo', value=number)
    assert dns.asked == ['node']


@pytest.mark.parametrize('do', ['call', 'cast', 'fanout'])
def test_a_name_that_hangs_holds_up_nobody_else(cloud, dns, do):
    # Given a service whose name is not resolved, and two others
    cloud.server('slow-node', 'slow', 'slow')
    good = cloud.server(HERE, 'good', 'good')
    transport = cloud.node.transport()
    slow = cloud.client(transport=transport, topic='slow', timeout=60,
                        fanout=do == 'fanout')
    client = cloud.client(transport=transport, topic='good', timeout=60)
    client.call({}, 'echo', value=0)
    # When messages go to it
    answered = []
    calling = threading.Thread(target=lambda: answered.append(
        slow.call({}, 'echo', value=1)))
    if do == 'call':
        calling.start()
    else:
        slow.cast({}, 'note', value='slow')
    waiting.until(lambda: 'slow-node' in dns.asked)
    # Then the others get theirs at once
    until, longest, count = time.monotonic() + 2.5, 0.0, 0
    while time.monotonic() < until:
        longest = max(longest, _seconds(client.call, {}, 'echo', value=1))
        client.cast({}, 'note', value=count)
        count += 1
        waiting.until(lambda: len(good.endpoint.seen) == count, 15)
    assert longest < 15     # Dns answers after 30 s at the latest
    assert dns.asked.count('slow-node') == 1
    assert not answered
    dns.names['slow-node'] = [HERE]
    dns.answers.set()
    if do == 'call':
        calling.join()
        assert answered == [1]


@pytest.mark.parametrize('fanout', [True, False])
def test_a_cast_waits_until_its_name_is_resolved(cloud, dns, fanout):
    server = cloud.server('slow-node')
    dns.names['slow-node'] = [REFUSING, HERE]
    client = cloud.client(fanout=fanout)
    for number in range(10):
        assert _seconds(client.cast, {}, 'note', value=number) < 15
    waiting.until(lambda: dns.asked)
    began = time.monotonic()
    waiting.until(lambda: time.monotonic() > began + 1.5)
    assert not server.endpoint.seen
    dns.answers.set()
    waiting.until(lambda: sorted(server.endpoint.seen) == list(range(10)), 20)


def test_casts_go_to_those_who_can_be_reached(cloud, dns, refusing_port):
    server = cloud.server(HERE, 'good')
    cloud.plant('tcp://slow-node:5', server='hangs')
    cloud.plant('tcp://no-node:5', server='unknown')
    cloud.plant(f'tcp://{HERE}:{refusing_port}', server='refuses')
    cloud.plant('tcp://node', 'udp://x:1', server='nonsense')
    client = cloud.client()
    for number in range(40):
        client.cast({}, 'note', value=number)
    waiting.until(lambda: sorted(server.endpoint.seen) == list(range(40)), 20)


def test_a_name_that_leads_elsewhere_now_is_found(cloud, dns):
    dns.names['node'] = [REFUSING]
    server = cloud.server('node')
    client = cloud.client(timeout=20)
    client.cast({}, 'note', value='cast')
    cloud.client(timeout=20, fanout=True).cast({}, 'note', value='fanout')
    _error(cloud.client(timeout=1).call, {}, 'echo', value=0)
    dns.names['node'] = [HERE]
    client.call({}, 'note', value='call')
    waiting.until(lambda: sorted(server.endpoint.seen) == [
        'call', 'cast', 'fanout'], 20)


@pytest.mark.parametrize('count', [10, 3000])
@pytest.mark.parametrize('kind', ['refusing', 'silent', 'unknown'])
def test_a_call_ends_at_its_timeout_whoever_cannot_be_reached(
        cloud, dns, monkeypatch, refusing_port, silent_port, kind, count):
    endpoint = {'refusing': f'tcp://{HERE}:{refusing_port}',
                'silent': f'tcp://{HERE}:{silent_port}',
                'unknown': 'tcp://no-node:5'}[kind]
    instances = [record.Instance(os.urandom(16), (endpoint,))
                 for _ in range(count)]
    client = cloud.client(timeout=2)
    known = client.transport._driver._parts().registry
    monkeypatch.setattr(known._store, 'lookup', lambda key: instances)
    began = time.monotonic()
    text = _error(client.call, {}, 'echo', value=1)
    assert time.monotonic() - began < 2 + 15
    assert f'{count} registered' in text
    assert {'refusing': 'connection refused', 'silent': 'no answer',
            'unknown': 'Name or service not known'}[kind] in text
    assert len(text) < 2000


# What the caller and the log are told

@pytest.mark.parametrize('do', ['call', 'retry', 'cast', 'at_least_once',
                                'monitored'])
@pytest.mark.parametrize('kind', ['refusing', 'silent', 'unknown', 'slow',
                                  'nobody', 'gone'])
def test_errors_say_which_address_was_tried_and_why(
        cloud, dns, refusing_port, silent_port, kind, do):
    dns.names['node'] = [HERE]
    endpoint, expected = {
        'refusing': (f'tcp://node:{refusing_port}',
                     f'tcp://{HERE}:{refusing_port} (node): connection '
                     'refused'),
        'silent': (f'tcp://node:{silent_port}',
                   f'tcp://{HERE}:{silent_port} (node): no answer '),
        'unknown': ('tcp://no-node:5', 'the name no-node cannot be '
                    'resolved: Name or service not known'),
        'slow': ('tcp://slow-node:5', 'slow-node has not been resolved for'),
        'nobody': (None, 'nobody is registered under it'),
        'gone': ('ipc:///nowhere/x.sock', 'No such file')}[kind]
    if endpoint:
        cloud.plant(endpoint, server='it', host='node-17')
    options = {'call': {'timeout': 3}, 'retry': {'retry': 0},
               'cast': {'retry': 1}, 'monitored': {
                   'timeout': 4, 'call_monitor_timeout': 4},
               'at_least_once': {'transport_options':
                                 oslo_messaging.TransportOptions(
                                     at_least_once=True)}}[do]
    client = cloud.client(**options)
    method = client.cast if do == 'cast' else client.call
    text = _error(method, {}, 'note', value=1)
    assert expected in text
    if endpoint:
        assert 'it on node-17 (instance ' in text


def test_a_socket_of_another_user_is_named(node, ipc_dir):
    from tests.support import forks
    os.chmod(ipc_dir, 0o755)
    path = os.path.join(ipc_dir, 'x.sock')
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)
        os.chmod(path, 0o700)

        def as_nobody():
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            from zmq_threaded.client import reasons
            told = reasons.unusable((f'ipc://{path}',))
            os.chdir('/')
            return told
        if os.getuid():
            pytest.skip('only root can be another user')
        told = forks.Forked(as_nobody).result()
    os.unlink(path)
    assert 'no permission for user 65534; it belongs to user 0' in told


def test_the_log_names_a_destination_once_in_a_while(
        cloud, dns, refusing_port, caplog):
    cloud.plant(f'tcp://{HERE}:{refusing_port}', server='it', host='node-17')
    client = cloud.client(timeout=4)
    for _ in range(2):
        _error(client.call, {}, 'echo', value=1)
    logs.flush()
    told = [record.getMessage() for record in caplog.records
            if record.levelname == 'WARNING']
    assert len(told) == 1, told
    assert 'it on node-17' in told[0]
    assert f'tcp://{HERE}:{refusing_port}: connection refused' in told[0]


def test_a_registry_that_fails_is_named(cloud, monkeypatch):
    client = cloud.client(timeout=1)
    known = client.transport._driver._parts().registry

    def fail(*args):
        raise OSError('the disk is gone')
    monkeypatch.setattr(known._store, 'lookup', fail)
    text = _error(client.call, {}, 'echo', value=1)
    assert 'the registry has not answered for' in text
    assert 'OSError: the disk is gone' in text


def test_who_is_stopping_or_busy_is_told_apart(cloud):
    known = cloud.node.runtime().registry
    from zmq_threaded import wire
    from zmq_threaded.client import reasons
    instance = record.Instance(os.urandom(16), ('tcp://127.0.0.1:1',))
    topic = topics.rpc('', 'busy')
    known.cache.absorb(known.cache.entry(topic.key), (instance,),
                       lambda: False)
    assert 'nothing is known against it' in known.cache.explain(topic)
    known.cache.avoid(instance, why=reasons.refusal(wire.BUSY))
    assert 'it is busy' in known.cache.explain(topic)
    known.cache.reached(instance)
    known.cache.avoid(instance, True, reasons.refusal(wire.STOPPING))
    assert 'it is stopping' in known.cache.explain(topic)


def test_nothing_is_left_of_links_that_never_got_an_address(cloud, dns):
    client = cloud.client()
    for number in range(30):
        cloud.plant(f'tcp://slow-{number}:5')
    before = leaks.descriptors()
    cloud.client(fanout=True, transport=client.transport).cast(
        {}, 'note', value=1)
    waiting.until(lambda: len(dns.asked) >= 8)
    client.transport._driver._parts().close(time.monotonic())
    assert leaks.descriptors() <= before
