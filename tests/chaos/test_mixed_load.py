# SPDX-License-Identifier: Apache-2.0
"""Everything at once, while somebody is killed, paused or restarted all the
time: what was acknowledged has run, and what has not is reported.

Calls, casts, fanouts and notifications from several client processes, to
services that are reached directly and services behind a receiver. Every two
seconds something happens to one of the processes. Each of them keeps a
journal; tests/support/chaos_verdict.py holds them against the promises.

For twenty seconds in the plain run, and for a minute in the soak.
ZMQ_CHAOS_SECONDS=600 is the long form, with a seed that is printed, or given
by ZMQ_CHAOS_SEED.
"""

import os
import random
import time
from urllib import parse

import pytest

from tests.support import chaos_cloud
from tests.support import chaos_verdict
from tests.support import processes
from tests.support import receivers
from tests.support import servers
from tests.support import soaks
from tests.support import waiting

_SECONDS = soaks.sizes(20, 60, 'ZMQ_CHAOS_SECONDS')
_SEED = os.environ.get('ZMQ_CHAOS_SEED')
pytestmark = pytest.mark.timeout(
    int(os.environ.get('ZMQ_CHAOS_SECONDS', 60)) + 500)
_EVERY = 2.0
_TOPICS = ('direct', 'behind', 'both')
# Name, topic of its own, pool
_SERVERS = (('d0', 'direct', 'a'), ('d1', 'direct', 'b'),
            ('b0', 'behind', 'a'), ('b1', 'behind', 'b'))
_CLIENTS = ('c0', 'c1', 'c2')
_OPTIONS = {'zmq_target_expire': 9, 'zmq_target_update': 2,
            'rpc_cast_timeout': 20, 'rpc_message_ttl': 120}


class Cloud:
    """All actors of a run.

    :param scheme: of the transport URLs, with what follows it
    """

    def __init__(self, node, folder, base='zmq://', engine=None):
        self._base, self.folder = base, folder
        self.timeline = chaos_cloud.Timeline(
            os.path.join(folder, 'timeline'))
        self.ipc_dir = node.ipc_dir
        self._receiver = node.receiver()
        self.actors = {actor.name: actor for actor in self._servers()}
        self.actors['receiver'] = chaos_cloud.Receiver(self._receiver,
                                                       self.timeline)
        self.actors.update((name, self._client(name)) for name in _CLIENTS)
        if engine:
            self.actors['registry'] = chaos_cloud.Registry(engine,
                                                           self.timeline)
        node.closing(self._destroy)

    def _servers(self):
        for name, topic, pool in _SERVERS:
            yield self._server(name, (topic, 'both'), pool)

    def _server(self, name, topics, pool):
        url = self._url(**(receivers.query(self._receiver)
                           if topics[0] == 'behind' else
                           {'rpc_zmq_topology': 'direct',
                            'rpc_zmq_transport': 'ipc'}))
        return chaos_cloud.Actor(self.folder, name, lambda life, path: [
            *processes.command('chaos_server_main.py')[1:], url, name, pool,
            path, *topics], self.timeline)

    def _client(self, name):
        # The first is never killed: its memory is looked at in the end.
        actions = ('pause',) if name == _CLIENTS[0] else ('kill', 'pause',
                                                          'restart')
        url = self._url(rpc_zmq_topology='direct', rpc_zmq_transport='ipc')
        return chaos_cloud.Actor(self.folder, name, lambda life, path: [
            *processes.command('chaos_client_main.py')[1:], url, life, path,
            *_TOPICS], self.timeline, actions)

    def _url(self, **query):
        return f'{self._base}?' + parse.urlencode(
            {'rpc_zmq_ipc_dir': self.ipc_dir, **_OPTIONS, **query})

    def _those(self, names):
        return [self.actors[name] for name in names]

    def servers(self):
        return self._those(name for name, _, _ in _SERVERS)

    def clients(self):
        return self._those(_CLIENTS)

    def start(self):
        for actors in (self.servers(), self.clients()):
            for actor in actors:
                actor.launch()
            waiting.until(lambda: all(actor.is_ready() for actor in actors),
                          60, 'all are ready')

    def finish(self):
        """End clients, then servers; all by themselves, and with success."""
        waiting.until(lambda: all(actor.is_ready() for actor in
                                  self.servers() + self.clients()), 60)
        for actors in (self.clients(), self.servers()):
            for actor in actors:
                actor.finish()
            for actor in actors:
                assert actor.exit_code(120) == 0, actor.lives[-1]

    def _destroy(self):
        for actor in self.servers() + self.clients():
            actor.destroy()
        chaos_cloud.clear_killed(self.ipc_dir)

    def journals(self):
        paths = {life: actor.path(life)
                 for actor in self.servers() + self.clients()
                 for life in actor.lives}
        return {life: path for life, path in paths.items()
                if os.path.exists(path)}


def _seed(seconds):
    return int(_SEED or (6 if seconds <= 60 else time.time_ns() % 10 ** 6))


def _run(cloud, seconds):
    seed = _seed(seconds)
    print(f'\nZMQ_CHAOS_SEED={seed}, {seconds} s')
    steps = int(seconds / _EVERY)
    director = chaos_cloud.Director(cloud.actors, _EVERY)
    cloud.start()
    director.run(chaos_cloud.plan(
        random.Random(seed), steps, [(actor.name, actor.actions) for actor
                                     in cloud.actors.values()]), steps)
    director.revive_all(120)
    cloud.finish()
    return director.done


def _judge(cloud, done):
    evidence = chaos_verdict.Evidence(cloud.journals(), cloud.timeline)
    verdict = chaos_verdict.Verdict(evidence,
                                    _OPTIONS['zmq_target_expire'])
    print(verdict.table())
    print('done:', dict(sorted(done.items())))
    for life, lines in evidence.lines.items():
        _print_end(life, lines)
    faults = '\n'.join(verdict.faults[:20])
    assert not verdict.faults, f'{len(verdict.faults)} faults:\n{faults}'
    return evidence


def _print_end(life, lines):
    for line in lines:
        if 'counters' in line:
            print(life, [{name: count for name, count in each.items()}
                         for each in line['counters']])


def _check_what_is_left(cloud, evidence):
    killed = {instance for instance, life in evidence.life_of.items()
              if evidence.killed_at(life) is not None}
    left = {name.removesuffix('.sock') for name in os.listdir(cloud.ipc_dir)
            if name.endswith('.sock') and not name.startswith('receiver-')}
    assert chaos_cloud.clear_killed(cloud.ipc_dir) >= left
    # A life that was killed while it started has not said what it bound.
    starting = sum(life not in evidence.ready for life in evidence.lines)
    assert len(left - killed) <= 3 * starting, left - killed
    for lines in evidence.lines.values():
        for line in lines:
            if line['what'] == 'drained':
                assert not line['stuck'] and not any(line['left']), line


def _check_memory(cloud, evidence):
    lines = evidence.lines[cloud.clients()[0].lives[-1]]
    early, late = (next(line['resident'] for line in lines
                        if line['what'] == what)
                   for what in ('memory', 'drained'))
    print(f'memory of a client: {early >> 20} MiB, in the end {late >> 20}')
    assert late < 1.5 * early


def _chaos(cloud, seconds):
    done = _run(cloud, seconds)
    evidence = _judge(cloud, done)
    _check_what_is_left(cloud, evidence)
    _check_memory(cloud, evidence)


@pytest.fixture(params=_SECONDS)
def seconds(request):
    return request.param


def test_nothing_is_lost_in_silence(node, tmp_path, seconds):
    _chaos(Cloud(node, str(tmp_path)), seconds)


def test_nothing_is_lost_in_silence_with_a_failing_registry(node, tmp_path,
                                                            seconds):
    with servers.open_engine('redis') as engine:
        port = engine.url.rpartition(':')[2]
        base = f'zmq+redis://:{engine.escaped}@127.0.0.1:{port}/'
        _chaos(Cloud(node, str(tmp_path), base, engine), seconds)
