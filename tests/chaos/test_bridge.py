# SPDX-License-Identifier: Apache-2.0
"""A cloud moves from RabbitMQ to zmq and back, under load."""

import random
import time

import pytest

from tests.support import bridge_cloud
from tests.support import rabbit
from tests.support import servers
from tests.support import waiting
from zmq_threaded import topic as topics

pytestmark = pytest.mark.xdist_group('clouds')
TOPICS = ['nova', 'neutron', 'cinder']
seeds = pytest.mark.parametrize('seed', [1, 2, 3])


@pytest.fixture
def broker(no_leaks):
    with rabbit.open_broker() as broker:
        yield broker


def report(cloud, began):
    verdict = cloud.verdict().judge()
    print(f'\n{time.monotonic() - began:.0f} s, '
          f'{sum(len(each.actor.lives) for each in cloud.members)} lives: '
          f'{dict(sorted(verdict.figures.items()))}')
    print(f'{len(verdict.of_rabbit)} faults of rabbit alone')
    for fault in verdict.faults[:20]:
        print(fault)
    return verdict


@pytest.mark.timeout(900)     # on a busy machine
def test_a_small_cloud_moves(broker, node, tmp_path):
    began = time.monotonic()
    cloud = bridge_cloud.Cloud(str(tmp_path), node, broker, ['nova'], 2, 1,
                               pace=0.02)
    cloud.start()
    for step in 1, 2, 3:
        cloud.move(step, random.Random(step))
    cloud.end()
    assert report(cloud, began).faults == []


def large(folder, node, broker, **kwargs):
    return bridge_cloud.Cloud(str(folder), node, broker, TOPICS, 9, 6,
                              **kwargs)


@pytest.mark.long
@pytest.mark.timeout(1500)
@seeds
def test_a_cloud_moves_and_moves_back(broker, node, tmp_path, seed):
    began, rng = time.monotonic(), random.Random(seed)
    cloud = large(tmp_path, node, broker)
    cloud.start()
    for step in 1, 2, 3, 2, 1, 0:
        cloud.move(step, rng)
    cloud.end()
    assert report(cloud, began).faults == []


@pytest.mark.long
@pytest.mark.timeout(1500)
@seeds
def test_the_broker_is_killed_while_all_send_over_zmq(broker, node, tmp_path,
                                                      seed):
    began, rng = time.monotonic(), random.Random(seed)
    cloud = large(tmp_path, node, broker, first=1)
    cloud.start()
    cloud.move(2, rng)
    broker.kill()
    for each in rng.sample(cloud.members, 4):
        each.restart(2)
    broker.start()
    # Whether they listen over rabbit again: it is what the way back needs.
    cloud.wait_until_all_listen_on_the_broker()
    for step in 1, 2, 3:
        cloud.move(step, rng)
    cloud.end()
    assert report(cloud, began).faults == []


@pytest.mark.long
@pytest.mark.timeout(1500)
@seeds
def test_the_registry_is_paused_while_all_send_over_rabbit(
        broker, node, tmp_path, seed):
    began, rng = time.monotonic(), random.Random(seed)
    with servers.open_engine('redis') as engine:
        cloud = large(tmp_path, node, broker, first=1,
                      rpc_zmq_matchmaker=engine.url,
                      rpc_zmq_topology='direct', rpc_zmq_transport='ipc')
        cloud.start()
        engine.pause()
        for each in rng.sample(cloud.members, 4):
            each.restart(1)
        engine.resume()
        wait_until_all_are_registered(engine, cloud)
        for step in 2, 3, 2, 1:
            cloud.move(step, rng)
        cloud.end()
        assert report(cloud, began).faults == []


def wait_until_all_are_registered(engine, cloud):
    store = engine.store(30)
    try:
        waiting.until(lambda: all(
            len(store.lookup(topics.rpc('openstack', topic).key)) == 3
            for topic in TOPICS), 60)
    finally:
        store.close()
