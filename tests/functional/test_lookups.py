# SPDX-License-Identifier: Apache-2.0
"""What a look-up, a question or a look at the outbox says, and what a failed
one does not say.
"""

import os
import threading
import time

import oslo_messaging
import pytest

from tests.support import rpc
from tests.support import waiting
from zmq_threaded import errors
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import dealer_connection
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import outbox as outboxes
from zmq_threaded.client import send_queue
from zmq_threaded.registry import cached
from zmq_threaded.registry import registry as registries

AT_LEAST_ONCE = {'transport_options': oslo_messaging.TransportOptions(
    at_least_once=True)}
FEW_LOOKS = {'retry': 2}
TARGET = oslo_messaging.Target(topic='notes.info')


class Doing:
    """A function in a thread of its own; what it raised as .error."""

    def __init__(self, function, *args, **kwargs):
        self.error = None
        self._thread = threading.Thread(target=self._run,
                                        args=(function, args, kwargs))
        self._thread.start()

    def _run(self, function, args, kwargs):
        try:
            function(*args, **kwargs)
        except Exception as error:
            self.error = error

    def has_ended(self):
        return not self._thread.is_alive()

    def end(self, seconds=20):
        """What it raised."""
        waiting.until(self.has_ended, seconds)
        return self.error


# A registry that is down says nothing of who is there


class Registry:
    """The embedded one of a node, out of order until mend() is called."""

    def __init__(self, ipc_dir):
        self._path = os.path.join(ipc_dir, 'registry', 'groups')
        os.mkdir(os.path.dirname(self._path), 0o700)
        with open(self._path, 'w'):
            pass        # where it wants to have a folder

    def mend(self):
        os.unlink(self._path)


@pytest.fixture
def registry(node):
    """One that is down, of which nothing was ever known."""
    node.query = {'zmq_target_update': 1}
    return Registry(node.ipc_dir)


def _failures(transport):
    return rpc.driver(transport).counters().get('registry_errors', 0)


def _looks_in_vain(transport, doing):
    """Wait until more look-ups have failed than senders here allow."""
    waiting.until(lambda: doing.has_ended() or _failures(transport) > 4)
    assert not doing.has_ended(), doing.error


@pytest.mark.parametrize('method', ['call', 'cast'])
@pytest.mark.parametrize('limit, ends', [
    (AT_LEAST_ONCE, oslo_messaging.MessageUndeliverable),
    (FEW_LOOKS, oslo_messaging.MessageDeliveryFailure)])
def test_only_answered_look_ups_are_used_up(node, registry, method, limit,
                                            ends):
    transport = node.transport(rpc_cast_timeout=60)
    client = node.client(transport, timeout=60, **limit)
    sending = Doing(getattr(client, method), {}, 'note', value=1)
    _looks_in_vain(transport, sending)
    registry.mend()
    assert type(sending.end()) is ends


@pytest.mark.parametrize('limit', [AT_LEAST_ONCE, FEW_LOOKS])
def test_what_was_sent_with_the_registry_down_arrives_when_it_is_back(
        node, registry, limit):
    transport = node.transport(rpc_cast_timeout=60)
    sending = Doing(node.client(transport, timeout=60, **limit).cast, {},
                    'note', value='kept')
    _looks_in_vain(transport, sending)
    server = node.server()
    registry.mend()
    waiting.until(lambda: server.endpoint.seen == ['kept'], 20)
    assert sending.end() is None


@pytest.mark.parametrize('limit', [AT_LEAST_ONCE, FEW_LOOKS])
@pytest.mark.parametrize('monitored', [None, 60])
def test_a_call_with_the_registry_down_ends_at_its_own_timeout(
        node, registry, limit, monitored):
    client = node.client(timeout=2, call_monitor_timeout=monitored, **limit)
    with pytest.raises(oslo_messaging.MessagingTimeout):
        client.call({}, 'note', value=1)


@pytest.mark.parametrize('limit', [AT_LEAST_ONCE, FEW_LOOKS])
def test_a_confirmed_cast_with_the_registry_down_ends_at_rpc_cast_timeout(
        node, registry, limit):
    client = node.client(node.transport(rpc_cast_timeout=2), **limit)
    with pytest.raises(oslo_messaging.MessageDeliveryFailure,
                       match='rpc_cast_timeout'):
        client.cast({}, 'note', value=1)


def test_a_fanout_that_waited_for_the_registry_is_for_those_who_were_there(
        node, registry):
    transport = node.transport()
    client = node.client(transport, fanout=True)
    client.cast({}, 'note', value='early')
    waiting.until(lambda: _failures(transport) > 1)
    registry.mend()
    counted = rpc.driver(transport).counters
    waiting.until(lambda: counted().get('fanouts_to_nobody') == 1)
    server = node.server()
    client.cast({}, 'note', value='late')
    waiting.until(lambda: server.endpoint.seen == ['late'])


def test_a_fanout_is_for_all_who_are_registered_when_it_looks(node):
    """cast() does not wait for that; who comes in between gets it too."""
    # Given a sender whose registry thread does not come to look
    transport, go_on = node.transport(), threading.Event()
    registry = rpc.driver(transport)._parts().registry
    registry.ask(topics.rpc('openstack', 'other'),
                 lambda looked_at: go_on.wait(20))
    first = node.server(server='first')
    client = node.client(transport, fanout=True)
    # When a server comes after cast() has returned
    client.cast({}, 'note', value=1)
    late = node.server(server='late')
    go_on.set()
    # Then those who were there have it for certain, and the late one too
    for server in (first, late):
        waiting.until(lambda: server.endpoint.seen == [1])


def test_a_notification_with_few_retries_outlasts_a_registry_that_is_down(
        node, registry):
    transport = node.notification_transport(rpc_cast_timeout=60)
    sending = Doing(transport._send_notification, TARGET, {},
                    {'payload': 1}, version=2.0, retry=2)
    _looks_in_vain(transport, sending)
    registry.mend()
    assert isinstance(sending.end(), oslo_messaging.MessageDeliveryFailure)


def test_a_process_that_ends_waits_with_its_notifications_for_the_registry(
        node, registry):
    # Given a notification whose listeners nobody could look up
    transport = node.notification_transport(rpc_cast_timeout=60)
    node.notifier(transport=transport).info({}, 'e', 'kept')
    waiting.until(lambda: _failures(transport) > 4)
    # When its sender ends, and then the registry is back with a listener
    outbox = rpc.driver(transport)._parts().outbox
    ending = Doing(transport.cleanup)
    waiting.until(lambda: outbox._flushers or ending.has_ended())
    listening = node.listener()
    registry.mend()
    # Then it is delivered before the sender is gone
    waiting.until(lambda: listening.seen == ['kept'], 20)
    assert ending.end() is None


# A server that has a call is not one that runs it


def test_a_monitored_call_behind_busy_workers_ends_at_its_monitor_timeout(
        node, monkeypatch):
    # Given a service whose workers are busy, asked all the time what it has
    monkeypatch.setattr(send_queue, '_ASK_AFTER', 0.3)
    monkeypatch.setattr(dealer_connection, '_ASK_AT_MOST_EVERY', 0.3)
    server = node.server(workers=1)
    transport = node.transport()
    node.client(transport).cast({}, 'wait', value='busy')
    waiting.until(lambda: server.endpoint.seen == ['busy'])
    told = _told(monkeypatch)
    # When a call with a long timeout is queued behind them
    calling = Doing(node.client(transport, timeout=60,
                                call_monitor_timeout=2).call,
                    {}, 'note', value='queued')
    # Then it ends by the silence, though the service says that it has it
    assert isinstance(calling.end(), oslo_messaging.MessagingTimeout)
    assert told.count(deliveries.TAKEN) > 1
    assert deliveries.HEARTBEAT not in told


def _told(monkeypatch):
    """The events of all calls."""
    told, tell = [], deliveries.Delivery.tell

    def tapped(delivery, event, detail=None):
        if delivery.kind == wire.CALL:
            told.append(event)
        tell(delivery, event, detail)
    monkeypatch.setattr(deliveries.Delivery, 'tell', tapped)
    return told


# The outbox says what it holds, or that it cannot say


def test_a_busy_outbox_does_not_say_that_nothing_waits(node):
    transport = node.transport()
    driver = rpc.driver(transport)
    outbox = driver._parts().outbox
    node.client(transport).cast({}, 'note', value='waits')
    waiting.until(driver.unacknowledged)
    go_on = threading.Event()
    node.closing(go_on.set)
    outbox._tell(lambda: go_on.wait(30))
    with pytest.raises(oslo_messaging.MessagingTimeout,
                       match='1 messages.*0.1 s'):
        driver.unacknowledged(timeout=0.1)
    go_on.set()
    assert driver.unacknowledged(timeout=20)


def test_a_message_to_a_destination_that_is_just_forgotten_is_pending(
        node, monkeypatch, eager_switching):
    # Given an outbox that forgets idle destinations all the time
    monkeypatch.setattr(outboxes, '_FORGET_EVERY', 0.0)
    outbox, counted = node.runtime().outbox, []
    topic = topics.rpc('', 'topic')
    # When messages are posted and withdrawn
    for _ in range(300):
        message = _cast(topic)
        outbox.post(message, 0.0)
        counted.append(outbox.pending())
        outbox.withdraw(message)
        waiting.until(lambda: not outbox.pending())
    # Then each was known of, from the moment on when it was posted
    assert set(counted) <= {1, 2} and counted.count(2) < 10


def _cast(topic):
    return deliveries.Delivery(
        kind=wire.CAST, topic=topic, body=[b'{}', b'{}'], flags=0,
        expires=time.monotonic() + 60)


def _refusal(outbox, topic):
    with pytest.raises(errors.NotAccepted) as refusal:
        outbox.post(_cast(topic), 0.0)
    return str(refusal.value)


def test_senders_that_do_not_wait_cannot_flood_the_outbox(node, monkeypatch):
    monkeypatch.setattr(outboxes, '_INBOX_LIMIT', 20)
    monkeypatch.setattr(outboxes, '_INBOX_WAIT', 0.01)
    outbox = node.runtime(rpc_zmq_outbox_limit=1).outbox
    topic, goes_on = topics.rpc('', 'topic'), threading.Event()
    # Given an outbox that is busy, and has no room
    outbox._loop.start()
    outbox._tell(lambda: goes_on.wait(30))
    try:
        outbox.post(_cast(topic), 0.0)
        # When many want room
        refused = [_refusal(outbox, topic) for _ in range(50)]
        # Then they are refused, and do not wait for it inside
        assert all('no room' in reason for reason in refused)
        # (And with them what the facts of the process ask.)
        assert sum(not callable(each) for each in outbox._inbox) <= 21
    finally:
        goes_on.set()


# Who asks at the last moment


def test_who_asks_a_registry_that_just_ends_does_not_wait(
        node, monkeypatch):
    known = node.runtime().registry
    ask = known.ask

    def ask_behind_the_end(*args):
        known.stop()
        assert known.join(time.monotonic() + 20)
        ask(*args)
    monkeypatch.setattr(known, 'ask', ask_behind_the_end)
    resolving = Doing(known.resolve, topics.rpc('', 'topic'),
                      time.monotonic() + 25)
    assert isinstance(resolving.end(), errors.Nobody)


# Looking for nobody


class LookUps:
    """When a driver looked topics up, in monotonic seconds."""

    def __init__(self, transport, monkeypatch):
        self.times = []
        registry = rpc.driver(transport)._parts().registry._store
        lookup = registry.lookup

        def noted(key):
            self.times.append(time.monotonic())
            return lookup(key)
        monkeypatch.setattr(registry, 'lookup', noted)

    def last_gap(self):
        return self.times[-1] - self.times[-2] if self.times[1:] else 0


def _wait_long(node, monkeypatch):
    """Cast to nobody; wait until it is seldom looked for."""
    transport = node.transport(zmq_target_update=4, rpc_cast_timeout=5)
    look_ups = LookUps(transport, monkeypatch)
    node.client(transport).cast({}, 'note', value='early')
    waiting.until(lambda: look_ups.last_gap() > 2, 30)
    return transport, look_ups


def test_the_longer_there_is_nobody_the_less_it_is_looked_for(
        node, monkeypatch):
    transport, look_ups = _wait_long(node, monkeypatch)
    server = node.server()
    waiting.until(lambda: server.endpoint.seen == ['early'], 20)
    # Never less often than a topic that has somebody.
    assert max(after - before for before, after in zip(
        look_ups.times, look_ups.times[1:])) < 4 + 10


@pytest.mark.parametrize('limit, ends', [
    (AT_LEAST_ONCE, oslo_messaging.MessageUndeliverable),
    (FEW_LOOKS, oslo_messaging.MessageDeliveryFailure)])
@pytest.mark.parametrize('method', ['call', 'cast'])
def test_who_waits_for_an_answer_is_not_let_wait_by_who_does_not(
        node, monkeypatch, limit, ends, method):
    transport, look_ups = _wait_long(node, monkeypatch)
    seen, slow = len(look_ups.times), look_ups.last_gap()
    client = node.client(transport, timeout=20, **limit)
    asked_at = time.monotonic()
    with pytest.raises(ends):
        getattr(client, method)({}, 'note', value=1)
    assert look_ups.times[seen] - asked_at < slow / 2


def test_an_idle_topic_is_not_forgotten_while_the_registry_is_down(
        node, monkeypatch):
    monkeypatch.setattr(cached, '_REFRESHED', 1)
    monkeypatch.setattr(cached, '_KEPT', 3)
    node.server()
    transport = node.transport(zmq_target_update=1, zmq_target_expire=3)
    known = rpc.driver(transport)._parts().registry
    client = node.client(transport)
    assert client.call({}, 'echo', value=1) == 1
    key, = (entry.key for entry in known.cache.entries())
    registry = known._store
    down = threading.Event()
    lookup = registry.lookup

    def fails_while_down(key):
        if down.is_set():
            raise ConnectionError('down')
        return lookup(key)
    monkeypatch.setattr(registry, 'lookup', fails_while_down)
    down.set()
    waiting.until(lambda: _failures(transport) > 2, 30)
    entry = known.cache.entries()[0]
    assert entry.key == key and entry.listed
    assert client.call({}, 'echo', value=2) == 2
    down.clear()
    waiting.until(known.cache.is_empty, 30)
    assert client.call({}, 'echo', value=3) == 3


def test_many_topics_are_forgotten_without_holding_others_up(
        node, monkeypatch):
    monkeypatch.setattr(cached, '_KEPT', -1)
    known = node.runtime().registry
    for number in range(20):
        known.cache.entry(topics.rpc('', f'idle {number}').key)
    wanted, waits = topics.rpc('', 'wanted').key, []

    def lookup(key):
        # Somebody comes during the first look-up
        if not waits:
            known._tasks.put(lambda: known._look_ups.want(wanted))
        waits.append(wanted in known._look_ups._wanted)
        return []
    monkeypatch.setattr(known._store, 'lookup', lookup)
    known._turn()
    assert waits == [False] + 19 * [True]


def test_who_is_only_passed_over_is_looked_for_often(node):
    known = node.runtime().registry
    entry = cached.Entry('key', listed=(object(),))
    assert max(known._look_ups._spacing(entry, 0.0, True)
               for entry.spacing in (0.1, 1, 10)) == registries.AT_ONCE
    nobody = cached.Entry('key', spacing=1.0)
    assert known._look_ups._spacing(nobody, 0.0, True) > 1
