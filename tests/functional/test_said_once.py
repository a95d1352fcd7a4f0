# SPDX-License-Identifier: Apache-2.0
"""What the log says once, and what it does not say at the end."""

from tests.support import waiting
from zmq_threaded import logs


def lines(caplog, text):
    logs.flush()
    return [each for each in caplog.records if text in each.getMessage()]


def test_where_everything_is_comes_once_for_each_process(node, caplog):
    caplog.set_level('INFO')
    first, second = node.runtime(), node.runtime()
    for each in (first, second, first):
        each.tell()
    assert len(lines(caplog, 'sockets in')) == 1


def test_a_service_that_stops_does_not_miss_the_receiver(node, caplog):
    parts = node.runtime(rpc_zmq_topology='receiver',
                         rpc_zmq_bind_address='127.0.0.1',
                         rpc_zmq_host='127.0.0.1')
    service = parts.service([])
    waiting.until(lambda: lines(caplog, 'nobody can reach'))
    service.stop()
    caplog.clear()
    presence = parts._surroundings.presence
    presence._others, presence._next_look = None, 0.0
    parts._housekeeping()
    assert not lines(caplog, 'nobody can reach')
    service.cleanup()
    parts.forget(service)
