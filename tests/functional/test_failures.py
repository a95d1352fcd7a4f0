# SPDX-License-Identifier: Apache-2.0
"""What the sender learns when something is not there, late, or dies."""

import os
import threading
import time

import oslo_messaging
import pytest

from tests.support import waiting
from zmq_threaded import endpoints
from zmq_threaded import errors
from zmq_threaded import timings
from zmq_threaded import topic
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import opening

AT_LEAST_ONCE = oslo_messaging.TransportOptions(at_least_once=True)


def _seconds(function, *args, **kwargs):
    started = time.monotonic()
    function(*args, **kwargs)
    return time.monotonic() - started


def _raises(exception, function, *args, **kwargs):
    def check():
        with pytest.raises(exception):
            function(*args, **kwargs)
    return _seconds(check)


@pytest.mark.parametrize('timeout', [1, 0.5])
def test_call_to_nobody_times_out_in_time(node, timeout):
    client = node.client(timeout=timeout)
    assert timeout <= _raises(oslo_messaging.MessagingTimeout, client.call,
                              {}, 'echo', value=1) < timeout + 15


@pytest.mark.parametrize('retry', [None, -1])
def test_without_a_limit_of_retries_a_call_waits_for_its_server(node, retry):
    client = node.client(retry=retry, timeout=30)
    result = []
    thread = threading.Thread(target=lambda: result.append(
        client.call({}, 'echo', value='late')))
    thread.start()
    node.server()
    thread.join(30)
    assert result == ['late']


@pytest.mark.parametrize('retry, least', [(0, 0), (3, 0.3)])
def test_retries_used_up_fail_call_and_cast(node, retry, least):
    client = node.client(retry=retry, timeout=60)
    for send in (client.call, client.cast):
        assert least <= _raises(oslo_messaging.MessageDeliveryFailure, send,
                                {}, 'note', value=1) < least + 20


@pytest.mark.parametrize('retry', [0, 2, None])
def test_retry_does_not_matter_with_a_server(node, retry):
    server = node.server()
    client = node.client(retry=retry)
    assert client.call({}, 'echo', value=1) == 1
    client.cast({}, 'note', value=2)
    waiting.until(lambda: server.endpoint.seen == [2])


def test_call_timeout_wins_over_retries(node):
    client = node.client(retry=1000, timeout=0.5)
    assert _raises(oslo_messaging.MessagingTimeout, client.call, {}, 'echo',
                   value=1) < 20


@pytest.mark.parametrize('method', ['call', 'cast'])
def test_at_least_once_to_nobody_is_undeliverable_at_once(node, method):
    client = node.client(transport_options=AT_LEAST_ONCE, timeout=60)
    with pytest.raises(oslo_messaging.MessageUndeliverable) as raised:
        getattr(client, method)({}, 'note', value=1)
    assert raised.value.routing_key == 'topic'
    assert raised.value.exchange == 'openstack'
    assert raised.value.message['args'] == {'value': 1}


def test_at_least_once_cast_returns_when_the_server_has_it(node):
    server = node.server(workers=1)
    client = node.client(node.transport(rpc_cast_timeout=60), timeout=60,
                         transport_options=AT_LEAST_ONCE)
    client.cast({}, 'wait', value=1)
    # The only worker is busy, and yet the second cast is confirmed.
    waiting.until(lambda: server.endpoint.seen == [1])
    assert _seconds(client.cast, {}, 'note', value=2) < 20
    assert server.endpoint.seen == [1]
    server.endpoint.release.set()
    waiting.until(lambda: server.endpoint.seen == [1, 2])


def test_cast_to_nobody_does_not_block_and_waits_for_its_server(node):
    client = node.client(node.transport(rpc_cast_timeout=60), timeout=60)
    for number in range(100):
        assert _seconds(client.cast, {}, 'note', value=number) < 20
    server = node.server()
    waiting.until(lambda: sorted(server.endpoint.seen) == list(range(100)))


def test_cast_to_nobody_does_not_delay_other_topics(node):
    transport = node.transport()
    server = node.server()
    for number in range(100):
        node.client(transport, topic='nobody').cast({}, 'note', value=number)
    client = node.client(transport)
    client.cast({}, 'note', value='here')
    waiting.until(lambda: server.endpoint.seen == ['here'], 20)


def test_slow_call_times_out_and_its_late_reply_harms_nobody(node):
    server = node.server(workers=4)
    transport = node.transport()
    with pytest.raises(oslo_messaging.MessagingTimeout, match='topic'):
        node.client(transport, timeout=0.3).call({}, 'wait', value='slow')
    client = node.client(transport)
    assert client.call({}, 'echo', value='next') == 'next'
    server.endpoint.release.set()
    for number in range(50):
        assert client.call({}, 'echo', value=number) == number


def test_expired_requests_are_not_executed(node):
    server = node.server(workers=1)
    transport = node.transport()
    node.client(transport).cast({}, 'wait', value='busy')
    waiting.until(lambda: server.endpoint.seen == ['busy'])
    with pytest.raises(oslo_messaging.MessagingTimeout):
        node.client(transport, timeout=0.3).call({}, 'note', value='expired')
    server.endpoint.release.set()
    client = node.client(transport)
    client.call({}, 'note', value='after')
    assert server.endpoint.seen == ['busy', 'after']


def test_a_call_given_up_while_its_server_was_paused_is_not_run(node):
    server = node.process()
    client = node.client(timeout=30)
    client.call({}, 'echo', value=1)
    server.pause()
    with pytest.raises(oslo_messaging.MessagingTimeout):
        client.prepare(timeout=1).call({}, 'note', value='given up')
    server.resume()
    client.call({}, 'note', value='after')
    assert server.ask('seen') == ['after']


def test_a_confirmed_cast_lives_as_long_as_any_other(node):
    server = node.server(workers=1)
    transport = node.transport(rpc_cast_timeout=1)
    node.client(transport).cast({}, 'wait', value='busy')
    waiting.until(lambda: server.endpoint.seen)
    started = time.monotonic()
    node.client(transport, transport_options=AT_LEAST_ONCE).cast(
        {}, 'note', value='confirmed')
    waiting.until(lambda: time.monotonic() > started + 1.5)
    server.endpoint.release.set()
    waiting.until(lambda: server.endpoint.seen == ['busy', 'confirmed'])


def test_what_the_server_cannot_read_is_refused_and_not_sent_again(node):
    server = node.server()
    transport = node.transport(rpc_zmq_serialization='msgpack')
    unreadable = {(1, 2): 3}
    with pytest.raises(oslo_messaging.MessageDeliveryFailure):
        node.client(transport).call({}, 'note', value=unreadable)
    node.client(transport).cast({}, 'note', value=unreadable)
    counters = transport._driver.counters
    waiting.until(lambda: counters().get('dropped') == 1)
    assert not counters().get('resent')
    assert server.endpoint.seen == []


class ContextObject:
    def to_dict(self):
        return {'user': 'u'}


def test_a_context_may_be_an_object_with_to_dict_and_nothing_else(node):
    server = node.server()
    client = node.client()
    client.call(ContextObject(), 'note', value=1)
    assert server.endpoint.seen == [1]
    with pytest.raises(AttributeError):
        client.call(None, 'note', value=2)


def test_a_cast_after_the_driver_was_closed_is_refused(node):
    parts = node.runtime()
    parts.close(time.monotonic() + 1)
    with pytest.raises(errors.NotAccepted):
        parts.outbox.post(deliveries.Delivery(
            kind=wire.CAST, topic=topic.rpc('e', 't'), body=[], flags=0,
            expires=time.monotonic() + 60), time.monotonic())


def test_a_fanout_finds_its_topic_however_long_it_lay_idle(node):
    server = node.server()
    transport = node.transport(zmq_target_update=1)
    client = node.client(transport, fanout=True)
    client.cast({}, 'note', value=0)
    entries = transport._driver._parts().registry.cache._entries
    for number in range(1, 30):
        for entry in list(entries.values()):
            entry.idle_refreshes = 1000
        client.cast({}, 'note', value=number)
    waiting.until(lambda: sorted(server.endpoint.seen) == list(range(30)))


def test_monitored_call_outlives_its_monitor_timeout(node):
    node.server()
    client = node.client(timeout=60, call_monitor_timeout=2)
    server = node.process(topic='long')
    client = client.prepare(topic='long')
    assert client.call({}, 'sleep', seconds=3) == server.pid


def test_monitored_call_ends_when_its_server_dies(node):
    server = node.process()
    client = node.client(timeout=60, call_monitor_timeout=40)
    client.call({}, 'echo', value=1)
    threading.Timer(0.3, server.kill).start()
    assert _raises(errors.ServerGone, client.call, {}, 'sleep',
                   seconds=60) < 20


def test_monitored_call_to_nobody_times_out(node):
    client = node.client(timeout=60, call_monitor_timeout=1)
    assert _raises(oslo_messaging.MessagingTimeout, client.call, {}, 'echo',
                   value=1) < 20


def test_monitored_call_returns_exceptions(node):
    node.server()
    with pytest.raises(ValueError, match='why'):
        node.client(call_monitor_timeout=30).call({}, 'fail', text='why')


def test_call_in_progress_ends_when_its_server_is_killed(node):
    server = node.process()
    client = node.client(timeout=60)
    client.call({}, 'echo', value=1)
    threading.Timer(0.3, server.kill).start()
    with pytest.raises(errors.ServerGone, match='may have been executed'):
        client.call({}, 'sleep', seconds=60)


def test_one_of_three_killed_the_next_calls_succeed_at_once(
        node, monkeypatch):
    # Whoever tries to reach the dead one waits for long.
    monkeypatch.setattr(opening, '_CONNECT_WAIT', 60.0)
    servers = [node.process(server=name) for name in 'abc']
    client = node.client(timeout=60)
    pids = {client.call({}, 'pid') for _ in range(6)}
    assert pids == {server.pid for server in servers}
    servers[0].kill()
    for _ in range(50):
        assert _seconds(client.call, {}, 'pid') < 15


def test_casts_to_a_killed_server_go_to_the_next(node):
    first = node.process(server='first')
    client = node.client()
    client.call({}, 'echo', value=1)
    first.kill()
    for number in range(20):
        client.cast({}, 'note', value=number)
    second = node.process(server='second')
    waiting.until(lambda: sorted(second.ask('seen')) == list(range(20)))


@pytest.mark.parametrize('behind_a_receiver', [False, True])
def test_a_paused_server_ends_its_calls_and_others_go_on(
        node, request, behind_a_receiver):
    if behind_a_receiver:
        request.getfixturevalue('receiver')
    paused, other = node.process(server='a'), node.process(server='b')
    client = node.client(timeout=60)
    for _ in range(4):
        client.call({}, 'pid')
    paused.pause()
    ended = [_end_of(client) for _ in range(6)]
    assert {other.pid} < set(ended) <= {other.pid, 'gone'}
    paused.resume()


def _end_of(client):
    try:
        return client.call({}, 'pid')
    except errors.ServerGone:
        return 'gone'


def test_all_servers_restarted_the_next_call_succeeds(node):
    client = node.client(node.transport(zmq_target_update=1))
    server = node.server()
    assert client.call({}, 'echo', value=1) == 1
    node.stop(server)
    with pytest.raises(oslo_messaging.MessagingTimeout):
        client.prepare(timeout=2.5).call({}, 'echo', value=1)
    server.start(override_pool_size=1)
    assert client.call({}, 'echo', value=2) == 2


def test_cast_is_reported_when_nobody_takes_it_in_time(node, caplog):
    transport = node.transport(rpc_message_ttl=1)
    node.client(transport).cast({}, 'note', value=1)
    counters = transport._driver.counters
    waiting.until(lambda: counters().get('dropped') == 1)
    assert 'rpc_message_ttl' in caplog.text


def test_an_idle_connection_to_a_service_that_closes_is_not_used(node):
    # Given two services, and an idle connection to each
    closing, staying = (node.server(server=name) for name in ('a', 'b'))
    client = node.client()
    for number in range(4):
        client.call({}, 'note', value=number)
    instance = _instance(closing)
    # When one has renamed its file, as the first step of its end
    path = instance.endpoints[0].removeprefix('ipc://')
    os.rename(path, endpoints.closing_marker(path))
    seen = len(closing.endpoint.seen)
    time.sleep(2 * timings.FRESH)
    # Then no request follows, though the connection is still there
    for _ in range(10):
        client.call({}, 'note', value='later')
    assert len(closing.endpoint.seen) == seen
    assert staying.endpoint.seen.count('later') == 10


def test_a_service_that_closes_renames_its_file_before_it_goes(node):
    parts = node.runtime()
    service = parts.service([topic.rpc('', 'topic')])
    service.start(lambda messages: None)
    path = service.instance.endpoints[0].removeprefix('ipc://')
    gone_at, closed_at = [], []
    thread = threading.Thread(target=lambda: gone_at.append(
        waiting.until(lambda: not os.path.exists(path)) and time.monotonic()))
    thread.start()
    service.cleanup()
    closed_at.append(time.monotonic())
    thread.join()
    # A client trusts its connection for a shorter time without a look
    assert closed_at[0] - gone_at[0] > timings.FRESH


def _instance(server):
    return server.listener._service.current.instance
