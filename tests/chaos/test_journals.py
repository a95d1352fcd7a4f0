# SPDX-License-Identifier: Apache-2.0
"""Senders, servers, listeners and receivers are killed all the time, and what
was accepted into a journal arrives.

For twenty seconds in the plain run; ZMQ_JOURNAL_SECONDS=600 is the long form.
"""

import collections
import os
import random
import time

import pytest

from tests.support import processes
from tests.support import soaks
from tests.support import waiting
from zmq_threaded.journal import place

_SECONDS = soaks.sizes(20, 600, 'ZMQ_JOURNAL_SECONDS', pytest.mark.long)
_EVERY, _PAUSE = 1.0, 0.004
_POOLS = ('a', 'b')
pytestmark = [pytest.mark.timeout(1500), pytest.mark.xdist_group('clouds')]


class Actor:
    """A process that is started again after it was killed.

    :param main: its script
    :param arguments: a function of the number of its life
    """

    def __init__(self, node, name, main, arguments):
        self._node, self._name, self._main = node, name, main
        self._arguments = arguments
        self._lives = 0
        self._process = None

    def start(self):
        self._lives += 1
        self._process = processes.ServerProcess(
            self._node.ipc_dir, self._main, *self._arguments(self._lives))

    def kill(self):
        if self._process is not None:
            self._process.kill()

    def end(self):
        if self._process is not None:
            self._process.end()


class Cast:
    """All actors, and the files in which they write."""

    def __init__(self, node, folder, custody):
        self.node, self.folder = node, folder
        durable = node.url(rpc_zmq_custody=custody, rpc_zmq_exit_timeout=2)
        self.senders = [
            Actor(node, f'{kind}-{number}', 'custody_sender_main.py',
                  lambda life, kind=kind, number=number: (
                      durable, kind, f'{kind}-{number}-{life}',
                      self.path(f'accepted-{kind}'), str(_PAUSE)))
            for kind in ('cast', 'notify') for number in range(4)]
        self.servers = [
            Actor(node, f'server-{number}', 'custody_server_main.py',
                  lambda life, number=number: (
                      node.url(), f'server-{number}', self.path('taken')))
            for number in range(2)]
        self.listeners = [
            Actor(node, f'listener-{pool}', 'listener_main.py',
                  lambda life, pool=pool: (
                      node.url(), 'notes', pool, self.path(f'pool-{pool}')))
            for pool in _POOLS]
        self.actors = [*self.servers, *self.listeners, *self.senders]
        for actor in self.actors:
            node.closing(actor.end)

    def path(self, name):
        return os.path.join(self.folder, name)

    def lines(self, name):
        try:
            with open(self.path(name)) as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []

    def missing(self):
        """What was accepted and has not arrived: (casts, by pool)."""
        casts = set(self.lines('accepted-cast')) - set(self.lines('taken'))
        notes = set(self.lines('accepted-notify'))
        return {'casts': casts, **{
            pool: notes - set(self.lines(f'pool-{pool}'))
            for pool in _POOLS}}

    def doubles(self):
        found = {}
        for name in ('taken', *(f'pool-{pool}' for pool in _POOLS)):
            counts = collections.Counter(self.lines(name))
            found[name] = sum(count - 1 for count in counts.values())
        return found


@pytest.fixture(params=['direct', 'receiver'])
def reached(request, node):
    return request.param, (node.receiver() if request.param == 'receiver'
                           else None)


@pytest.mark.parametrize('seconds', _SECONDS)
def test_nothing_that_was_accepted_is_lost(node, reached, seconds, tmp_path):
    how, receiver = reached
    chance = random.Random(os.environ.get('ZMQ_CHAOS_SEED'))
    cast = Cast(node, str(tmp_path), 'process')
    for actor in cast.actors:
        actor.start()
    waiting.until(lambda: all(cast.lines(f'pool-{pool}') for pool in _POOLS),
                  30)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(_EVERY)
        if receiver and chance.random() < 0.1:
            receiver.kill()
            receiver.start()
            continue
        actor = chance.choice(cast.actors)
        actor.kill()
        actor.start()
    _all_at_once(cast)
    for actor in cast.senders:
        actor.kill()
    try:
        waiting.until(lambda: not any(cast.missing().values()), 60)
    finally:
        print(how, {name: len(cast.lines(name)) for name in (
            'accepted-cast', 'accepted-notify')}, 'missing',
            {key: sorted(value)[:5] for key, value in
             cast.missing().items()}, 'doubles', cast.doubles())
    waiting.until(lambda: not _messages_left(node), 20)


def _all_at_once(cast):
    """Every process is killed at once, and started again."""
    for actor in cast.actors:
        actor.kill()
    for actor in cast.actors:
        actor.start()
    time.sleep(1)


def _messages_left(node):
    folder = os.path.join(node.ipc_dir, place.FOLDER)
    from zmq_threaded.journal import survey
    return sum(each.count for each in survey.survey(folder))
