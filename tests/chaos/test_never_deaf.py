# SPDX-License-Identifier: Apache-2.0
"""Whatever happens to its node, a service is reached soon afterwards, and is
never out of reach for long without a line in the log.

ZMQ_DEAF_EVENTS is the number of events of a longer run, ZMQ_DEAF_SEED says
which.
"""

import contextlib
import os
import random
import signal
import subprocess
import threading
import time

import pytest

from tests.support import namespaces
from tests.support import soaks
from tests.support import waiting

_WHY_NOT = namespaces.why_not()
pytestmark = [
    pytest.mark.skipif(bool(_WHY_NOT), reason=f'no namespaces: {_WHY_NOT}'),
    pytest.mark.timeout(3 * 3600), pytest.mark.xdist_group('clouds')]

SEED = int(os.environ.get('ZMQ_DEAF_SEED', 0)) or random.randrange(10 ** 6)
# Issue 16: reached again after a cause is gone; and the longest time without
# a word, both in seconds. (Calls are tried this often, with this time-out.)
BACK_WITHIN, TOLD_WITHIN = 10.0, 30.0
_EVERY, _TIMEOUT = 0.3, 1.5
# A machine that has other things to do.
_LATE = 3.0


class Redis:
    """The registry, on a host."""

    def __init__(self, host, folder):
        self._command = [*host.before, 'redis-server', '--port', '6379',
                         '--protected-mode', 'no', '--save', '', '--dir',
                         str(folder), '--appendonly', 'yes']
        self.url = f'redis://{host.address}:6379'
        self._host = host
        self.start()

    def start(self):
        self._popen = subprocess.Popen(self._command,
                                       stdout=subprocess.DEVNULL)
        waiting.until(self._answers, 20)

    def _answers(self):
        with contextlib.suppress(subprocess.CalledProcessError):
            return 'PONG' in self._host.run('redis-cli', 'ping')

    def signal(self, number):
        self._popen.send_signal(number)

    def kill(self):
        self._popen.kill()
        self._popen.wait(10)


class Watch:
    """Calls one server all the time, and notes when it was reached."""

    def __init__(self, client, server):
        self.server = server
        self._client = client
        self.reached = [time.monotonic()]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._ended.wait(_EVERY):
            began = time.monotonic()
            answer = namespaces.ask(self._client, 'call', method='pid',
                                    args={}, timeout=_TIMEOUT,
                                    server=self.server)
            if 'result' in answer:
                self.reached.append(began)

    def end(self):
        self._ended.set()
        self._thread.join(60)

    def gaps(self):
        """(begin, end) of the times out of reach that were long."""
        return [(begin, end) for begin, end
                in zip(self.reached, self.reached[1:])
                if end - begin > TOLD_WITHIN]


class World:
    """Two hosts with services behind receivers, and one with the registry
    and those who call.
    """

    def __init__(self, hosts, folder, stack):
        self._hosts = hosts
        self.redis = Redis(hosts.c, folder)
        stack.callback(self.redis.kill)
        self._receivers = {each: each.receiver() for each
                           in (hosts.a, hosts.b)}
        query = {'rpc_zmq_matchmaker': self.redis.url}
        self.servers = {name: host.server(name, **query) for name, host in (
            ('a1', hosts.a), ('a2', hosts.a), ('b1', hosts.b))}
        self.watches = [Watch(hosts.c.client(**query), name)
                        for name in self.servers]
        for watch in self.watches:
            stack.callback(watch.end)

    def _cut(self, host, seconds):
        self._hosts.set_link(host, 'down')
        time.sleep(seconds)
        self._hosts.set_link(host, 'up')

    def _pause(self, process, seconds):
        process.signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.signal(signal.SIGCONT)

    def restart_registry(self, seconds):
        self.redis.kill()
        time.sleep(seconds)
        self.redis.start()

    def pause_registry(self, seconds):
        self._pause(self.redis, seconds)

    def kill_receiver(self, seconds):
        receiver = random.choice(list(self._receivers.values()))
        receiver.kill()
        time.sleep(seconds)
        receiver.start()

    def pause_receiver(self, seconds):
        self._pause(random.choice(list(self._receivers.values())), seconds)

    def cut_network(self, seconds):
        self._cut(random.choice((self._hosts.a, self._hosts.b)), seconds)

    def cut_registry(self, seconds):
        self._cut(self._hosts.c, seconds)

    def pause_service(self, seconds):
        server = random.choice(list(self.servers.values()))
        server.pause()
        time.sleep(seconds)
        server.resume()

    def all_are_reached(self):
        """Wait until all are; fails after BACK_WITHIN."""
        now = time.monotonic()
        for watch in self.watches:
            waiting.until(lambda watch=watch: watch.reached[-1] > now,
                          BACK_WITHIN + _TIMEOUT + _LATE, watch.server)

    def warned(self, name, begin, end):
        return [text for at, text in self.servers[name].ask('warned')
                if begin - 1 < at < end]


EVENTS = [World.restart_registry, World.pause_registry, World.kill_receiver,
          World.pause_receiver, World.cut_network, World.cut_registry,
          World.pause_service]


@pytest.fixture
def world(no_leaks, ipc_dir, tmp_path):
    with namespaces.Hosts(ipc_dir, 'abc') as hosts, (
            contextlib.ExitStack()) as stack:
        yield World(hosts, tmp_path, stack)


@pytest.mark.parametrize('events', soaks.sizes(
    len(EVENTS), 300, 'ZMQ_DEAF_EVENTS', pytest.mark.long))
def test_after_each_event_all_are_reached_again(world, events):
    random.seed(SEED)
    print('seed', SEED)
    world.all_are_reached()
    for number in range(events):
        if number % len(EVENTS) == 0:
            random.shuffle(EVENTS)
        event = EVENTS[number % len(EVENTS)]
        # The longer the run, the more events are long enough to be told.
        seconds = 36 if number % 50 == 49 else random.uniform(0.5, 4)
        print(f'{event.__name__} for {seconds:.1f} s', flush=True)
        event(world, seconds)
        world.all_are_reached()
    for watch in world.watches:
        for begin, end in watch.gaps():
            assert world.warned(watch.server, begin, begin + TOLD_WITHIN), (
                f'{watch.server} was out of reach for {end - begin:.0f} s '
                'without a word')


def test_what_lasts_is_told_by_the_service_itself(world):
    """The longest time without a word, once for a cause of the receiver."""
    world.all_are_reached()
    receiver = world._receivers[world._hosts.a]
    began = time.monotonic()
    receiver.signal(signal.SIGSTOP)
    for name in ('a1', 'a2'):
        waiting.until(lambda name=name: any(
            'cannot be reached' in text or 'cannot reach' in text for text
            in world.warned(name, began, time.monotonic())), TOLD_WITHIN)
        waiting.until(lambda name=name: world.servers[name].ask(
            'findings') == ['unreachable'], 30)
    assert 'unreachable' not in world.servers['b1'].ask('findings')
    receiver.signal(signal.SIGCONT)
    world.all_are_reached()
    for name in world.servers:
        waiting.until(lambda name=name: not world.servers[name].ask(
            'findings'), 30, lambda name=name: world.servers[name].ask(
                'findings'))
