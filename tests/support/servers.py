# SPDX-License-Identifier: Apache-2.0
"""Real registry engines that a test can stop, kill, pause and empty.

Each server is a child of the test on free loopback ports, with its data in a
temporary directory. NAMES are those of the engines; open_engine() skips the
test, saying what to install, where a server is missing.
"""

import contextlib
import gc
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest
from tooz import coordination

from tests.support import leaks
from tests.support import ports as tcp
from tests.support import processes
from tests.support import waiting
from zmq_threaded.registry import engines

_DEVNULL = subprocess.DEVNULL
_START_LIMIT = 30


class _Server:
    """One server process.

    :param command: list of arguments; its port is where it listens
    """

    def __init__(self, command, port):
        self._command = command
        self.port = port
        self._popen = None

    def launch(self):
        self._popen = subprocess.Popen(self._command, stdin=_DEVNULL,
                                       stdout=_DEVNULL, stderr=_DEVNULL)

    def launch_if_ended(self):
        if self._popen.poll() is not None:
            self.launch()

    def wait_until_up(self):
        waiting.until(self._listens, _START_LIMIT, self._command[0])

    def _listens(self):
        assert self._popen.poll() is None, f'{self._command} ended'
        with contextlib.suppress(OSError):
            socket.create_connection(('127.0.0.1', self.port), 1).close()
            return True

    def signal(self, number):
        if self._popen and self._popen.poll() is None:
            self._popen.send_signal(number)

    def end(self, number):
        self.signal(signal.SIGCONT)
        self.signal(number)
        if self._popen:
            self._popen.wait(_START_LIMIT)


class Engine:
    """One or more servers.

    :ivar url: of tooz
    :ivar fail_over: kills the master, if there is one to replace it
    """

    fail_over = None

    def __init__(self, folder):
        self._folder = folder
        self._servers = self._make()

    def data(self, name=''):
        path = os.path.join(self._folder, 'data', name)
        os.makedirs(path, exist_ok=True)
        return path

    def start(self):
        for server in self._servers:
            server.launch()
        for server in self._servers:
            server.wait_until_up()
        self._wait_until_usable()

    def stop(self):
        self._end(signal.SIGTERM)

    def kill(self):
        self._end(signal.SIGKILL)

    def _end(self, number):
        for server in self._servers:
            server.end(number)

    def pause(self):
        for server in self._servers:
            server.signal(signal.SIGSTOP)

    def resume(self):
        for server in self._servers:
            server.signal(signal.SIGCONT)

    def ensure_running(self):
        """Whatever a test did."""
        self.resume()
        for server in self._servers:
            server.launch_if_ended()
        for server in self._servers:
            server.wait_until_up()
        self._wait_until_usable()

    def restart(self, empty=False):
        """Kill and start."""
        self.kill()
        if empty:
            self._empty()
        self.start()

    def _empty(self):
        shutil.rmtree(os.path.join(self._folder, 'data'))
        self._servers = self._make()

    def store(self, expire):
        """A Store of its own, as of another process."""
        return engines.distributed(self.url, expire)

    @contextlib.contextmanager
    def coordinator(self, member=b'test'):
        """tooz, without us."""
        made = coordination.get_coordinator(self.url, member, timeout=2,
                                            executor='sync')
        made.start()
        try:
            yield made
        finally:
            made.stop()

    def groups(self):
        with self.coordinator() as coordinator:
            # Of etcd tooz shows the members as well.
            return {group.decode() for group in coordinator.get_groups().get()
                    if b'/' not in group}

    def _wait_until_usable(self):
        waiting.until(self._is_usable, _START_LIMIT, self.url)

    def _is_usable(self):
        with contextlib.suppress(Exception):
            self.groups()
            return True


_GARBAGE = b'\xc1nonsense'


class Files(Engine):
    """The embedded registry: no server."""

    binaries, package = [], ''

    def _make(self):
        self.url = f'file://{self.data()}/registry?timeout=30'
        return []

    def store(self, expire):
        return engines.embedded(self.data(), expire)

    def put_garbage(self, group):
        self._garbage = os.path.join(
            self.data(), 'registry', 'groups',
            hashlib.sha1(group.encode()).hexdigest(), 'garbage.raw')
        with open(self._garbage, 'wb') as record:
            record.write(_GARBAGE)

    def remove_garbage(self, group):
        """It was removed when it was found."""


class Redis(Engine):
    """With a password that has to be escaped in a URL."""

    binaries, package = ['redis-server'], 'redis-server'
    password = 'p@ss/wörd:?#%'
    escaped = 'p%40ss%2Fw%C3%B6rd%3A%3F%23%25'

    def _make(self):
        self._port = getattr(self, '_port', None) or tcp.free_port()
        self.url = f'redis://:{self.escaped}@127.0.0.1:{self._port}'
        return [_Server(_redis_command(self._port, self.data()) + [
            '--requirepass', self.password], self._port)]

    def put_garbage(self, group):
        _put_into_redis(self, group)

    def remove_garbage(self, group):
        """It was removed when it was found: nobody beats for it."""

    @contextlib.contextmanager
    def coordinator(self, member=b'test'):
        # tooz does not decode passwords, we do.
        made = engines._connect(self.url, 30, member)
        made.start()
        try:
            yield made
        finally:
            made.stop()


class Sentinel(Engine):
    """A master, a replica and three sentinels."""

    binaries, package = ['redis-server', 'redis-sentinel'], (
        'redis-server redis-sentinel')

    def _make(self):
        ports = getattr(self, '_ports', None) or tcp.free_ports(5)
        self._ports = ports
        self.url = (f'redis://127.0.0.1:{ports[2]}?sentinel=ours'
                    f'&sentinel_fallback=127.0.0.1:{ports[3]}'
                    f'&sentinel_fallback=127.0.0.1:{ports[4]}')
        return ([self._redis(ports[0], ''),
                 self._redis(ports[1], f'replicaof 127.0.0.1 {ports[0]}')]
                + [self._sentinel(port, ports[0]) for port in ports[2:]])

    def _redis(self, port, replication):
        # In a file, for the sentinels rewrite it.
        path = os.path.join(self.data(str(port)), 'redis.conf')
        with open(path, 'w') as conf:
            print(replication, file=conf)
        command = _redis_command(port, self.data(str(port)))
        return _Server(command[:1] + [path] + command[1:], port)

    def _sentinel(self, port, master):
        path = os.path.join(self.data(str(port)), 'sentinel.conf')
        with open(path, 'w') as conf:
            print(f'port {port}', 'bind 127.0.0.1', 'protected-mode no',
                  f'dir {self.data(str(port))}',
                  f'sentinel monitor ours 127.0.0.1 {master} 2',
                  'sentinel down-after-milliseconds ours 1000',
                  'sentinel failover-timeout ours 3000', sep='\n', file=conf)
        return _Server(['redis-sentinel', path], port)

    def _is_complete(self):
        return all(map(self._knows_all, self._ports[2:]))

    def _knows_all(self, port):
        import redis
        with redis.Redis(port=port, socket_timeout=3) as sentinel:
            state = sentinel.sentinel_master('ours')
            # In TILT, 30 s after it was paused, a sentinel only looks on; the
            # replica has then lost its master for too long to follow it.
            return (not sentinel.info('sentinel')['sentinel_tilt']
                    and state['num-slaves'] >= 1
                    and state['num-other-sentinels'] == 2
                    and all(replica['master-link-status'] == 'ok' for replica
                            in sentinel.sentinel_slaves('ours')))

    def put_garbage(self, group):
        _put_into_redis(self, group)

    def remove_garbage(self, group):
        """As with redis."""

    def _master(self):
        import redis
        with redis.Redis(port=self._ports[2], socket_timeout=3) as sentinel:
            _, port = sentinel.sentinel_get_master_addr_by_name('ours')
        return next(server for server in self._servers
                    if server.port == int(port))

    def fail_over(self):
        """Kill the master; returns when another one is known."""
        waiting.until(self._is_complete, 60, 'sentinels')
        old = self._master()
        old.end(signal.SIGKILL)
        waiting.until(lambda: self._master() is not old, 30)
        self._old_master = old

    def restore(self):
        """Bring the old master back, as a replica."""
        self._old_master.launch()
        self._old_master.wait_until_up()
        self._wait_until_usable()


class Etcd(Engine):
    binaries, package = ['etcd'], 'etcd-server'

    def _make(self):
        self._ports = getattr(self, '_ports', None) or tcp.free_ports(2)
        client, peer = (f'http://127.0.0.1:{port}' for port in self._ports)
        self.url = f'etcd3+{client}'
        return [_Server([
            'etcd', '--data-dir', self.data(), '--name', 'ours',
            '--listen-client-urls', client, '--advertise-client-urls', client,
            '--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer,
            '--initial-cluster', f'ours={peer}'], self._ports[0])]

    def put_garbage(self, group):
        with self.coordinator() as coordinator:
            coordinator.client.put(f'tooz/groups/{group}/garbage', _GARBAGE)

    def remove_garbage(self, group):
        with self.coordinator() as coordinator:
            coordinator.client.delete(f'tooz/groups/{group}/garbage')


class Zookeeper(Engine):
    binaries, package = ['java', '/usr/share/java/zookeeper.jar'], 'zookeeperd'

    def _make(self):
        self._port = getattr(self, '_port', None) or tcp.free_port()
        self.url = f'zookeeper://127.0.0.1:{self._port}'
        path = os.path.join(self.data(), 'zoo.cfg')
        with open(path, 'w') as conf:
            print('tickTime=500', 'maxSessionTimeout=60000',
                  f'dataDir={self.data()}', f'clientPort={self._port}',
                  'clientPortAddress=127.0.0.1', 'maxClientCnxns=0',
                  'admin.enableServer=false', sep='\n', file=conf)
        return [_Server([
            'java', '-Xmx128m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1',
            '-cp', '/usr/share/java/zookeeper.jar',
            'org.apache.zookeeper.server.quorum.QuorumPeerMain', path],
            self._port)]

    @contextlib.contextmanager
    def coordinator(self, member=b'test'):
        with super().coordinator(member) as coordinator:
            yield coordinator
        coordinator._coord.close()      # tooz leaves its descriptors open

    def put_garbage(self, group):
        with self.coordinator() as coordinator:
            coordinator._coord.create(f'/tooz/{group}/garbage', _GARBAGE)

    def remove_garbage(self, group):
        with self.coordinator() as coordinator:
            coordinator._coord.delete(f'/tooz/{group}/garbage')


_ENGINES = {'file': Files, 'redis': Redis, 'sentinel': Sentinel, 'etcd': Etcd,
            'zookeeper': Zookeeper}
NAMES = list(_ENGINES)
DISTRIBUTED = [name for name in NAMES if name != 'file']
WITH_FAIL_OVER = [name for name, each in _ENGINES.items() if each.fail_over]


def parallel(names):
    """Parameters whose tests stay together, each in a process of pytest-xdist:
    the server is started once.
    """
    return [pytest.param(name, marks=pytest.mark.xdist_group(name))
            for name in names]


@contextlib.contextmanager
def no_client_left(seconds=45):
    """Fail if a thread or a descriptor is left; the servers may have been
    started anew. kazoo may take more than ten seconds to end.
    """
    gc.collect()
    threads, descriptors = leaks.threads(), _descriptors()
    yield
    deadline = time.monotonic() + seconds
    while leaks.threads() - threads or len(_descriptors()) > len(descriptors):
        assert time.monotonic() < deadline, (
            f'left behind: {leaks.threads() - threads}, '
            f'{_descriptors() - descriptors}')
        time.sleep(0.05)
        gc.collect()


def sockets():
    """How many are open. (kazoo has an epoll that comes and goes.)"""
    return sum('socket:' in path for _, path in _descriptors())


def _descriptors():
    found = set()
    for number in os.listdir('/proc/self/fd'):
        with contextlib.suppress(OSError):
            found.add((number, os.readlink(f'/proc/self/fd/{number}')))
    return found


def _put_into_redis(engine, group):
    with engine.coordinator() as coordinator:
        coordinator._client.hset(f'_tooz_group:{group}', 'garbage', _GARBAGE)


def _redis_command(port, folder):
    return ['redis-server', '--port', str(port), '--bind', '127.0.0.1',
            '--dir', folder, '--appendonly', 'yes', '--appendfsync', 'always',
            '--save', '']


def open_store(name, url, expire):
    """For another process: of a running engine."""
    if name == 'file':
        folder = os.path.dirname(url.partition('?')[0].partition('//')[2])
        return engines.embedded(folder, expire)
    return engines.distributed(url, expire)


_SERVICE = '''
import contextlib, os, sys, time
from tests.support import servers
from zmq_threaded.registry import record
name, url, key, expire, keep = sys.argv[1:]
mine = servers.open_store(name, url, float(expire))
service = record.Instance(os.urandom(16), ('tcp://node-1:1',))
mine.register(service, [key])
print(service.id.hex(), flush=True)
while keep == 'beat':
    time.sleep(float(expire) / 6)
    with contextlib.suppress(Exception):    # as the registry, which tries on
        mine.beat()
for number in range(int(keep)):
    mine.register(service, [key])
    mine.beat()
    assert service in mine.lookup(key), f'{number}: not there'
    mine.unregister(service)
    assert service not in mine.lookup(key), f'{number}: still there'
mine.close()
'''


@contextlib.contextmanager
def service_process(engine, key, expire, keep='beat'):
    """A process with a registered service, killed at the end.

    :param keep: 'beat' for ever, or a number: come and go so many times
    """
    child = subprocess.Popen(
        [sys.executable, '-c', _SERVICE, engine.name, engine.url, key,
         str(expire), keep], stdout=subprocess.PIPE, text=True,
        env=processes.ENVIRONMENT)
    try:
        child.instance_id = bytes.fromhex(child.stdout.readline())
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@contextlib.contextmanager
def paused(process):
    """:param process: Popen, of whatever"""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def out_of_order(engine, how, seconds):
    """The engine does not answer, for so many seconds from now at least; it is
    back at the end of the block.

    :param how: 'pause', 'kill', 'empty' (killed, and back without its data)
        or 'fail_over'
    """
    end = time.monotonic() + seconds
    {'pause': engine.pause, 'kill': engine.kill, 'empty': engine.kill,
     'fail_over': engine.fail_over}[how]()
    yield
    time.sleep(max(0.0, end - time.monotonic()))
    if how == 'pause':
        engine.resume()
    elif how == 'kill':
        engine.start()
    elif how == 'empty':
        engine.restart(empty=True)


@contextlib.contextmanager
def open_engine(name):
    """A running engine, ended afterwards with all its processes."""
    engine_class = _ENGINES[name]
    for binary in engine_class.binaries:
        if not shutil.which(binary) and not os.path.isfile(binary):
            pytest.skip(f'{binary} is missing: apt-get install -y '
                        f'{engine_class.package}')
    folder = tempfile.mkdtemp(prefix='zt-engine-')
    engine = engine_class(folder)
    engine.name = name
    try:
        engine.start()
        yield engine
    finally:
        engine.kill()
        shutil.rmtree(folder, ignore_errors=True)
