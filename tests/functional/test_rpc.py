# SPDX-License-Identifier: Apache-2.0
"""Calls, casts and fanouts as oslo.messaging's users know them."""

import datetime
import time
import uuid

import oslo_messaging
import pytest

from tests.support import rpc
from tests.support import waiting


@pytest.fixture(params=['json', 'msgpack'])
def serialization(request):
    return request.param


class Mapping:
    """Has items(), as OpenStack's dict-like objects do."""

    def items(self):
        return {'a': [1, 2],
                'when': datetime.datetime(2026, 11, 21, 1, 2, 3)}.items()


def test_call_returns_what_the_endpoint_returned(node, serialization):
    node.server()
    client = node.client(node.transport(rpc_zmq_serialization=serialization))
    for value in (None, True, 1, 1.5, 'ä\u2603\U0001f600', [1, [2]],
                  {'k': {'n': None}}, 2 ** 80, 'x' * 1_000_000):
        assert client.call({}, 'echo', value=value) == value


def test_objects_arrive_as_with_the_rabbit_driver(node, serialization):
    node.server()
    client = node.client(node.transport(rpc_zmq_serialization=serialization))
    name = uuid.uuid4()
    assert client.call({}, 'echo', value={
        'uuid': name, 'tuple': (1, 2), 'mapping': Mapping(),
        'when': datetime.datetime(2026, 11, 21, 1, 2, 3)}) == {
        'uuid': str(name), 'tuple': [1, 2],
        'mapping': {'a': [1, 2], 'when': '2026-11-21T01:02:03.000000'},
        'when': '2026-11-21T01:02:03.000000'}


def test_what_cannot_be_encoded_is_refused_at_the_sender(node, serialization):
    client = node.client(node.transport(rpc_zmq_serialization=serialization))
    with pytest.raises(ValueError, match='primitive'):
        client.cast({}, 'note', value=object())


def test_context_arrives(node):
    class Context:
        def ctxt(self, ctxt):
            return ctxt
    node.server(endpoint=_endpoint(Context))
    assert node.client().call({'token': 's3cret', 'n': 1}, 'ctxt') == {
        'token': 's3cret', 'n': 1}


def _endpoint(cls):
    class Endpoint(cls, rpc.Recorder):
        pass
    return Endpoint()


class CustomError(Exception):
    pass


def test_remote_exceptions_follow_allowed_remote_exmods(node):
    class Failing:
        def custom(self, ctxt):
            raise CustomError('of ours')
    node.server(endpoint=_endpoint(Failing))
    with pytest.raises(ValueError, match='as said'):
        node.client().call({}, 'fail', text='as said')
    allowed = node.transport(allowed_remote_exmods=[__name__])
    with pytest.raises(CustomError, match='of ours'):
        node.client(allowed).call({}, 'custom')
    with pytest.raises(oslo_messaging.RemoteError, match='CustomError'):
        node.client().call({}, 'custom')


def test_expected_exceptions_keep_their_class(node):
    class Expecting:
        @oslo_messaging.expected_exceptions(KeyError)
        def expect(self, ctxt):
            raise KeyError('known')
    node.server(endpoint=_endpoint(Expecting))
    with pytest.raises(KeyError, match='known'):
        node.client().call({}, 'expect')


def test_result_that_cannot_be_encoded_fails_the_call_at_once(node):
    class Odd:
        def odd(self, ctxt):
            return {object(): 1}
    node.server(endpoint=_endpoint(Odd))
    with pytest.raises(Exception, match='keys must be'):
        node.client(timeout=20).call({}, 'odd')


def test_reply_is_what_was_returned_even_if_it_changes_afterwards(node):
    class Growing:
        def __init__(self):
            super().__init__()
            self.items = []

        def grow(self, ctxt):
            self.items.append(len(self.items))
            return self.items
    node.server(endpoint=_endpoint(Growing), workers=1)
    client = node.client()
    for length in range(1, 200):
        assert len(client.call({}, 'grow')) == length


def test_cast_runs_once(node):
    server = node.server()
    client = node.client()
    for number in range(500):
        client.cast({}, 'note', value=number)
    waiting.until(lambda: len(server.endpoint.seen) >= 500)
    assert sorted(server.endpoint.seen) == list(range(500))


def test_fanout_runs_once_on_each_server(node):
    servers = [node.server(server=name) for name in 'abc']
    client = node.client(fanout=True)
    for number in range(50):
        client.cast({}, 'note', value=number)
    waiting.until(lambda: all(len(server.endpoint.seen) >= 50
                              for server in servers))
    for server in servers:
        assert sorted(server.endpoint.seen) == list(range(50))


def test_fanout_reaches_a_server_that_started_just_before(node):
    client = node.client(fanout=True)
    first = node.server(server='first')
    client.cast({}, 'note', value=1)
    # Sent: cast() returns before the outbox has looked who is registered.
    waiting.until(lambda: first.endpoint.seen == [1])
    second = node.server(server='second')
    client.cast({}, 'note', value=2)
    waiting.until(lambda: second.endpoint.seen == [2])
    waiting.until(lambda: sorted(first.endpoint.seen) == [1, 2])


def test_calls_are_spread_over_the_servers_in_turn(node):
    servers = [node.server(server=name) for name in 'abc']
    client = node.client()
    for number in range(30):
        client.call({}, 'note', value=number)
    assert [len(server.endpoint.seen) for server in servers] == [10, 10, 10]


def test_directed_messages_go_to_their_server_only(node):
    servers = {name: node.server(server=name)
               for name in ('host@a', 'host@b', 'host')}
    for name in servers:
        client = node.client(server=name)
        client.call({}, 'note', value=name)
        client.cast({}, 'note', value=name)
    for name, server in servers.items():
        waiting.until(lambda: server.endpoint.seen == [name, name])


def test_call_to_an_unknown_server_never_runs_elsewhere(node):
    server = node.server(server='known')
    with pytest.raises(oslo_messaging.MessagingTimeout):
        node.client(server='unknown', timeout=0.5).call({}, 'note', value=1)
    assert server.endpoint.seen == []


def test_workers_with_one_name_share_directed_messages(node):
    workers = [node.server(server='same') for _ in range(2)]
    client = node.client(server='same')
    for number in range(20):
        client.call({}, 'note', value=number)
    assert [len(worker.endpoint.seen) for worker in workers] == [10, 10]
    node.client(fanout=True).cast({}, 'note', value='all')
    for worker in workers:
        waiting.until(lambda: 'all' in worker.endpoint.seen)


NAMES = ['a', 'ab', 'a.b', 'a:b', 'a/b', 'a b', '../a', 'ä', '\u2603',
         '\U0001f600', 'x' * 3000, '%61', 'A']


def test_names_of_any_kind_are_kept_apart(node):
    transport = node.transport()
    servers = {name: node.server(topic=name, server=name, transport=transport)
               for name in NAMES}
    for name in NAMES:
        node.client(transport, topic=name, server=name).call(
            {}, 'note', value=name)
    for name, server in servers.items():
        assert server.endpoint.seen == [name]


def test_exchanges_are_kept_apart(node):
    default = node.server()
    other = node.server(exchange='other')
    node.client().call({}, 'note', value='default')
    node.client(exchange='openstack').call({}, 'note', value='named')
    node.client(exchange='other').call({}, 'note', value='other')
    assert default.endpoint.seen == ['default', 'named']
    assert other.endpoint.seen == ['other']


def test_several_servers_and_clients_share_one_driver(node):
    transport = node.transport()
    servers = [node.server(topic=topic, transport=transport)
               for topic in ('one', 'two')]
    for topic in ('one', 'two'):
        node.client(transport, topic=topic).call({}, 'note', value=topic)
    assert [server.endpoint.seen for server in servers] == [['one'], ['two']]


def test_a_server_can_be_stopped_and_started_again(node):
    server = node.server()
    client = node.client()
    for number in range(3):
        assert client.call({}, 'echo', value=number) == number
        server.stop()
        server.wait()
        server.start(override_pool_size=2)
    assert client.call({}, 'echo', value='again') == 'again'


def test_an_endpoint_may_stop_its_own_server(node):
    class Stopping:
        def stop_me(self, ctxt):
            server.stop()
            return 'stopped'
    server = node.server(endpoint=_endpoint(Stopping))
    assert node.client().call({}, 'stop_me') == 'stopped'


def test_many_sizes_of_message(node):
    node.server()
    client = node.client()
    for power in range(0, 25, 3):
        text = 'x' * 2 ** power
        assert client.call({}, 'echo', value=text) == text


def test_a_driver_can_be_used_after_cleanup(node):
    node.server()
    transport = node.transport(rpc_cast_timeout=60)
    client = node.client(transport)
    for _ in range(2):
        assert client.call({}, 'echo', value=1) == 1
        started = time.monotonic()
        transport.cleanup()
        assert time.monotonic() - started < 20
