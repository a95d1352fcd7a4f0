# SPDX-License-Identifier: Apache-2.0
"""A service that is stopped, and a flood of casts for it.

ZMQ_CHAOS_FLOOD sets how many are thrown at it; 1000000 is the long form.
"""

import collections
import gc
import logging
import os
import re
import threading
import time

import oslo_messaging
import pytest

from tests.support import chaos_cloud
from tests.support import chaos_journal
from tests.support import crowd
from tests.support import waiting
from zmq_threaded.client import losses

_FLOOD = int(os.environ.get('ZMQ_CHAOS_FLOOD', 50_000))
_THREADS = 8
_LIMIT = 2000


@pytest.fixture(params=['direct', 'receiver'])
def reached(request, node):
    """The node, whose services are reached in one way or the other."""
    if request.param == 'receiver':
        node.receiver()
    # A service that is paused for longer has no record any more: then there is
    # nobody, and the oldest are dropped and logged.
    node.query = {**node.query, 'zmq_target_expire': 900}
    node.way = request.param
    return node


@pytest.fixture
def server(reached, tmp_path):
    """A server process with a journal; it can be paused."""
    actor = chaos_cloud.server(reached, str(tmp_path), 'slow',
                               chaos_cloud.Timeline(), 'slow')
    waiting.until(actor.is_ready, 30)
    yield actor
    if actor.is_up():
        actor.resume()
        actor.finish()
        assert actor.exit_code(60) == 0


class Flood:
    """Threads that cast numbered messages as fast as they can.

    :ivar accepted: numbers whose cast() returned
    :ivar longest: seconds that a cast() took
    """

    def __init__(self, client, count, threads=_THREADS):
        self._client, self._count, self._threads = client, count, threads
        self.accepted, self.refused, self.longest = [], [], 0.0

    def run(self):
        crowd.share_out(range(self._count), self._timed, self._threads)
        return self

    def _timed(self, number):
        began = time.monotonic()
        self._cast(number)
        self.longest = max(self.longest, time.monotonic() - began)

    def _cast(self, number):
        try:
            self._client.cast({}, 'run', token=str(number), seconds=0)
            self.accepted.append(number)
        except oslo_messaging.MessageDeliveryFailure as error:
            assert 'rpc_cast_timeout' in str(error)
            self.refused.append(number)


def _resident(pid):
    with open(f'/proc/{pid}/statm') as statm:
        return int(statm.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def _paused(node, server, **query):
    """A client of the server, which it has called before it was paused."""
    transport = node.transport(rpc_zmq_outbox_limit=_LIMIT, **query)
    client = node.client(transport, topic='slow')
    client.call({}, 'run', token='warm', seconds=0)
    client.cast({}, 'run', token='warm too', seconds=0)
    waiting.until(lambda: not transport._driver.unacknowledged(20))
    server.pause()
    return transport, client


def _runs(server):
    return collections.Counter(
        int(line['token']) for line in chaos_journal.read(
            server.path(server.lives[-1]))
        if line['what'] == 'begin' and line['token'].isdigit())


class Dropped(logging.Filter):
    """The ids of the messages that were reported as dropped. It lets nobody
    else have the log: pytest would keep a million records of it.
    """

    def __init__(self):
        super().__init__()
        self.ids = set()

    def filter(self, record):
        found = re.match(r'CAST ([0-9a-f]{32}) for \S+ .*was dropped',
                         record.getMessage())
        if found:
            self.ids.add(bytes.fromhex(found[1]))
        return not found


@pytest.fixture
def dropped():
    seen, logger = Dropped(), logging.getLogger(losses.__name__)
    logger.addFilter(seen)
    # The first is a warning, the others are told of at this level.
    logger.setLevel(logging.DEBUG)
    yield seen.ids
    logger.setLevel(logging.NOTSET)
    logger.removeFilter(seen)


@pytest.mark.timeout(300 + _FLOOD // 1000)
def test_a_flood_for_a_stopped_service_is_bounded_and_delivered_once(
        reached, server, dropped):
    transport, client = _paused(reached, server, rpc_cast_timeout=0)
    gc.collect()
    before = _resident(os.getpid()), _resident(server._popen.pid)
    flood = Flood(client, _FLOOD).run()
    while_stopped = _resident(os.getpid())
    server.resume()
    waiting.until(lambda: not transport._driver.unacknowledged(20), 60)
    after = _resident(os.getpid()), _resident(server._popen.pid)
    waiting.until(lambda: sum(_runs(server).values()) + len(dropped)
                  >= len(flood.accepted), 20)
    runs = _runs(server)
    print(f'\n{reached.way}: {_FLOOD} casts, {len(flood.accepted)} taken, '
          f'{len(flood.refused)} refused, the longest took '
          f'{flood.longest:.2f} s; {len(runs)} run, {len(dropped)} dropped; '
          f'memory before, stopped, after, in MiB: {before[0] >> 20} '
          f'{while_stopped >> 20} {after[0] >> 20}, server {before[1] >> 20} '
          f'{after[1] >> 20}; {transport._driver.counters()}')
    assert max(runs.values()) == 1
    assert runs.keys() <= set(flood.accepted)
    assert len(runs) + len(dropped) >= len(flood.accepted) >= _LIMIT
    assert flood.longest < 20
    # All Python objects of the figures above are in it, too
    assert while_stopped < before[0] + (60 << 20) + 100 * _FLOOD
    assert after[1] < before[1] + (40 << 20)


def test_senders_to_a_stopped_service_wait_rpc_cast_timeout_and_raise(
        reached, server):
    transport, client = _paused(reached, server, rpc_cast_timeout=1.5)
    filling = Flood(client, _LIMIT, 1).run()
    assert len(filling.accepted) == _LIMIT
    waits = []

    def cast():
        began = time.monotonic()
        with pytest.raises(oslo_messaging.MessageDeliveryFailure,
                           match='rpc_cast_timeout'):
            client.cast({}, 'run', token='refused', seconds=0)
        waits.append(time.monotonic() - began)
    threads = [threading.Thread(target=cast) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f'\n{reached.way}: waited {min(waits):.2f} to {max(waits):.2f} s')
    assert len(waits) == 16 and min(waits) >= 1.4 and max(waits) < 1.5 + 15
    server.resume()
    waiting.until(lambda: len(_runs(server)) == _LIMIT, 30)
    assert max(_runs(server).values()) == 1
    waiting.until(lambda: not transport._driver.unacknowledged(20), 20)


def test_blocked_senders_go_on_when_the_service_does(reached, server):
    _, client = _paused(reached, server, rpc_cast_timeout=60)
    threading.Timer(2, server.resume).start()
    flood = Flood(client, 3 * _LIMIT).run()
    assert not flood.refused and flood.longest < 25
    waiting.until(lambda: len(_runs(server)) == 3 * _LIMIT, 30)
    assert max(_runs(server).values()) == 1


def test_others_are_not_held_up_by_a_flood_for_a_stopped_service(
        reached, server):
    transport, client = _paused(reached, server, rpc_cast_timeout=0)
    other = reached.server(topic='other')
    calling = reached.client(transport, topic='other', timeout=60)
    assert calling.call({}, 'echo', value=0) == 0
    flooding = threading.Thread(target=Flood(client, _FLOOD // 5).run)
    flooding.start()
    took = []
    while flooding.is_alive() or len(took) < 20:
        began = time.monotonic()
        calling.cast({}, 'note', value=len(took))
        assert calling.call({}, 'echo', value=1) == 1
        took.append(time.monotonic() - began)
    flooding.join()
    waiting.until(lambda: len(other.endpoint.seen) == len(took))
    print(f'\n{reached.way}: the longest of {len(took)} casts and calls '
          f'during the flood: {max(took):.2f} s')
    assert max(took) < 25
    server.resume()
    waiting.until(lambda: not transport._driver.unacknowledged(20), 30)


def test_senders_to_nobody_never_wait_and_all_is_reported(node, dropped):
    transport = node.transport(rpc_zmq_outbox_limit=100, rpc_cast_timeout=60)
    client = node.client(transport, topic='nobody')
    client.cast({}, 'run', token='0', seconds=0)
    waiting.until(lambda: transport._driver.unacknowledged(20))
    flood = Flood(client, 5000).run()
    counters = transport._driver.counters()
    print(f'\nthe longest cast to nobody took {flood.longest:.2f} s')
    assert not flood.refused and flood.longest < 20
    assert 4901 - _THREADS <= counters['dropped'] <= 4901
    assert counters['unacknowledged'] <= 100 + _THREADS
    transport._driver._parts().close(time.monotonic() + 1)
    assert len(dropped) == 5001
