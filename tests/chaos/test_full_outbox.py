# SPDX-License-Identifier: Apache-2.0
"""Several copies of each message, and destinations that are full all the
time: senders wait for room, and none of them is refused.
"""

import threading

import pytest

from tests.support import rpc
from tests.support import waiting
from zmq_threaded.client import outbox as outboxes

pytestmark = pytest.mark.timeout(240)
_THREADS, _COUNT, _RECEIVERS, _POOLS = 4, 3000, 5, 3


@pytest.fixture(params=[50, 10_000], ids=lambda limit: f'limit {limit}')
def limit(request, monkeypatch):
    # The machine is quick: so it is behind with less than a thousand.
    monkeypatch.setattr(outboxes, '_INBOX_LIMIT', 20)
    return request.param


def _send(send):
    """:returns: what was raised"""
    failed = []

    def work(first):
        for number in range(first, first + _COUNT // _THREADS):
            try:
                send(number)
            except Exception as error:
                failed.append(str(error))
    senders = [threading.Thread(target=work,
                                args=(index * _COUNT // _THREADS,))
               for index in range(_THREADS)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(200)
    return failed


def _have_all(endpoints):
    waiting.until(lambda: all(len(endpoint.seen) >= _COUNT
                              for endpoint in endpoints), 60)
    for endpoint in endpoints:
        assert sorted(endpoint.seen) == list(range(_COUNT))


def test_fanouts_to_several_servers(node, limit):
    servers = [node.server(server=f's{number}', workers=2)
               for number in range(_RECEIVERS)]
    transport = node.transport(rpc_zmq_outbox_limit=limit,
                               rpc_cast_timeout=60)
    client = node.client(transport, fanout=True)
    assert _send(lambda number: client.cast({}, 'note', value=number)) == []
    _have_all([server.endpoint for server in servers])
    assert 'dropped' not in rpc.driver(transport).counters()


def test_notifications_to_several_pools(node, limit):
    listeners = [node.listener(pool=f'p{number}') for number in range(_POOLS)]
    transport = node.notification_transport(rpc_zmq_outbox_limit=limit,
                                            rpc_cast_timeout=60)
    assert _send(lambda number: transport._send_notification(
        rpc.oslo_messaging.Target(topic='notes.info'), {},
        {'publisher_id': 'p', 'event_type': 'e', 'payload': number,
         'message_id': str(number), 'timestamp': '', 'priority': 'INFO'},
        2.0)) == []
    _have_all([listener.endpoint for listener in listeners])
    assert 'dropped' not in rpc.driver(transport).counters()
