# SPDX-License-Identifier: Apache-2.0
"""A peer that fills its pipe and leaves takes nobody along.

libzmq 4.3.5 aborts a process whose own heartbeat is due for such a peer.
"""

import contextlib
import os
import time

import pytest

from tests.support import ports
from tests.support import raw_peer
from tests.support import waiting
from zmq_threaded import payload
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.registry import engines


@pytest.fixture
def server(node):
    """A process whose service holds one message, and then reads nothing."""
    port = ports.free_port()
    return node.process(
        rpc_zmq_transport='tcp', rpc_zmq_min_port=port, rpc_zmq_max_port=port,
        rpc_zmq_host='127.0.0.1', rpc_zmq_bind_address='127.0.0.1',
        rpc_zmq_topic_backlog=1)


def _instance(node):
    registry = engines.embedded(node.ipc_dir, 30)
    try:
        listed, = registry.lookup(topics.rpc('openstack', 'topic').key)
    finally:
        registry.close()
    return listed


def _requests(instance, count):
    """Calls that take all workers, and then lie in the pipe."""
    body, flags = payload.dump(
        ({}, {'method': 'sleep', 'args': {'seconds': 6}}), 'json')
    return b''.join(raw_peer.multipart(b'', wire.encode(
        wire.CALL, instance.id, os.urandom(16), body, flags))
        for _ in range(count))


@pytest.mark.parametrize('over', ['ipc', 'tcp'])
def test_a_service_outlives_a_peer_that_left_a_full_pipe(node, server, over):
    instance = _instance(node)
    path, address = instance.endpoints[0][6:], instance.endpoints[1][6:]
    host, _, port = address.rpartition(':')
    with raw_peer.RawPeer(path if over == 'ipc' else (host, int(port)),
                          timeout=2) as peer:
        # The buffers of the kernel may be full as well.
        with contextlib.suppress(TimeoutError):
            peer.socket.sendall(_requests(instance, 5000))
        waiting.until(lambda: server.ask('slept') == 64)
    # Until the next heartbeat is due, and the one after that
    until = time.monotonic() + 4.5
    while time.monotonic() < until:
        assert os.path.exists(f'/proc/{server.pid}/exe')
        server.ask('slept')
        time.sleep(0.2)
