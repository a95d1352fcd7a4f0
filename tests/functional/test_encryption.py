# SPDX-License-Identifier: Apache-2.0
"""CURVE on TCP: who gets in, who does not, and what is in the clear."""

import contextlib
import dataclasses
import logging
import os
import socket
import threading

import oslo_messaging
import pytest
import zmq

from tests.support import encryption
from tests.support import ids
from tests.support import ports
from tests.support import rpc
from tests.support import waiting
from tests.support import wire_tap
from zmq_threaded import counters
from zmq_threaded import endpoints
from zmq_threaded import errors
from zmq_threaded import mailbox
from zmq_threaded import options
from zmq_threaded import sockets
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.net import descriptors
from zmq_threaded.security import authenticator
from zmq_threaded.security import keys

TOPIC = topics.rpc('openstack', 'topic')
MESSAGE = b'{"method": "note", "args": {"value": 1}}'


@pytest.fixture
def ring(tmp_path):
    made = encryption.KeyRing(tmp_path)
    for name in ('a', 'b'):
        made.make(name)
    made.make('stranger', is_trusted=False)
    return made


@pytest.fixture
def elsewhere(monkeypatch):
    """Nobody in this process reaches anybody over IPC, as if the services
    were on another machine.
    """
    monkeypatch.setattr(endpoints, 'reachable', lambda those: next(
        (each for each in those if each.startswith('tcp:')), None))


class Direct:
    """A server with a port of its own."""

    def __init__(self, node, query, **more):
        self.port = ports.free_port()
        self.transport = node.transport(**{
            'rpc_zmq_transport': 'tcp', 'rpc_zmq_host': '127.0.0.1',
            'rpc_zmq_bind_address': '127.0.0.1',
            'rpc_zmq_min_port': self.port, 'rpc_zmq_max_port': self.port,
            **query, **more})
        self.server = node.server(transport=self.transport)
        self.seen = self.server.endpoint.seen
        service, = rpc.driver(self.transport)._parts()._services
        self.instance = service.instance

    def counters(self):
        return rpc.driver(self.transport).counters()


class Behind:
    """A server behind a receiver."""

    def __init__(self, node, query):
        receiver = node.receiver(**query)
        self.port = receiver.port
        self.receiver = receiver
        self.transport = node.transport(**query)
        self.server = node.server(transport=self.transport)
        self.seen = self.server.endpoint.seen
        service, = rpc.driver(self.transport)._parts()._services
        waiting.until(lambda: service.instance.key or not query, 20)
        self.instance = service.instance
        node.query = {}


@pytest.fixture(params=[Direct, Behind], ids=['direct', 'receiver'])
def make(request, node, elsewhere):
    return lambda query: request.param(node, query)


@pytest.fixture
def required(make, ring):
    """A server whose port is encrypted."""
    return make(ring.query('a'))


def _works(client):
    assert client.call({}, 'echo', value='call') == 'call'
    client.cast({}, 'note', value='cast')


def _fails(client, timeout=1.5):
    """:returns: the text of the exception of a call"""
    with pytest.raises(oslo_messaging.MessagingTimeout) as caught:
        client.prepare(timeout=timeout).call({}, 'note', value='never')
    return str(caught.value)


# Who gets in


def test_trusted_client_calls_and_casts(node, ring, required):
    client = node.client(node.transport(**ring.query('b')))
    _works(client)
    waiting.until(lambda: required.seen == ['cast'])


def test_one_pair_for_all_is_enough(node, ring, required):
    _works(node.client(node.transport(**ring.query('a'))))


def test_the_record_names_the_key(ring, required):
    assert required.instance.key == ring.pair('a').public


def test_client_whose_key_is_not_trusted_is_refused(node, ring, required):
    _fails(node.client(node.transport(**ring.query('stranger'))))
    assert required.seen == []


def test_keyless_client_is_told_what_it_lacks(node, required):
    text = _fails(node.client())
    assert 'its port is encrypted' in text and 'rpc_zmq_key_file' in text
    assert required.seen == []


def test_server_whose_key_is_not_trusted_is_not_connected_to(
        node, ring, required, tmp_path):
    (tmp_path / 'other').mkdir()
    other = encryption.KeyRing(tmp_path / 'other')
    other.make('b')
    text = _fails(node.client(node.transport(**other.query('b'))))
    assert keys.fingerprint(ring.pair('a').public) in text
    assert str(other.trusted) in text


def test_open_port_is_not_used_where_encryption_is_required(node, ring, make):
    server = make({})
    text = _fails(node.client(node.transport(**ring.query('b'))))
    assert 'its port is open' in text and 'required' in text
    assert server.seen == []


@pytest.mark.parametrize('mode', ['connect', 'serve'])
def test_open_port_is_used_otherwise(node, ring, make, mode):
    make({})
    _works(node.client(node.transport(**ring.query('b', mode))))


@pytest.mark.parametrize('mode', ['connect', 'serve', 'required'])
def test_encrypted_port_is_used_by_all_with_keys(node, ring, make, mode):
    make(ring.query('a', 'serve'))
    _works(node.client(node.transport(**ring.query('b', mode))))


def test_ipc_needs_no_keys(node, ring):
    node.server(transport=node.transport(
        rpc_zmq_transport='tcp', rpc_zmq_host='127.0.0.1', **ring.query('a')))
    _works(node.client())


def test_open_port_of_a_receiver_is_not_published_where_it_is_required(
        node, ring, caplog):
    caplog.set_level(logging.INFO)
    receiver = node.receiver()
    transport = node.transport(**ring.query('a'))
    node.server(transport=transport)
    service, = rpc.driver(transport)._parts()._services
    ipc = service.instance.endpoints[0]
    waiting.until(lambda: 'has an open port' in caplog.text, 20)
    assert service.instance.endpoints == (ipc,)
    _works(node.client(transport))
    lines = [each for each in caplog.records
             if 'has an open port' in each.getMessage()]
    assert [each.levelname for each in lines] == ['ERROR']
    assert 'start the receiver with rpc_zmq_key_file' in caplog.text
    assert 'rpc_zmq_key_file' in _open_receiver(transport).remedy
    receiver.configure(rpc_zmq_host=receiver.host,
                       rpc_zmq_ipc_dir=receiver.ipc_dir, **ring.query('a'))
    receiver.restart()
    waiting.until(lambda: service.instance.key, 20)
    assert not _open_receiver(transport)
    assert service.instance.endpoints == (
        ipc, f'tcp://{receiver.host}:{receiver.port}')
    _works(node.client(transport))
    waiting.until(lambda: 'is published with the new key of its receiver'
                  in caplog.text)
    # When the receiver comes back without keys
    receiver.configure(rpc_zmq_host=receiver.host,
                       rpc_zmq_ipc_dir=receiver.ipc_dir)
    caplog.clear()
    receiver.restart()
    waiting.until(lambda: not service.instance.key, 20)
    # Then no line says that there is a key
    waiting.until(lambda: 'is published without a TCP port' in caplog.text)
    assert 'is published with the' not in caplog.text
    assert _open_receiver(transport)


def _open_receiver(transport):
    """The finding of which status and health tell, or None."""
    found = rpc.driver(transport)._parts().findings.all()
    return next((each for each in found if each.kind == 'open_receiver'),
                None)


# Misconfiguration


@pytest.mark.parametrize('lacking, remedy', [
    ('rpc_zmq_key_file', 'keys create'), ('rpc_zmq_trusted_keys', 'directory')
])
def test_what_is_missing_is_named(node, ring, lacking, remedy):
    query = ring.query('a')
    del query[lacking]
    with pytest.raises(errors.ConfigurationError) as caught:
        node.transport(**query)
    assert lacking in str(caught.value) and remedy in str(caught.value)


def test_key_file_that_others_may_read_is_refused(node, ring):
    query = ring.query('a')
    os.chmod(query['rpc_zmq_key_file'], 0o644)
    with pytest.raises(errors.ConfigurationError, match='chmod 600'):
        node.transport(**query)


def test_directory_that_is_not_there_is_named(node, ring):
    query = {**ring.query('a'), 'rpc_zmq_trusted_keys': '/proc/nowhere'}
    with pytest.raises(errors.ConfigurationError, match='/proc/nowhere'):
        node.transport(**query)


def test_receiver_without_its_key_does_not_start(node, ring):
    query = {**ring.query('a'), 'rpc_zmq_key_file': '/proc/nothing'}
    with pytest.raises(AssertionError, match='rpc_zmq_key_file'):
        node.receiver(**query)


def test_keys_alone_mean_required(node, ring):
    query = ring.query('a')
    del query['rpc_zmq_encryption']
    assert node.settings(**query).encryption == options.REQUIRED


# Strangers


@contextlib.contextmanager
def _dealer(server, pair=None, server_key=b'', identity=b''):
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 0)
        if pair:
            dealer.set(zmq.CURVE_PUBLICKEY, pair.public)
            dealer.set(zmq.CURVE_SECRETKEY, pair.secret)
            dealer.set(zmq.CURVE_SERVERKEY, server_key)
        if identity:
            dealer.set(zmq.ROUTING_ID, identity)
        dealer.connect(f'tcp://127.0.0.1:{server.port}')
        yield dealer


def _cast_of(server):
    return [b'', wire.encode(wire.CAST, server.instance.id, ids.new_id(),
                             (b'{}', MESSAGE), 0)]


def _is_ignored(server, dealer):
    """What the peer sends, before or after a handshake, goes nowhere."""
    for _ in range(3):
        dealer.send_multipart(_cast_of(server))
    assert not dealer.poll(700, zmq.POLLIN)
    return server.seen == []


def test_stranger_without_curve_is_ignored(required):
    with _dealer(required) as dealer:
        assert _is_ignored(required, dealer)


def test_stranger_with_another_key_is_ignored(ring, required):
    with _dealer(required, ring.pair('stranger'),
                 ring.pair('a').public) as dealer:
        assert _is_ignored(required, dealer)


def test_stranger_with_the_wrong_server_key_is_ignored(ring, required):
    with _dealer(required, ring.pair('b'), ring.pair('b').public) as dealer:
        assert _is_ignored(required, dealer)


@pytest.mark.parametrize('identity', [b'\0\0\0\0\1', b'me', b'x' * 255])
def test_claimed_identity_gets_nowhere_without_a_key(ring, required,
                                                     identity):
    with _dealer(required, ring.pair('stranger'), ring.pair('a').public,
                 identity) as dealer:
        assert _is_ignored(required, dealer)


def test_who_has_a_key_gets_in_by_hand(ring, required):
    with _dealer(required, ring.pair('b'), ring.pair('a').public) as dealer:
        dealer.send_multipart(_cast_of(required))
        assert dealer.poll(20000, zmq.POLLIN)
    # A cast is acknowledged right before it is run.
    waiting.until(lambda: required.seen == [1])


GREETING = b'\xff\0\0\0\0\0\0\0\1\x7f\3\1'
GARBAGE = {
    'nothing': b'', 'http': b'GET / HTTP/1.1\r\n\r\n', 'zeros': bytes(5000),
    'an old greeting': b'\1\0', 'half a greeting': GREETING[:5],
    'null': GREETING + b'NULL'.ljust(20, b'\0') + bytes(32)
    + b'\4\x19\5READY\x0bSocket-Type\0\0\0\6DEALER',
    'plain': GREETING + b'PLAIN'.ljust(20, b'\0') + bytes(32) + bytes(500),
    'a short hello': GREETING + b'CURVE'.ljust(20, b'\0') + bytes(32)
    + b'\4\6\5HELLO',
    'a long hello': GREETING + b'CURVE'.ljust(20, b'\0') + bytes(32)
    + b'\4\xc8\5HELLO' + bytes(194),
    'a wild hello': GREETING + b'CURVE'.ljust(20, b'\0') + bytes(32)
    + b'\4\xc8\5HELLO' + os.urandom(194),
    'initiate first': GREETING + b'CURVE'.ljust(20, b'\0') + bytes(32)
    + b'\6\0\0\0\0\0\0\2\0\x08INITIATE' + os.urandom(503),
    'a message first': GREETING + b'CURVE'.ljust(20, b'\0') + bytes(32)
    + b'\1\0\0\x64' + os.urandom(100),
    'noise': os.urandom(20000),
}


@pytest.mark.parametrize('name', GARBAGE)
def test_garbage_harms_nobody(node, ring, required, name):
    client = node.client(node.transport(**ring.query('b')))
    for _ in range(20):
        with socket.create_connection(('127.0.0.1', required.port)) as peer:
            with contextlib.suppress(OSError):
                peer.sendall(GARBAGE[name])
    assert client.call({}, 'echo', value=1) == 1
    assert required.seen == []


# Another directory


def test_a_record_leads_to_no_socket_of_another_directory(node, ring,
                                                          tmp_path):
    server = Direct(node, ring.query('a'))
    path = str(tmp_path / 'x.sock')
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(f'ipc://{path}')
        _registered_anew(server, endpoints=(
            f'ipc://{path}', f'tcp://127.0.0.1:{server.port}'))
        _works(node.client(node.transport(**ring.query('b'))))
        _registered_anew(server, endpoints=(f'ipc://{path}',))
        text = _fails(node.client(node.transport(**ring.query('b'))))
        assert 'rpc_zmq_ipc_dir' in text
        assert not router.poll(0)


# The handler


def test_without_its_handler_nobody_gets_in(node, ring, elsewhere):
    server = Direct(node, ring.query('a'))
    parts = rpc.driver(server.transport)._parts()
    parts._authenticator.end()
    with _dealer(server, ring.pair('b'), ring.pair('a').public) as dealer:
        assert _is_ignored(server, dealer)
    _fails(node.client(node.transport(**ring.query('b'))))


def test_port_is_not_bound_without_keys(node, ring):
    parts = node.runtime(rpc_zmq_transport='tcp', **ring.query('a'))
    parts._access.pair = None
    with pytest.raises(Exception, match='there is no key'):
        parts.service([TOPIC])


def test_refused_keys_are_logged_and_counted(node, ring, elsewhere,
                                             caplog):
    server = Direct(node, ring.query('a'))
    stranger = ring.pair('stranger')
    with _dealer(server, stranger, ring.pair('a').public) as dealer:
        assert _is_ignored(server, dealer)
    assert server.counters()['keys_refused'] == 1
    line, = (each for each in caplog.text.splitlines() if 'refused' in each)
    assert '127.0.0.1' in line and keys.fingerprint(stranger.public) in line
    assert stranger.secret.decode() not in caplog.text


def test_key_that_was_just_put_there_gets_in(node, ring, required):
    ring.make('late')
    _works(node.client(node.transport(**ring.query('late'))))


def test_handler_without_descriptors_leaves_nothing(node, ring, monkeypatch):
    def short():
        raise descriptors.Short('no descriptors')
    settings = node.settings(**ring.query('a'))
    with zmq.Context() as context:
        made = sockets.Sockets(context, settings)
        monkeypatch.setattr(mailbox, 'PolledMailbox', short)
        with pytest.raises(descriptors.Short):
            authenticator.Authenticator(made, counters.Counters())
        monkeypatch.undo()
        assert made.count() == 0


# The reasons


def test_client_is_told_within_a_second_that_its_key_is_refused(
        node, ring, required, caplog):
    transport = node.transport(**ring.query('stranger'))
    text = _fails(node.client(transport), 2)
    assert 'refuses the key of this process' in text
    told = [each for each in caplog.records
            if 'No connection to' in each.getMessage()]
    assert [each.levelname for each in told] == ['WARNING']
    assert keys.fingerprint(ring.pair('stranger').public) in text
    assert 'rpc_zmq_trusted_keys' in text
    assert rpc.driver(transport).counters()['own_key_refused'] >= 1


def _registered_anew(server, **changes):
    """The server's record says something else from now on."""
    parts = rpc.driver(server.transport)._parts()
    service, = parts._services
    changed = dataclasses.replace(service.instance, **changes)
    service.receiver_has_key = lambda key: None
    assert parts.registry._do(
        lambda: parts.registry._registrations.register(
            changed, [TOPIC.key]), 20)


def test_client_is_told_within_a_second_that_the_server_has_another_key(
        node, ring, required):
    _registered_anew(required, key=ring.pair('b').public)
    transport = node.transport(**ring.query('b'))
    text = _fails(node.client(transport), 2)
    assert 'does not have the key' in text and 'not encrypted' in text
    assert keys.fingerprint(ring.pair('b').public) in text
    assert rpc.driver(transport).counters()['wrong_server_keys'] >= 1


def test_client_is_told_within_a_second_that_the_port_has_no_curve(
        node, ring, make):
    server = make({})
    _registered_anew(server, key=ring.pair('a').public)
    text = _fails(node.client(node.transport(**ring.query('b'))), 2)
    assert 'does not have the key' in text
    assert server.seen == []


def test_casts_are_told_why_they_wait(node, ring, required):
    transport = node.transport(**ring.query('stranger'))
    node.client(transport).cast({}, 'note', value=1)
    parts = rpc.driver(transport)._parts()
    waiting.until(lambda: 'refuses the key' in parts.explain(TOPIC), 20)
    ring.trust('stranger')
    waiting.until(lambda: required.seen == [1], 20)


def test_nothing_is_left_of_the_search_for_reasons(node, ring, required):
    transport = node.transport(**ring.query('stranger'))
    _fails(node.client(transport), 2)
    assert rpc.driver(transport).counters()['sockets'] <= 1


# Keys that come later


def test_calls_wait_until_the_key_is_trusted(node, ring, required):
    client = node.client(node.transport(**ring.query('stranger')))
    threading.Timer(1, ring.trust, ['stranger']).start()
    assert client.call({}, 'echo', value=1) == 1


# What is on the wire

SECRETS = [b'payload-of-the-call', b'payload-of-the-cast',
           b'token-of-keystone', b'echo', b'note', b'openstack', b'method',
           b'ZMQT']


def _recorded(node, ring, server, query):
    """The bytes of a call and a cast to a server."""
    tap = wire_tap.WireTap(server.port)
    node.closing(tap.end)
    _registered_anew(server, endpoints=(f'tcp://127.0.0.1:{tap.port}',))
    client = node.client(node.transport(**query))
    context = {'auth_token': 'token-of-keystone'}
    assert client.call(context, 'echo', value='payload-of-the-call')
    client.cast(context, 'note', value='payload-of-the-cast')
    waiting.until(lambda: server.seen == ['payload-of-the-cast'])
    return bytes(tap.recorded)


def test_nothing_is_on_the_wire_in_the_clear(node, ring, required):
    recorded = _recorded(node, ring, required, ring.query('b'))
    assert len(recorded) > 1000
    assert [each for each in SECRETS if each in recorded] == []


def test_the_recording_would_find_it(node, ring, make):
    recorded = _recorded(node, ring, make({}), {})
    assert [each for each in SECRETS if each not in recorded] == [b'openstack']
