# SPDX-License-Identifier: Apache-2.0
"""The receiver of a node adopts journals that nobody else adopts."""

import json
import os
import tempfile
import time

import pytest

from tests.support import journaled
from tests.support import receivers
from tests.support import rpc
from tests.support import waiting

DEADLINE = 60
ADOPTS = 'this receiver does'


@pytest.fixture
def nodes(redis, ipc_dir, no_leaks):
    """Two nodes with one registry; nobody listens on the first one, which has
    a receiver as .receiver.
    """
    # The paths of Unix sockets are short: tmp_path is not.
    with (tempfile.TemporaryDirectory(prefix='zt-') as other,
          rpc.Node(ipc_dir) as here, rpc.Node(other) as there):
        for each in here, there:
            each.query = {'rpc_zmq_matchmaker': redis.url,
                          'rpc_zmq_topology': 'direct',
                          'rpc_zmq_transport': 'tcp',
                          'rpc_zmq_bind_address': '127.0.0.1',
                          'rpc_zmq_host': '127.0.0.1'}
        here.query['rpc_zmq_custody'] = 'process'
        here.receiver_process = receivers.ReceiverProcess(
            ipc_dir, rpc_zmq_matchmaker=redis.url)
        here.closing(here.receiver_process.end)
        yield here, there


def killed_after(node, count):
    """A sender that was killed with so many casts in its journal."""
    process = journaled.sender(node)
    for number in range(count):
        process.ask(json.dumps({'do': 'cast', 'method': 'note',
                                'args': {'value': number}}))
    process.kill()
    assert len(journaled.names(node)) == 1


def test_what_was_left_on_a_node_without_services_is_delivered(nodes):
    here, there = nodes
    killed_after(here, 20)
    waiting.until(lambda: ADOPTS in here.receiver_process.output(), DEADLINE)
    server = there.server()
    waiting.until(lambda: len(server.endpoint.seen) == 20, DEADLINE)
    waiting.until(lambda: not journaled.names(here), DEADLINE)
    assert sorted(server.endpoint.seen) == list(range(20))


def test_it_ends_in_time_and_leaves_what_nobody_took(nodes):
    here, there = nodes
    killed_after(here, 5)
    waiting.until(lambda: ADOPTS in here.receiver_process.output(), DEADLINE)
    began = time.monotonic()
    assert here.receiver_process.terminate() == 0
    assert time.monotonic() - began < DEADLINE / 3
    assert len(journaled.names(here)) == 1
    server = here.server()      # who adopts it next
    waiting.until(lambda: len(server.endpoint.seen) == 5, DEADLINE)
    waiting.until(lambda: not journaled.names(here), DEADLINE)


def test_it_ends_in_time_though_the_registry_hangs(nodes, redis):
    here, _ = nodes
    killed_after(here, 5)
    waiting.until(lambda: ADOPTS in here.receiver_process.output(), DEADLINE)
    redis.pause()
    try:
        began = time.monotonic()
        assert here.receiver_process.terminate(DEADLINE) == 0
        assert time.monotonic() - began < DEADLINE / 3
    finally:
        redis.resume()
    assert len(journaled.names(here)) == 1


def test_a_service_of_the_node_comes_first(nodes):
    here, _ = nodes
    server = here.server()
    killed_after(here, 3)
    waiting.until(lambda: sorted(server.endpoint.seen) == [0, 1, 2], DEADLINE)
    waiting.until(lambda: not journaled.names(here), DEADLINE)
    assert ADOPTS not in here.receiver_process.output()


def test_it_closes_what_it_needed_when_all_is_delivered(nodes):
    here, there = nodes
    server = there.server()
    threads = _threads(here.receiver_process)
    killed_after(here, 3)
    waiting.until(lambda: sorted(server.endpoint.seen) == [0, 1, 2], DEADLINE)
    waiting.until(lambda: not journaled.names(here), DEADLINE)
    waiting.until(lambda: 'nothing is left' in here.receiver_process.output(),
                  DEADLINE)
    waiting.until(lambda: _threads(here.receiver_process) <= threads, DEADLINE)


def test_a_registry_that_is_none_of_its_own_is_left_alone(nodes):
    here, _ = nodes
    here.receiver_process.configure(
        rpc_zmq_host='127.0.0.1', rpc_zmq_ipc_dir=here.ipc_dir)
    here.receiver_process.restart()
    killed_after(here, 3)
    server = here.server(transport=here.transport())
    waiting.until(lambda: sorted(server.endpoint.seen) == [0, 1, 2], DEADLINE)
    assert ADOPTS not in here.receiver_process.output()


def _threads(process):
    return len(os.listdir(f'/proc/{process.pid}/task'))
