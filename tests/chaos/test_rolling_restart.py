# SPDX-License-Identifier: Apache-2.0
"""All servers of a topic are restarted, one after another, under load.

ZMQ_CHAOS_RESTARTS sets how often all are; 20 is the long form.
"""

import collections
import os
import time

import pytest

from tests.support import chaos_cloud
from tests.support import chaos_journal
from tests.support import sending
from tests.support import waiting

_ROUNDS = int(os.environ.get('ZMQ_CHAOS_RESTARTS', 3))
_THREADS, _SERVERS, _SECONDS = 32, 'abc', 0.02


class Servers:
    """Server processes, each of which keeps a journal for each of its lives.
    """

    def __init__(self, node, folder):
        timeline = chaos_cloud.Timeline()
        self.actors = [chaos_cloud.server(node, folder, name, timeline,
                                          'topic') for name in _SERVERS]
        waiting.until(lambda: all(each.is_ready() for each in self.actors), 30)

    @staticmethod
    def restart(actor):
        actor.finish()
        assert actor.exit_code(60) == 0
        actor.launch()
        waiting.until(actor.is_ready, 30)

    def end(self):
        for actor in self.actors:
            actor.finish()
        for actor in self.actors:
            assert actor.exit_code(60) == 0

    def runs(self):
        """How often each call was begun."""
        return collections.Counter(
            line['token'] for actor in self.actors for life in actor.lives
            for line in chaos_journal.read(actor.path(life))
            if line['what'] == 'begin')


@pytest.mark.timeout(60 + 60 * _ROUNDS)
@pytest.mark.parametrize('topology', ['direct', 'receiver'])
def test_rolling_restart_runs_nothing_twice_and_loses_nothing(
        node, tmp_path, topology):
    if topology == 'receiver':
        node.receiver()
    servers = Servers(node, str(tmp_path))
    started = time.monotonic()
    callers, client = sending.Senders(), node.client(timeout=20)
    for _ in range(_THREADS):
        callers.add('call', sending.call(client, _SECONDS))
    with callers:
        for _ in range(_ROUNDS):
            for actor in servers.actors:
                Servers.restart(actor)
    seconds = time.monotonic() - started
    servers.end()
    runs = servers.runs()
    replied = callers.sent['call']
    print(f'\n{topology}: {len(replied)} calls replied, '
          f'{len(callers.failed)} failed, {_ROUNDS} restarts of '
          f'{len(_SERVERS)} servers, {seconds:.0f} s {callers.failed}')
    assert [token for token, times in runs.items() if times > 1] == []
    assert not [token for token in replied if not runs[token]]
    assert len(replied) > 100 * _ROUNDS
    assert not callers.failed
