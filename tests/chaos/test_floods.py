# SPDX-License-Identifier: Apache-2.0
"""What strangers may throw at a service, or at a receiver, over TCP: it lives,
others are served, and its memory comes back.
"""

import concurrent.futures
import contextlib
import os
import re
import resource
import threading
import time

import pytest

from tests.support import leaks
from tests.support import ports
from tests.support import processes
from tests.support import raw_peer
from tests.support import soaks
from tests.support import waiting
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.registry import engines

_MEGABYTE = 1024 * 1024
_MOST_MEMORY = 512 * _MEGABYTE
_MOST_LEFT = 64 * _MEGABYTE
# Of a call, in seconds: a second on a quiet machine (ZMQ_CHAOS_SLACK=1), but
# the tests may have company, and the floods come from the same two cores.
_LONGEST = 1.0 * float(os.environ.get('ZMQ_CHAOS_SLACK', 10))
# Never two of them at a time, for they count seconds.
pytestmark = pytest.mark.xdist_group('floods')
_LIMITED = ('prlimit', '--nofile=1024:1024')


class Target:
    """A process on a TCP port, and a service that is reached through it.

    :ivar most: bytes of memory that it had at the most
    """

    def __init__(self, node, pid, port, is_alive):
        self.pid, self.port, self.is_alive = pid, port, is_alive
        registry = engines.embedded(node.ipc_dir, 30)
        listed, = registry.lookup(topics.rpc('openstack', 'topic').key)
        registry.close()
        self.instance = listed.id
        self.node = node
        self.most = self.memory()
        self.before = self.most

    def memory(self):
        with open(f'/proc/{self.pid}/status') as status:
            return int(re.search(r'VmRSS:\s+(\d+)', status.read())[1]) * 1024

    def peer(self, **kwargs):
        return raw_peer.RawPeer(('127.0.0.1', self.port), **kwargs)

    def message(self, kind, body, instance=None):
        return wire.encode(kind, self.instance if instance is None
                           else instance, os.urandom(16), body)

    @contextlib.contextmanager
    def measured(self):
        """Honest calls go on meanwhile; afterwards all is as before."""
        client = self.node.client(timeout=30)
        assert client.call({}, 'echo', value=1) == 1
        self.before = self.memory()
        done = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            calls = pool.submit(self._call, client, done)
            looks = pool.submit(self._look, done)
            try:
                yield
            finally:
                done.set()
            longest = calls.result(60)
            looks.result(60)
        print(f'longest call {longest:.3f} s, memory {self.before >> 20}, '
              f'at most {self.most >> 20} MiB')
        assert self.is_alive()
        assert client.call({}, 'echo', value=2) == 2
        assert self.most < _MOST_MEMORY
        assert longest < _LONGEST
        waiting.until(lambda: self.memory() < self.before + _MOST_LEFT, 20,
                      f'memory back from {self.memory() >> 20} MiB')

    @staticmethod
    def _call(client, done):
        longest = 0.0
        while not done.is_set():
            began = time.monotonic()
            assert client.call({}, 'echo', value=began) == began
            longest = max(longest, time.monotonic() - began)
            done.wait(0.02)
        return longest

    def _look(self, done):
        while not done.wait(0.05):
            self.most = max(self.most, self.memory())


@pytest.fixture(params=['service', 'receiver'])
def target(request, node):
    port = ports.free_port()
    if request.param == 'receiver':
        receiver = node.receiver(port=port, before=_LIMITED)
        query = {}
    else:
        query = {'rpc_zmq_transport': 'tcp', 'rpc_zmq_min_port': port,
                 'rpc_zmq_max_port': port, 'rpc_zmq_host': '127.0.0.1',
                 'rpc_zmq_bind_address': '127.0.0.1'}
    server = processes.ServerProcess(
        node.ipc_dir, 'server_main.py', node.url(**query), 'topic', 'server',
        before=_LIMITED)
    node.closing(server.end)
    attacked = receiver if request.param == 'receiver' else server
    yield Target(node, attacked.pid, port,
                 lambda: attacked._popen.poll() is None)


@pytest.fixture(params=soaks.sizes(1.5, 4.0))
def seconds(request):
    return request.param


def _flood(target, data, seconds, peers=4):
    """Send the same from several peers, which come back when they are cut
    off and never read.
    """
    until = time.monotonic() + seconds

    def flood():
        while time.monotonic() < until:
            with contextlib.suppress(OSError, EOFError), target.peer(
                    timeout=2) as peer:
                peer.flood(data, lambda: time.monotonic() > until)
            # The kernel says so at once, and libzmq is to have its turn.
            time.sleep(0.01)

    threads = [threading.Thread(target=flood) for _ in range(peers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize('frame', [b'', b'z' * 8, b'z' * 100])
def test_multiparts_that_never_end(target, frame, seconds):
    data = raw_peer.pack(frame, more=True) * (_MEGABYTE // (len(frame) + 2))
    with target.measured():
        _flood(target, data, seconds)


def test_multiparts_of_many_frames(target, seconds):
    data = raw_peer.multipart(*[b'z'] * 200_000)
    with target.measured():
        _flood(target, data, seconds, peers=2)


def test_big_frames_that_never_end(target):
    header = b'\x02' + (90 * _MEGABYTE).to_bytes(8, 'big')
    with target.measured(), contextlib.ExitStack() as stack:
        for _ in range(8):
            peer = stack.enter_context(target.peer())
            with contextlib.suppress(OSError):
                peer.socket.sendall(header)
                for _ in range(89):
                    peer.socket.sendall(bytes(_MEGABYTE))


def test_headers_of_frames_that_are_too_big(target):
    with target.measured():
        for size in (101 * _MEGABYTE, 1 << 34, 1 << 46, (1 << 63) - 1,
                     (1 << 64) - 1):
            with target.peer() as peer:
                peer.socket.sendall(b'\x02' + size.to_bytes(8, 'big') + b'abc')
                with contextlib.suppress(ConnectionError):
                    assert peer.socket.recv(1) == b''


def test_many_ids(target, seconds):
    query = target.message(wire.QUERY, [os.urandom(16 * 60_000)])
    fanout = target.message(
        wire.FANOUT, [b'{}', b'{}', target.instance * 60_000], wire.NO_ID)
    twice = target.message(
        wire.FANOUT, [b'{}', b'{}', os.urandom(16 * 4096)], wire.NO_ID)
    data = b''.join(raw_peer.multipart(b'', each)
                    for each in (query, fanout, twice))
    with target.measured():
        _flood(target, data, seconds)


def test_answers_that_nobody_reads(target, seconds):
    query = target.message(wire.QUERY, [bytes(16 * 1000)])
    with target.measured():
        _flood(target, raw_peer.multipart(b'', query), seconds, peers=20)


def test_long_envelopes(target, seconds):
    query = target.message(wire.QUERY, [bytes(16)])
    with target.measured():
        _flood(target, raw_peer.multipart(bytes(200_000), b'', query),
               seconds)


def test_identities(target):
    """Each as long as it may be, the same ones, and those that libzmq would
    give without a seed.
    """
    first = 0x6b8b4567
    claims = ([bytes(1) + (first + n).to_bytes(4, 'big') for n in range(100)]
              + [os.urandom(255) for _ in range(200)] + [b'same'] * 100)
    query = target.message(wire.QUERY, [bytes(16)])
    with target.measured(), contextlib.ExitStack() as stack:
        for claim in claims:
            peer = stack.enter_context(target.peer(identity=claim))
            peer.send(b'', query)


def test_connections(target):
    before = leaks.descriptors_of(target.pid)
    with target.measured():
        for _ in range(10):
            with contextlib.ExitStack() as stack:
                for _ in range(300):
                    stack.enter_context(target.peer())
    waiting.until(lambda: leaks.descriptors_of(target.pid) <= before + 3, 20,
                  'descriptors back')


def test_all_descriptors(target):
    """Those who were connected before go on being answered."""
    with _no_limit_here(), target.peer() as honest:
        # For an instance that is not here: the answer is a refusal.
        cast = target.message(wire.CAST, [b'{}', b'{}'], os.urandom(16))
        honest.send(b'', cast)
        assert honest.receive()
        with target.measured(), contextlib.ExitStack() as stack:
            for _ in range(1100):
                try:
                    stack.enter_context(target.peer(timeout=0.5))
                except (OSError, EOFError):
                    break
            assert len(os.listdir(f'/proc/{target.pid}/fd')) > 1000
            for _ in range(200):
                honest.send(b'', cast)
                assert honest.receive()
                time.sleep(0.01)
        honest.send(b'', cast)
        assert honest.receive()
    with target.peer() as later:
        later.send(b'', cast)
        assert later.receive()


@contextlib.contextmanager
def _no_limit_here():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_no_answer_tells_a_peer_its_routing_id(target):
    with target.peer(identity=b'a secret name') as peer:
        query = target.message(wire.QUERY, [bytes(16)])
        peer.send(b'', query)
        peer.send(b'request id', b'', query)
        peer.send(b'', target.message(wire.CAST, [b'', b''], os.urandom(16)))
        for _ in range(3):
            frames = peer.receive()
            assert frames[:-1] in ([b''], [b'request id', b''])
        assert b'a secret name' not in peer.seen
