# SPDX-License-Identifier: Apache-2.0
"""rpc_zmq_executor: which executor runs the endpoints of a server."""

import logging
import signal
import threading

import futurist
import oslo_messaging
import pytest
from oslo_messaging import server as oslo_server

from tests.support import waiting
from zmq_threaded import errors
from zmq_threaded.service import fast_executor
from zmq_threaded.service import guard

KINDS = {'fast': fast_executor.FastExecutor,
         'server': futurist.ThreadPoolExecutor,
         'threading': futurist.ThreadPoolExecutor,
         'dynamic': futurist.DynamicThreadPoolExecutor}
every_executor = pytest.mark.parametrize('name', sorted(KINDS))


def test_the_fast_one_is_the_default(node, monkeypatch):
    # By which all tests may be run with another one.
    monkeypatch.delenv('OS_OSLO_MESSAGING_ZMQ__RPC_ZMQ_EXECUTOR',
                       raising=False)
    server = node.server(workers=3)
    assert type(server._work_executor) is fast_executor.FastExecutor
    assert server._work_executor._max_workers == 3


@every_executor
def test_rpc_server(node, name):
    server = node.server(transport=node.transport(rpc_zmq_executor=name),
                         workers=3)
    executor = server._work_executor
    assert type(executor) is KINDS[name] and executor._max_workers == 3
    client = node.client()
    assert [client.call({}, 'echo', value=each)
            for each in range(20)] == [*range(20)]
    client.cast({}, 'note', value='a cast')
    waiting.until(lambda: server.endpoint.seen == ['a cast'])
    node.stop(server)
    assert not executor.alive
    # And once more, with an executor of its own
    server.start(override_pool_size=2)
    assert type(server._work_executor) is KINDS[name]
    assert server._work_executor is not executor
    assert server._work_executor._max_workers == 2
    assert client.call({}, 'echo', value='again') == 'again'


@every_executor
def test_notification_listener(node, name):
    listening = node.listener(
        transport=node.notification_transport(rpc_zmq_executor=name))
    assert type(listening._work_executor) is KINDS[name]
    notifier = node.notifier()
    for number in range(10):
        notifier.info({}, 'event', {'number': number})
    waiting.until(lambda: len(listening.seen) == 10)


@every_executor
def test_batch_notification_listener(node, name):
    class Endpoint:
        def info(self, batch):
            seen.extend(each['payload']['number'] for each in batch)
    seen = []
    listening = oslo_messaging.get_batch_notification_listener(
        node.notification_transport(rpc_zmq_executor=name),
        [oslo_messaging.Target(topic='notes')], [Endpoint()], batch_size=3,
        batch_timeout=0.2)
    listening.endpoint = None
    listening.start()
    node.closing(node.stop, listening)
    assert type(listening._work_executor) is KINDS[name]
    notifier = node.notifier()
    for number in range(10):
        notifier.info({}, 'event', {'number': number})
    waiting.until(lambda: sorted(seen) == [*range(10)])


@pytest.mark.parametrize('name', ['fast', 'server'])
def test_endpoints_that_call_each_other_find_workers(node, name):
    """Each waits for another worker of the same server."""
    class Endpoint:
        def down(self, ctxt, depth):
            return depth and client.call({}, 'down', depth=depth - 1) + 1
    client = node.client(timeout=20)
    node.server(transport=node.transport(rpc_zmq_executor=name),
                endpoint=Endpoint(), workers=8)
    for _ in range(5):
        assert client.call({}, 'down', depth=7) == 7


@pytest.mark.parametrize('name', ['fast', 'server'])
def test_a_signal_handler_stops_the_server(node, name):
    server = node.server(transport=node.transport(rpc_zmq_executor=name))
    client = node.client()
    assert client.call({}, 'echo', value=1) == 1
    client.cast({}, 'wait', value='in progress')
    waiting.until(lambda: server.endpoint.seen)
    ended = []

    def handle(number, frame):
        server.endpoint.release.set()
        server.stop()
        server.wait()
        ended.append(number)
    before = signal.signal(signal.SIGTERM, handle)
    try:
        signal.raise_signal(signal.SIGTERM)
        waiting.until(lambda: ended)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not server._work_executor.alive
    assert server.endpoint.seen == ['in progress']


def test_threads_of_workers_are_named_as_before(node):
    class Endpoint:
        def name(self, ctxt):
            return threading.current_thread().name
    names = []
    for name in 'fast', 'server':
        node.server(topic=name, endpoint=Endpoint(),
                    transport=node.transport(rpc_zmq_executor=name))
        names.append(node.client(topic=name).call({}, 'name'))
    assert all(each.rstrip('0123456789') == 'Thread-' for each in names)


def test_a_name_that_nobody_has_is_told(node):
    server = oslo_messaging.get_rpc_server(
        node.transport(rpc_zmq_executor='nonsense'),
        oslo_messaging.Target(topic='topic', server='server'), [])
    with pytest.raises(Exception) as raised:
        server.start()
    causes = [raised.value, raised.value.__context__]
    assert any(isinstance(each, errors.ConfigurationError)
               and 'nonsense' in str(each) for each in causes)


# What is known of oslo.messaging's server


class Server(oslo_server.MessageHandlingServer):
    """As oslo.messaging makes it, up to the start of the listener."""

    def __init__(self, executor):
        self._work_executor = executor

    def _process_incoming(self, incoming):
        pass

    def _create_listener(self):
        pass


class Another(futurist.ThreadPoolExecutor):
    pass


def test_the_server_makes_its_executor_before_its_listener_starts(node):
    """If this fails, read its start() and guard.equip() anew."""
    server = node.server(transport=node.transport(rpc_zmq_executor='server'))
    assert type(server._work_executor) is futurist.ThreadPoolExecutor
    assert guard._server(server._on_incoming) is server
    assert server._executor_cls is futurist.ThreadPoolExecutor
    new = futurist.ThreadPoolExecutor(5)
    assert guard._is_new(new)
    of_another = Server(new)
    guard.equip(of_another._on_incoming, 'fast')
    assert type(of_another._work_executor) is fast_executor.FastExecutor
    assert of_another._work_executor._max_workers == 5
    assert not new.alive


def _used():
    executor = futurist.ThreadPoolExecutor(1)
    executor.submit(int).result(30)
    return executor


@pytest.mark.parametrize('made', [
    Another, futurist.SynchronousExecutor, _used, lambda: None])
def test_what_is_not_known_is_left_alone(made, caplog):
    executor = made()
    server = Server(executor)
    with caplog.at_level(logging.DEBUG):
        guard.equip(server._on_incoming, 'fast')
        guard.equip(print, 'fast')
    assert server._work_executor is executor
    assert [each.getMessage().startswith('The executor of ')
            for each in caplog.records
            if each.name.startswith('zmq_threaded')] == [True, True]
    if executor is not None:
        executor.shutdown()
