# SPDX-License-Identifier: Apache-2.0
"""Notifiers and listeners as oslo.messaging's users know them."""

import threading
import time

import oslo_messaging
import pytest
from oslo_config import cfg

from tests.support import rpc
from tests.support import waiting
from zmq_threaded import topic
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries


class Listener:
    """A notification endpoint that keeps what it got."""

    def __init__(self, result=None):
        self.seen = []
        self.result = result
        self.release = threading.Event()
        self.release.set()

    def info(self, ctxt, publisher, event_type, payload, metadata):
        self.release.wait(30)
        self.seen.append(payload)
        return self.result

    error = info


class BatchListener:
    def __init__(self):
        self.batches = []

    def info(self, messages):
        self.batches.append([message['payload'] for message in messages])


@pytest.fixture
def listen(node):
    """Starts notification listeners in this process."""
    started = []

    def start(endpoint=None, topic='notes', pool=None, transport=None,
              exchange=None, batch=None, batch_timeout=None, **query):
        endpoint = endpoint or Listener()
        arguments = (transport or transport_of(node, **query),
                     [oslo_messaging.Target(topic=name, exchange=exchange)
                      for name in topic.split()], [endpoint])
        if batch:
            server = oslo_messaging.get_batch_notification_listener(
                *arguments, pool=pool, batch_size=batch, allow_requeue=True,
                batch_timeout=batch_timeout)
        else:
            server = oslo_messaging.get_notification_listener(
                *arguments, pool=pool, allow_requeue=True)
        server.endpoint = endpoint
        server.start(override_pool_size=4)
        started.append(server)
        return server
    yield start
    for server in started:
        if isinstance(server.endpoint, Listener):
            server.endpoint.release.set()
            server.endpoint.result = None
        server.stop()
        server.wait()


def transport_of(node, **query):
    transport = oslo_messaging.get_notification_transport(
        cfg.CONF, node.url(**query))
    node._stack.callback(transport.cleanup)
    return transport


def notifier(node, topic='notes', transport=None, retry=-1):
    return oslo_messaging.Notifier(
        transport or transport_of(node), 'publisher', driver='messagingv2',
        topics=topic.split(), retry=retry)


def test_a_notification_arrives_with_its_metadata(node, listen):
    class Full:
        def info(self, *arguments):
            self.got = arguments
    server = listen(Full())
    notifier(node).info({}, 'compute.start', {'id': 7})
    ctxt, publisher, event_type, payload, metadata = waiting.until(
        lambda: getattr(server.endpoint, 'got', None))
    assert (ctxt, publisher, event_type, payload) == (
        {}, 'publisher', 'compute.start', {'id': 7})
    assert set(metadata) == {'message_id', 'timestamp'}


@pytest.mark.parametrize('driver', ['messaging', 'messagingv2'])
def test_both_formats_arrive_alike(node, listen, driver):
    server = listen()
    oslo_messaging.Notifier(transport_of(node), 'p', driver=driver,
                            topics=['notes']).info({}, 'e', 'payload')
    waiting.until(lambda: server.endpoint.seen == ['payload'])


def test_priorities_and_topics_are_kept_apart(node, listen):
    one, two = listen(topic='one'), listen(topic='two')
    sender = notifier(node, 'one')
    sender.info({}, 'e', 'info')
    sender.error({}, 'e', 'error')
    sender.warn({}, 'e', 'nobody has a method for this one')
    waiting.until(lambda: sorted(one.endpoint.seen) == ['error', 'info'])
    assert two.endpoint.seen == []


def test_listeners_without_a_pool_share(node, listen):
    servers = [listen() for _ in range(3)]
    sender = notifier(node)
    for number in range(30):
        sender.info({}, 'e', number)
    waiting.until(lambda: sum(len(server.endpoint.seen)
                              for server in servers) >= 30)
    assert [len(server.endpoint.seen) for server in servers] == 3 * [10]
    assert sorted(number for server in servers
                  for number in server.endpoint.seen) == list(range(30))


def test_each_pool_gets_one_copy(node, listen):
    pools = {name: [listen(pool=name) for _ in range(2)]
             for name in ('a', 'b', None)}
    sender = notifier(node)
    for number in range(20):
        sender.info({}, 'e', number)
    for servers in pools.values():
        waiting.until(lambda: sum(len(server.endpoint.seen)
                                  for server in servers) >= 20)
        assert sorted(number for server in servers
                      for number in server.endpoint.seen) == list(range(20))


def test_one_listener_on_many_topics_is_one_instance(node, listen):
    server = listen(topic='a b c')
    for name in ('a', 'b', 'c'):
        notifier(node, name).info({}, 'e', name)
    waiting.until(lambda: sorted(server.endpoint.seen) == ['a', 'b', 'c'])
    assert len(server.transport._driver._parts()._services) == 1


def test_requeue_gives_it_to_another_of_the_pool(node, listen):
    refusing = listen(Listener(oslo_messaging.NotificationResult.REQUEUE))
    taking = listen()
    sender = notifier(node)
    for number in range(10):
        sender.info({}, 'e', number)
    waiting.until(lambda: sorted(taking.endpoint.seen) == list(range(10)))
    requeued = len(refusing.endpoint.seen)
    assert requeued
    waiting.until(lambda: rpc.driver(refusing.transport).counters()[
        'refused_requeued'] == requeued)


def test_requeued_to_the_only_listener_it_comes_again(node, listen):
    server = listen(Listener(oslo_messaging.NotificationResult.REQUEUE))
    notifier(node).info({}, 'e', 1)
    waiting.until(lambda: len(server.endpoint.seen) > 2)
    server.endpoint.result = oslo_messaging.NotificationResult.HANDLED
    held = rpc.driver(server.transport)._parts()._services[0]._reception.held
    waiting.until(lambda: not len(held))


@pytest.mark.parametrize('pool', ['late', None])
def test_without_a_listener_the_sender_does_not_block(node, listen, pool):
    transport = node.notification_transport(rpc_cast_timeout=60)
    sender = notifier(node, transport=transport)
    started = time.monotonic()
    for number in range(200):
        sender.info({}, 'e', number)
    assert time.monotonic() - started < 20
    server = listen(pool=pool)
    waiting.until(lambda: len(server.endpoint.seen) >= 200)
    assert sorted(server.endpoint.seen) == list(range(200))


def test_cleanup_waits_for_a_listener_that_was_never_there(node):
    transport = transport_of(node, rpc_cast_timeout=30)
    notifier(node, transport=transport).info({}, 'e', 1)
    closing = threading.Thread(target=transport.cleanup)
    closing.start()
    outbox = transport._driver._parts().outbox
    waiting.until(lambda: outbox._flushers)
    listening = node.listener()
    closing.join(20)
    assert not closing.is_alive()
    waiting.until(lambda: listening.seen == [1])


def test_cleanup_waits_for_a_pool_that_comes_back(node, listen):
    server = listen(pool='pool')
    transport = node.notification_transport(rpc_cast_timeout=30)
    sender = notifier(node, transport=transport)
    sender.info({}, 'e', 1)
    waiting.until(lambda: server.endpoint.seen)
    node.stop(server)
    # The copy for the pool is made from what is known of it
    parts = transport._driver._parts()
    parts.outbox.post(deliveries.Delivery(
        kind=wire.NOTIFY, topic=topic.pool('openstack', 'topic.info', 'pool'),
        body=[b'{}', b'{}'], flags=0, expires=time.monotonic() + 60),
        time.monotonic())
    deadline = time.monotonic() + 1
    assert not parts.outbox.begin_flush(deadline).wait(deadline)
    assert parts.outbox.pending() == 1


def test_with_nobody_the_oldest_is_dropped_and_reported(node, listen):
    transport = node.notification_transport(rpc_zmq_outbox_limit=50,
                                            rpc_cast_timeout=60)
    sender = notifier(node, transport=transport)
    started = time.monotonic()
    for number in range(120):
        sender.info({}, 'e', number)
    assert time.monotonic() - started < 20
    counters = transport._driver.counters
    waiting.until(lambda: counters().get('dropped', 0) >= 70)
    server = listen()
    waiting.until(lambda: len(server.endpoint.seen) >= 50)
    assert sorted(server.endpoint.seen) == list(range(70, 120))


def test_a_dead_pool_holds_up_no_other(node, listen):
    transport = node.notification_transport(rpc_zmq_outbox_limit=50,
                                            rpc_cast_timeout=60)
    living, leaving = listen(pool='living'), listen(pool='leaving')
    sender = notifier(node, transport=transport)
    sender.info({}, 'e', 'first')
    waiting.until(lambda: leaving.endpoint.seen)
    # Known to the registry still, as one that was killed is for a while.
    leaving.listener._service.current._registry.unregister = (
        lambda instance: None)
    leaving.stop()
    leaving.wait()
    started = time.monotonic()
    for number in range(200):
        sender.info({}, 'e', number)
    assert time.monotonic() - started < 20
    waiting.until(lambda: len(living.endpoint.seen) >= 201)


@pytest.mark.parametrize('retry', [0, 2])
def test_retry_is_honoured(node, retry):
    transport = transport_of(node)
    with pytest.raises(oslo_messaging.MessageDeliveryFailure):
        transport._send_notification(
            oslo_messaging.Target(topic='notes.info'), {}, {'a': 1},
            version=2.0, retry=retry)


def test_a_slow_listener_slows_its_senders_not_other_topics(node, listen):
    transport = transport_of(node, rpc_zmq_outbox_limit=20,
                             rpc_cast_timeout=1)
    slow, quick = listen(topic='slow'), listen(topic='quick')
    slow.endpoint.release.clear()
    sender = notifier(node, 'slow', transport)
    sender.info({}, 'e', 'known')
    for number in range(19):
        sender.info({}, 'e', number)
    target = oslo_messaging.Target(topic='slow.info')
    with pytest.raises(oslo_messaging.MessageDeliveryFailure):
        for _ in range(30):
            transport._send_notification(target, {}, {'a': 1}, version=2.0)
    notifier(node, 'quick', transport).info({}, 'e', 'at once')
    waiting.until(lambda: quick.endpoint.seen == ['at once'], 20)
    slow.endpoint.release.set()


def test_batches_are_as_large_as_asked_for(node, listen):
    server = listen(BatchListener(), batch=100, batch_timeout=1)
    sender = notifier(node)
    for number in range(205):
        sender.info({}, 'e', number)
    waiting.until(lambda: sum(map(len, server.endpoint.batches)) >= 205)
    assert [len(batch) for batch in server.endpoint.batches] == [100, 100, 5]


def test_a_batch_without_a_size_is_one_message(node, listen):
    endpoint = BatchListener()
    server = oslo_messaging.get_batch_notification_listener(
        transport_of(node), [oslo_messaging.Target(topic='notes')],
        [endpoint])
    server.start(override_pool_size=1)
    notifier(node).info({}, 'e', 1)
    waiting.until(lambda: endpoint.batches == [[1]])
    server.stop()
    server.wait()


def test_a_batch_is_not_stopped_by_a_small_backlog(node, listen):
    server = listen(BatchListener(), batch=20, rpc_zmq_topic_backlog=5)
    sender = notifier(node)
    for number in range(20):
        sender.info({}, 'e', number)
    waiting.until(lambda: [len(batch) for batch in server.endpoint.batches]
                  == [20])


def test_stop_hands_over_a_batch_that_is_not_full(node, listen):
    server = listen(BatchListener(), batch=10)
    sender = notifier(node)
    for number in range(3):
        sender.info({}, 'e', number)
    counters = server.transport._driver._parts()._services[0]._reception.held
    waiting.until(lambda: len(counters) == 3)
    server.stop()
    server.wait()
    assert server.endpoint.batches == [[0, 1, 2]]


def test_a_process_that_only_notifies_needs_no_rpc_option(node, listen):
    server = listen()
    conf = cfg.ConfigOpts()
    conf([], project='only_notifies')
    transport = oslo_messaging.get_notification_transport(conf, node.url())
    assert 'rpc_response_timeout' not in conf
    transport._send_notification(oslo_messaging.Target(topic='notes.info'),
                                 {}, {'priority': 'INFO', 'payload': 1,
                                      'event_type': 'e', 'publisher_id': 'p'},
                                 version=2.0)
    waiting.until(lambda: server.endpoint.seen == [1])
    transport.cleanup()
