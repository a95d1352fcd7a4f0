# SPDX-License-Identifier: Apache-2.0
"""A cloud moves from RabbitMQ to zmq and back, under load."""

import random
import time

import pytest

from tests.support import bridge_cloud
from tests.support import rabbit

pytestmark = pytest.mark.xdist_group('rabbit')
SEEDS = 1, 2, 3


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


def test_a_small_cloud_moves(broker, node, tmp_path):
    began = time.monotonic()
    cloud = bridge_cloud.Cloud(str(tmp_path), node, broker, ['nova'], 2, 1,
                               pace=0.02)
    cloud.start()
    for step in 1, 2, 3:
        cloud.move(step, random.Random(step))
    cloud.end()
    assert report(cloud, began).faults == []
