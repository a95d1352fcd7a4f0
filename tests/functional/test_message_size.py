# SPDX-License-Identifier: Apache-2.0
"""Messages that are too big are refused by name, and nothing is lost."""

import oslo_messaging
import pytest

from tests.support import rpc
from tests.support import waiting
from zmq_threaded import errors

LIMIT = 100_000
NAME = 'rpc_zmq_max_message_size'
FITS, TOO_BIG = 'x' * (LIMIT - 1000), 'x' * LIMIT


class Endpoint(rpc.Recorder):
    def big(self, ctxt, size):
        return 'x' * size

    def fail_big(self, ctxt, size):
        raise ValueError('x' * size)


@pytest.fixture(params=['direct', 'receiver'])
def limited(request, node):
    """A server whose side, and whose clients' side, has the limit."""
    if request.param == 'receiver':
        node.receiver(**{NAME: LIMIT})
    node.query = {**node.query, NAME: LIMIT}
    return node.server(endpoint=Endpoint())


def _is_named(raised, limit=LIMIT):
    text = str(raised.value)
    assert NAME in text and str(limit) in text
    assert 'xxx' not in text


@pytest.mark.parametrize('fanout', [False, True])
def test_a_request_that_is_too_big_is_refused_before_it_is_sent(
        node, limited, fanout):
    transport = node.transport()
    client = node.client(transport, fanout=fanout)
    with pytest.raises(oslo_messaging.MessageDeliveryFailure) as raised:
        client.cast({}, 'note', value=TOO_BIG)
    _is_named(raised)
    assert "topic" in str(raised.value)
    assert rpc.driver(transport).counters().get('sent', 0) == 0
    client.cast({}, 'note', value=FITS)
    assert node.client(transport).call({}, 'echo', value=FITS) == FITS


@pytest.mark.parametrize('monitor', [None, 5])
def test_a_call_that_is_too_big(node, limited, monitor):
    client = node.client(call_monitor_timeout=monitor)
    with pytest.raises(errors.MessageDeliveryFailure) as raised:
        client.call({}, 'echo', value=TOO_BIG)
    _is_named(raised)
    assert client.call({}, 'echo', value=FITS) == FITS


def test_a_notification_that_is_too_big(node):
    node.query = {NAME: LIMIT}
    listener = node.listener()
    notifier = node.notifier()
    # The Notifier logs what the driver refuses, and raises nothing.
    notifier.info({}, 'event', TOO_BIG)
    notifier.info({}, 'event', FITS)
    waiting.until(lambda: listener.seen)
    assert listener.seen == [FITS]


@pytest.mark.parametrize('monitor', [None, 5])
@pytest.mark.parametrize('method', ['big', 'fail_big'])
def test_a_reply_that_is_too_big_becomes_a_failure_that_says_so(
        node, limited, method, monitor):
    client = node.client(call_monitor_timeout=monitor)
    for _ in range(2):
        with pytest.raises(Exception) as raised:
            client.call({}, method, size=LIMIT * 2)
        assert not isinstance(raised.value, errors.MessagingTimeout)
        _is_named(raised)
    assert client.call({}, 'big', size=LIMIT - 1000) == FITS


@pytest.mark.parametrize('monitor', [None, 5])
def test_a_reply_that_only_the_client_does_not_take_ends_the_call(
        node, monitor):
    node.server(endpoint=Endpoint())
    client = node.client(node.transport(**{NAME: LIMIT}), timeout=20,
                         call_monitor_timeout=monitor)
    with pytest.raises(errors.ServerGone):
        client.call({}, 'big', size=LIMIT * 5)
    assert client.call({}, 'big', size=10) == 'x' * 10


@pytest.mark.parametrize('fanout', [False, True])
def test_the_lower_limit_of_a_service_is_heeded(node, caplog, fanout):
    server = node.server(endpoint=Endpoint(),
                         transport=node.transport(**{NAME: LIMIT}))
    transport = node.transport()
    for monitor in None, 5:
        client = node.client(transport, call_monitor_timeout=monitor)
        with pytest.raises(errors.MessageDeliveryFailure) as raised:
            client.call({}, 'echo', value=TOO_BIG)
        _is_named(raised)
        assert 'server' in str(raised.value)
    client = node.client(transport, fanout=fanout)
    client.cast({}, 'note', value=TOO_BIG)
    waiting.until(lambda: NAME in caplog.text)
    client.cast({}, 'note', value=FITS)
    waiting.until(lambda: server.endpoint.seen == [FITS])
    counters = rpc.driver(transport).counters()
    # The monitored call and the cast
    assert counters['dropped_refused'] == 2
    assert not counters.get('resent')
