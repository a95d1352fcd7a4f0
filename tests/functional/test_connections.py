# SPDX-License-Identifier: Apache-2.0
"""Connections that libzmq has accepted, found and ended."""

import contextlib
import os
import resource
import socket

import pytest
import zmq

from tests.support import ids
from tests.support import leaks
from tests.support import raw_peer
from tests.support import waiting
from zmq_threaded import counters
from zmq_threaded import endpoints
from zmq_threaded import sockets
from zmq_threaded.net import binding
from zmq_threaded.net import flood_guard
from zmq_threaded.net import inbox
from zmq_threaded.net import ledger
from zmq_threaded.net import multiparts
from zmq_threaded.net import tcp_connections

_MEGABYTE = 1024 * 1024


class Bound:
    """A ROUTER on a TCP port and a path."""

    def __init__(self, context, settings, ipc_dir):
        self.socket = sockets.Sockets(context, settings).router()
        self.path = os.path.join(ipc_dir, 'router.sock')
        binding.bind_ipc(self.socket, self.path)
        self.port = self.socket.bind_to_random_port('tcp://127.0.0.1')
        self.counters = counters.Counters()

    def peer(self, way='tcp', **kwargs):
        return raw_peer.RawPeer(self.path if way == 'ipc'
                                else ('127.0.0.1', self.port), **kwargs)

    def inbox(self, **kwargs):
        return inbox.Inbox(self.socket, self.counters,
                           local=endpoints.own_addresses(
                               self.port, self.path), **kwargs)

    def read_all(self, box):
        """All multiparts that are there."""
        read = []
        with contextlib.suppress(zmq.Again):
            while True:
                frames = box.receive()
                if frames is not None:
                    read.append(frames)
        return read


@pytest.fixture
def bound(node, ipc_dir):
    context = zmq.Context()
    made = Bound(context, node.settings(), ipc_dir)
    yield made
    binding.unbind_ipc(made.path)
    made.socket.close(linger=0)
    context.term()


def _is_ended(peer):
    with contextlib.suppress(ConnectionError):
        return peer.socket.recv(1) == b''
    return True


def test_accepted_connections_and_their_bytes(bound):
    with bound.peer() as one, bound.peer() as other, bound.peer('ipc'):
        one.send(b'', b'x' * 1000)
        waiting.until(lambda: sorted(
            each.received > 1000
            for each in tcp_connections.accepted(bound.port)) == [False, True])
        assert {each.peer for each in tcp_connections.accepted(
            bound.port)} == {'127.0.0.1'}
        assert not _is_readable(other)
    waiting.until(lambda: not tcp_connections.accepted(bound.port))


def _is_readable(peer):
    peer.socket.settimeout(0.01)
    try:
        return peer.socket.recv(1) is not None
    except TimeoutError:
        return False


def test_only_what_was_accepted_here_is_ended(bound):
    ours, theirs = socket.socketpair()
    with ours, theirs, open(os.devnull) as file, bound.peer() as peer:
        each, = tcp_connections.accepted(bound.port)
        for fd in (ours.fileno(), file.fileno(), peer.socket.fileno(), 9999):
            assert not tcp_connections.end(fd, {bound.port, bound.path})
        assert not tcp_connections.end(each.fd, {bound.port}, each.key + 1)
        assert not tcp_connections.end(each.fd, {bound.port + 1})
        before = len(os.listdir('/proc/self/fd'))
        assert tcp_connections.end(each.fd, {bound.port}, each.key)
        assert _is_ended(peer)
        assert len(os.listdir('/proc/self/fd')) <= before
        ours.send(b'still there')
        assert theirs.recv(20) == b'still there'


@pytest.mark.parametrize('way', ['tcp', 'ipc'])
@pytest.mark.parametrize('receive', [multiparts.receive,
                                     multiparts.receive_uncopied])
@pytest.mark.parametrize('count', [17, 1000, 5432])
def test_who_sends_too_many_frames_is_ended_and_others_are_read(
        bound, way, receive, count):
    box = bound.inbox(receive=receive)
    with bound.peer(way) as hostile, bound.peer(way) as honest:
        hostile.send(*[b'f'] * count)
        assert bound.socket.poll(20000)
        honest.send(b'', b'message', b'unknown')
        read = []
        waiting.until(lambda: read.extend(bound.read_all(box)) or read)
        assert [[bytes(frame) for frame in frames[1:]]
                for frames in read] == [[b'', b'message', b'unknown']]
        assert bound.counters.snapshot() == {'malformed': 1}
        assert _is_ended(hostile)
        honest.send(b'', b'again')
        waiting.until(lambda: len(bound.read_all(box)) == 1)


def test_a_slice_is_bounded(bound):
    box = bound.inbox()
    with bound.peer() as hostile:
        hostile.send(*[b'f'] * 2500)
        assert bound.socket.poll(20000)
        slices = 0
        with contextlib.suppress(zmq.Again):
            while box.receive() is None:
                slices += 1
        assert slices in (3, 4, 5) and not box.is_behind


def _guard_of_much_memory(bound):
    """As if the memory of this process had grown."""
    guard = flood_guard.FloodGuard(bound.port, _MEGABYTE, bound.counters)
    guard._memory.growth()
    guard._memory._calm -= 140 * _MEGABYTE
    return guard


def test_the_guard_spares_who_is_read(bound):
    guard = _guard_of_much_memory(bound)
    box = bound.inbox(guard=guard)
    message = ids.new_id() * 1000
    with bound.peer() as hostile, bound.peer() as honest:
        guard.check()
        assert guard.is_watching

        def step():
            # The one never ends its multipart.
            with contextlib.suppress(OSError):
                hostile.socket.sendall(raw_peer.pack(message, more=True) * 10)
            honest.send(b'', message)
            waiting.until(lambda: bound.read_all(box))
            guard.check()
            return bound.counters.snapshot().get('floods_ended')

        assert waiting.until(step) == 1
        assert _is_ended(hostile)
        for _ in range(20):
            step()
        assert bound.counters.snapshot() == {'floods_ended': 1}
        assert len(tcp_connections.accepted(bound.port)) == 1
    guard.stop()


def test_a_guard_without_a_port_does_nothing():
    guard = flood_guard.FloodGuard(None, 1, counters.Counters())
    guard.check()
    guard.start()
    assert not guard.is_watching and not leaks.threads() & {'zmq-guard'}
    guard.stop()


def test_a_guard_works_and_ends_connections_without_descriptors(bound):
    guard = _guard_of_much_memory(bound)
    with bound.peer() as peer:
        each, = tcp_connections.accepted(bound.port)
        with _no_descriptor_left():
            guard.check()
            assert guard.is_watching
            look = tcp_connections.Look(bound.port, guard._memory.descriptors)
            assert [found.key for found in look] == [each.key]
            assert tcp_connections.end(each.fd, {bound.port}, each.key)
        assert _is_ended(peer)
    guard.stop()


@contextlib.contextmanager
def _no_descriptor_left():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        highest = max(map(int, os.listdir('/proc/self/fd')))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE,
                       (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        with pytest.raises(OSError):
            while True:
                stack.callback(os.close, os.open('/', os.O_RDONLY))
        yield


def test_a_look_leaves_descriptors_of_others_as_they_are(bound):
    ours, theirs = socket.socketpair()
    before = socket.getdefaulttimeout()
    with ours, theirs, bound.peer() as peer:
        socket.setdefaulttimeout(5)
        try:
            each, = tcp_connections.accepted(bound.port)
            assert not tcp_connections.end(ours.fileno(), {bound.port})
        finally:
            socket.setdefaulttimeout(before)
        assert os.get_blocking(ours.fileno())
        assert os.get_blocking(theirs.fileno())
        assert each.peer == peer.socket.getpeername()[0]


def test_only_what_was_sent_is_booked(bound):
    guard = flood_guard.FloodGuard(bound.port, _MEGABYTE, bound.counters)
    box = bound.inbox(guard=guard)
    guard.is_watching = True
    with bound.peer() as peer:
        peer.send(b'', b'question')
        client = waiting.until(lambda: bound.read_all(box))[0][0]

        def fill():
            return guard.answer(bound.socket, [client, b'', bytes(10_000)])

        sent = 0
        while fill() is multiparts.SENT:
            sent += 1
        for _ in range(1000):
            assert fill() is multiparts.SLOW
        booked = guard._ledger._clients[client].written
        assert booked == sent * (10_000 + 9 + 2)
    guard.stop()


def test_a_number_that_is_used_again_starts_from_nothing(bound):
    accounts = ledger.Ledger()
    box = bound.inbox(guard=accounts)
    accounts.is_watching = True

    def held():
        look = tcp_connections.Look(bound.port, 1024)
        return [(each.connection.fd, each.size)
                for each in accounts.held(look, 0, lambda: True)]

    assert held() == []
    own = socket.socket()
    with bound.peer() as first:
        first.send(b'', bytes(100_000))
        waiting.until(lambda: bound.read_all(box))
        (number, size), = held()
        assert size < 1000
    waiting.until(lambda: not tcp_connections.accepted(bound.port))
    # The kernel gives the lowest number that is free, which is to be that one.
    with _free_alone(number), bound.peer(own=own) as second:
        second.socket.sendall(raw_peer.pack(bytes(50_000), more=True))
        waiting.until(lambda: held()[0][1] > 50_000)
        assert held()[0][0] == number


@contextlib.contextmanager
def _free_alone(number):
    """No lower number is free."""
    taken = [os.dup(0)]
    while taken[-1] < number:
        taken.append(os.dup(0))
    os.close(taken.pop())
    try:
        yield
    finally:
        for each in taken:
            os.close(each)
