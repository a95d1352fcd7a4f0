# SPDX-License-Identifier: Apache-2.0
"""Calls, casts and fanouts go on while the registry is out of order.

With ZMQ_LONG_OUTAGES=1 for 30 seconds, with the default settings.
"""

import collections
import contextlib
import itertools
import os
import threading
import time

import pytest

from tests.support import rpc
from tests.support import servers
from tests.support import soaks
from tests.support import waiting
from zmq_threaded import topic as topics

LONG = bool(os.environ.get('ZMQ_LONG_OUTAGES'))
OUTAGE, EXPIRE, UPDATE = (30, 30, 10) if LONG else (4, 3, 1)
LATE = 8


@pytest.fixture(scope='module', params=servers.parallel(servers.DISTRIBUTED))
def engine(request):
    with servers.open_engine(request.param) as opened:
        yield opened


@pytest.fixture
def cloud(engine, ipc_dir):
    """A node with its registry on the engine."""
    with contextlib.ExitStack() as stack:
        stack.callback(engine.ensure_running)
        # Not no_leaks: the engine's server may be another child afterwards.
        stack.enter_context(servers.no_client_left())
        node = stack.enter_context(rpc.Node(ipc_dir))
        node.query = _query(engine)
        yield node


def _query(engine):
    return {'rpc_zmq_matchmaker': engine.url, 'zmq_target_expire': EXPIRE,
            'zmq_target_update': UPDATE, 'rpc_zmq_topology': 'direct',
            'rpc_zmq_bind_address': '127.0.0.1', 'rpc_zmq_host': '127.0.0.1'}


class Load:
    """Threads that call, cast and fan out all the time.

    :ivar sent: values of casts and of fanouts
    :ivar troubles: what any of them raised
    """

    def __init__(self, client, fanout):
        self._client, self._fanout = client, fanout
        self._ended = threading.Event()
        self.calls = 0
        self.sent = {'cast': [], 'fanout': []}
        self.troubles = []
        self._threads = [threading.Thread(target=self._run, args=(each,))
                         for each in (self._call, self._cast, self._fan_out)]
        for thread in self._threads:
            thread.start()

    def _run(self, send):
        for number in itertools.count():
            if self._ended.wait(0.02):
                return
            try:
                send(number)
            except Exception as error:
                self.troubles.append(error)

    def _call(self, number):
        assert self._client.call({}, 'echo', value=number) == number
        self.calls += 1

    def _cast(self, number):
        self._client.cast({}, 'note', value=f'cast {number}')
        self.sent['cast'].append(f'cast {number}')

    def _fan_out(self, number):
        self._fanout.cast({}, 'note', value=f'fanout {number}')
        self.sent['fanout'].append(f'fanout {number}')

    def end(self):
        self._ended.set()
        for thread in self._threads:
            thread.join()


def listed(transport, name):
    registry = transport._driver._parts().registry
    return registry.cache.listed(topics.rpc('openstack', name))


@pytest.mark.parametrize('engine, how', soaks.pairs(
    servers.parallel(servers.DISTRIBUTED), ['pause', 'kill', 'empty'], 1),
    indirect=['engine'])
def test_nobody_notices_an_outage(engine, cloud, how):
    _nobody_notices(engine, cloud, how)


@pytest.mark.parametrize('engine', servers.parallel(servers.WITH_FAIL_OVER),
                         indirect=True)
def test_nobody_notices_a_fail_over(engine, cloud):
    _nobody_notices(engine, cloud, 'fail_over')
    engine.restore()


def _nobody_notices(engine, cloud, how):
    # Given two servers under load, and one that is to die
    both = [cloud.process(server=name) for name in ('a', 'b')]
    doomed = cloud.process(topic='doomed')
    transport = cloud.transport(rpc_cast_timeout=20)
    client = cloud.client(transport)
    assert cloud.client(transport, topic='doomed').call(
        {}, 'echo', value=1) == 1
    waiting.until(lambda: client.call({}, 'pid') == both[0].pid)
    waiting.until(lambda: client.call({}, 'pid') == both[1].pid)
    load = Load(client, client.prepare(fanout=True))
    # When the engine is out of order, the one dies, and another one comes
    with servers.out_of_order(engine, how, OUTAGE):
        doomed.kill()
        late = cloud.server(server='late')
    back = time.monotonic()
    # Then the new one is found, and the dead one is gone
    waiting.until(lambda: late.endpoint.seen, UPDATE + LATE)
    found = time.monotonic() - back
    waiting.until(lambda: not listed(transport, 'doomed'), 2 * EXPIRE + LATE)
    gone = time.monotonic() - back
    load.end()
    assert not load.troubles, load.troubles[:3]
    waiting.until(lambda: not transport._driver.unacknowledged(20), 20)
    _check(load, [server.ask('seen') for server in both],
           late.endpoint.seen)
    print(f'{engine.name}, {how}: {load.calls} calls, '
          f'{len(load.sent["cast"])} casts; new one found after {found:.1f} '
          f's, dead one gone after {gone:.1f} s')


def _check(load, known, late):
    """Each cast ran once; each fanout once on those that were there."""
    ran = collections.Counter(
        value for seen in (*known, late) for value in seen
        if value.startswith('cast'))
    assert ran == collections.Counter(load.sent['cast'])
    for seen in known:
        fanouts = [value for value in seen if value.startswith('fanout')]
        assert sorted(fanouts) == sorted(load.sent['fanout'])
