# SPDX-License-Identifier: Apache-2.0
"""The journals of a driver: the pools of those that died."""

import errno
import time

import pytest
from oslo_config import cfg

from tests.support import ids
from zmq_threaded import counters as counting
from zmq_threaded import options
from zmq_threaded import topic as topics
from zmq_threaded.journal import journals
from zmq_threaded.journal import making

TOPIC = topics.notifications('exchange', 'topic.info')


class Client:
    """Knows pools, as client.recording.Recording does."""

    def __init__(self):
        self.known = []

    def know_pool(self, topic, pool, seen):
        self.known.append((topic, pool))


@pytest.fixture
def driver(ipc_dir):
    made = []

    def make(custody):
        settings = options.read(cfg.CONF, {
            'rpc_zmq_ipc_dir': ipc_dir, 'rpc_zmq_custody': custody})
        made.append(journals.Journals(
            settings, ipc_dir, counting.Counters(), ids.MAKER,
            lambda call: call()))
        made[-1].client = Client()
        return made[-1]
    yield make
    for each in made:
        each._close_own()


POOLS = [(TOPIC, 'pool', time.time())]


@pytest.mark.parametrize('custody, is_merged', [('memory', False),
                                                ('process', True)])
def test_the_pools_of_the_dead_get_their_copies(driver, custody, is_merged):
    one = driver(custody)
    # The journal of the dead stays, where it is the only one to know them.
    assert one._merge_pools(list(POOLS)) is is_merged
    assert (TOPIC, 'pool') in one.client.known
    assert one._merge_pools([])


def test_a_journal_that_cannot_be_made_harms_no_other(driver, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(making, 'create', full)
    one = driver('process')
    assert not one._merge_pools(list(POOLS))
    assert one.client.known == [(TOPIC, 'pool')]
