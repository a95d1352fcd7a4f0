# SPDX-License-Identifier: Apache-2.0
"""What waits for a service is with it as soon as the service is back."""

import contextlib
import os
import queue
import statistics
import threading
import time

import pytest

from tests.support import rpc
from tests.support import servers
from tests.support import waiting
from zmq_threaded import topic as topics
from zmq_threaded.registry import look_ups

TIMES = 20
UPDATE = 10


@pytest.fixture(scope='module', params=servers.parallel(servers.NAMES))
def engine(request):
    with servers.open_engine(request.param) as opened:
        yield opened


@pytest.fixture
def cloud(engine, ipc_dir, monkeypatch):
    """A node whose registry is the engine. What waits there asks seldom."""
    monkeypatch.setattr(look_ups, '_FIRST_SPACING', UPDATE)
    with contextlib.ExitStack() as stack:
        stack.enter_context(servers.no_client_left())
        node = stack.enter_context(rpc.Node(ipc_dir))
        node.query = {'zmq_target_update': UPDATE, 'rpc_cast_timeout': 60}
        if engine.name != 'file':
            node.query |= {
                'rpc_zmq_matchmaker': engine.url,
                'rpc_zmq_topology': 'direct',
                'rpc_zmq_bind_address': '127.0.0.1',
                'rpc_zmq_host': '127.0.0.1'}
        yield node


def lose_all(engine, ipc_dir):
    """The registry loses its records."""
    if engine.name == 'file':
        os.rename(os.path.join(ipc_dir, 'registry'),
                  os.path.join(ipc_dir, 'old'))
    else:
        engine.restart(empty=True)


def put_back(transport):
    """Returns when the process has registered again what was lost."""
    registry = rpc.driver(transport)._parts().registry
    began = time.monotonic()
    registry._tasks.put(lambda: registry._registrations._beat_by(began))
    waiting.until(lambda: registry.confirmed_at() > began, 60)


class Clock:
    """An endpoint that says when something arrives."""

    def __init__(self):
        self.arrived = queue.SimpleQueue()

    def note(self, ctxt, value):
        self.arrived.put(time.monotonic())

    def echo(self, ctxt, value):
        self.arrived.put(time.monotonic())

    def info(self, ctxt, publisher, event_type, payload, metadata):
        self.arrived.put(time.monotonic())


def seconds_until_found(send, start):
    """How long what was sent has waited since each start, at the most."""
    took = []
    for _ in range(TIMES):
        send()
        time.sleep(0.3)     # it waits, and nothing looks for anybody
        clock = Clock()
        server = start(clock)
        began = time.monotonic()
        took.append(clock.arrived.get(timeout=30) - began)
        rpc.Node.stop(server)
    return took


def judge(send, start):
    # A busy machine may be slow once. Who waits for the next look-up that
    # nobody asks for is slow each time.
    found = []
    for _ in range(3):
        took = seconds_until_found(send, start)
        found.append((statistics.median(took), max(took)))
        if found[-1][0] <= 0.3 and found[-1][1] <= 1:
            return
    raise AssertionError(f'(median, longest) in seconds: {found}')


def test_a_cast_that_waits(cloud):
    client, transport = cloud.client(), cloud.transport()
    judge(lambda: client.cast({}, 'note', value=1),
          lambda clock: cloud.server(endpoint=clock, transport=transport))


def test_a_notification_that_waits(cloud):
    notifier, transport = cloud.notifier(), cloud.notification_transport()
    judge(lambda: notifier.info({}, 'event', {}),
          lambda clock: cloud.listener(endpoint=_Listener(clock),
                                       transport=transport))


class _Listener:
    def __init__(self, clock):
        self.info, self.seen = clock.info, []


def test_a_call_that_waits(cloud):
    client, transport = cloud.client(timeout=60), cloud.transport()
    cache = rpc.driver(client.transport)._parts().registry.cache
    threads, raised = [], []

    def wait():
        try:
            client.call({}, 'echo', value=1)
        except Exception as error:
            raised.append(error)

    def call():
        # One that is sent to a server as it stops would fail.
        waiting.until(lambda: not cache.listed(topics.rpc('openstack',
                                                          'topic')), 1)
        threads.append(threading.Thread(target=wait))
        threads[-1].start()
    judge(call, lambda clock: cloud.server(endpoint=clock,
                                           transport=transport))
    for each in threads:
        each.join(10)
    assert not raised


def test_fanouts_reach_who_is_there_and_nobody_else(cloud, engine, ipc_dir):
    own, other, transport = (cloud.transport() for _ in range(3))
    first = cloud.server(server='a', transport=own)
    client, driver = cloud.client(transport), rpc.driver(transport)
    fanout = client.prepare(fanout=True)
    # From here on a missing record may be one that was lost. Of a server the
    # client would notice the outage too, and trust nothing for a while.
    if engine.name == 'file':
        client.call({}, 'echo', value=0)
    lose_all(engine, ipc_dir)
    put_back(own)
    client.call({}, 'echo', value=0)
    for number in range(5):
        second = cloud.server(server='b', transport=other)
        time.sleep(0.3)
        fanout.cast({}, 'note', value=number)
        waiting.until(lambda: number in second.endpoint.seen, 5)
        rpc.Node.stop(second)
        time.sleep(0.3)
        fanout.cast({}, 'note', value=-number)
        waiting.until(lambda: -number in first.endpoint.seen, 5)
        waiting.until(lambda: not driver.unacknowledged(20), 5)
    assert not driver.counters().get('copies_for_gone')
