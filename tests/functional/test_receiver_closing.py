# SPDX-License-Identifier: Apache-2.0
"""A receiver that ends orderly: what it says, when it closes, and what its
senders make of that. The receivers are processes.
"""

import contextlib
import os
import signal
import threading
import time

import oslo_messaging
import pytest
import zmq

from tests.support import ids
from tests.support import waiting
from zmq_threaded import errors
from zmq_threaded import timings
from zmq_threaded import wire

LINGER = 1.0
LATEST = LINGER + timings.RECEIVER_OVERTIME
SLOW = 20.0     # of the machine


@pytest.fixture
def peer(node, receiver):
    """A client of the receiver's port that does as it likes."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.set(zmq.IMMEDIATE, 1)
    socket.connect(f'tcp://127.0.0.1:{receiver.port}')
    assert socket.poll(20000, zmq.POLLOUT)
    yield socket
    context.destroy(linger=0)


def ask(peer, kind=wire.CAST):
    """What is answered to a request for nobody; None for nothing."""
    message = wire.encode(kind, os.urandom(16), ids.new_id(), (
        b'{}', b'{}', b''))
    with contextlib.suppress(zmq.Again):
        peer.send_multipart([b'', message], zmq.NOBLOCK)
        if peer.poll(3000):
            return wire.decode(peer.recv_multipart()[-1])
    return None


def is_word(answer):
    return answer is not None and wire.closes_in(answer) is not None


def test_it_says_when_it_will_be_closed_and_is(receiver, peer):
    assert wire.closes_in(ask(peer)) is None
    receiver.signal(signal.SIGTERM)
    answer = waiting.until(lambda: is_word(each := ask(peer)) and each)
    heard = time.monotonic()
    # One of the version before reads what it always did
    assert wire.nack_reason(answer)[0] == wire.UNREACHABLE
    said = wire.closes_in(answer)
    assert 0.0 < said <= LATEST
    assert receiver.wait() == 0
    assert time.monotonic() - heard < said + SLOW


def test_it_answers_all_for_the_time_of_zmq_linger(receiver, peer):
    # What comes after that: tests/unit/test_closings.py, by a clock that
    # no other process can hold up.
    ask(peer)
    told_at = time.monotonic()
    receiver.signal(signal.SIGTERM)
    waiting.until(lambda: is_word(ask(peer)))
    while time.monotonic() < told_at + LINGER - 0.3:
        assert is_word(ask(peer)), time.monotonic() - told_at
        time.sleep(0.02)
    assert receiver.wait() == 0


def test_it_closes_though_a_sender_never_stops(receiver, peer):
    ask(peer)
    receiver.signal(signal.SIGTERM)
    waiting.until(lambda: is_word(ask(peer)))
    closing, over = time.monotonic(), threading.Event()

    def flood():
        while not over.is_set():
            ask(peer)
    thread = threading.Thread(target=flood)
    thread.start()
    try:
        assert receiver.wait() == 0
        assert time.monotonic() - closing < LATEST + SLOW
    finally:
        over.set()
        thread.join()


def test_an_answer_finds_its_way_while_it_closes(node):
    receiver = node.receiver(zmq_linger=5)
    server = node.process()
    client = node.client()
    client.call({}, 'echo', value=1)
    found = []
    thread = threading.Thread(target=lambda: found.append(
        client.call({}, 'sleep', seconds=0.5)))
    thread.start()
    waiting.until(lambda: server.ask('slept') == 1)
    assert receiver.terminate() == 0
    thread.join(30)
    assert found == [server.pid]


@contextlib.contextmanager
def away(receiver, seconds=1.0):
    """The receiver is told to end, and comes back in another thread."""
    receiver.signal(signal.SIGTERM)

    def back():
        receiver.wait()
        time.sleep(seconds)
        receiver.start()
    thread = threading.Thread(target=back)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize('way', ['ipc', 'tcp'])
@pytest.mark.parametrize('monitor', [None, 15])
def test_calls_wait_for_it_to_come_back(node, receiver, monitor, way):
    if way == 'tcp':
        receiver.cut_off_ipc()
    server = node.process()
    client = node.client(timeout=20, call_monitor_timeout=monitor)
    client.call({}, 'echo', value=0)
    with away(receiver):
        found = [client.call({}, 'echo', value=number)
                 for number in range(200)]
    assert found == list(range(200))
    assert client.call({}, 'pid') == server.pid


def test_to_find_only_a_closing_one_is_not_to_find_nobody(node, receiver):
    receiver.cut_off_ipc()
    node.process()
    client = node.client(timeout=20, retry=0, transport_options=(
        oslo_messaging.TransportOptions(at_least_once=True)))
    client.call({}, 'echo', value=0)
    with away(receiver, 0.2):
        for number in range(200):
            assert client.call({}, 'echo', value=number) == number


def test_casts_and_fanouts_are_run_once(node, receiver):
    receiver.cut_off_ipc()
    servers = [node.process(server=name) for name in 'ab']
    client = node.client(timeout=20)
    client.call({}, 'echo', value=0)
    for _ in range(2):
        with away(receiver, 0.2):
            until, sent = time.monotonic() + 2, 0
            while time.monotonic() < until:
                client.cast({}, 'note', value='cast')
                client.prepare(fanout=True).cast({}, 'note', value='fan')
                sent += 1
                time.sleep(0.005)
        expected = {'cast': sent, 'fan': 2 * sent}
        waiting.until(lambda: len(seen(servers)) >= 3 * sent, 30)
        found = seen(servers)
        assert {each: found.count(each) for each in expected} == expected
        for each in servers:
            each.base = len(each.ask('seen'))


def seen(servers):
    return sum((each.ask('seen')[getattr(each, 'base', 0):]
                for each in servers), [])


# A receiver that says the word, and is gone: what was sent after the word was
# not taken, though nobody said so.


class Mute:
    """A receiver that has said that it is closing, and reads no more.

    :ivar taken: how many requests came
    """

    def __init__(self, port):
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(f'tcp://127.0.0.1:{port}')
        self.taken, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        """The first gets the word when the second is here as well."""
        taken = []
        while not self._over.is_set():
            if self._socket.poll(20):
                taken.append(self._socket.recv_multipart())
                if len(taken) == 2:
                    self._answer(taken[0])
            self.taken = len(taken)
        self._context.destroy(linger=100)

    def _answer(self, frames):
        *envelope, frame = frames
        asked = wire.decode(frame)
        self._socket.send_multipart([*envelope, wire.encode_nack(
            asked.instance, asked.id, wire.UNREACHABLE, '', 1.0)])

    def close(self):
        self._over.set()
        self._thread.join()


def test_one_that_was_sent_before_the_word_may_have_been_taken(
        node, receiver):
    receiver.cut_off_ipc()
    node.process()
    client = node.client(timeout=30)
    client.call({}, 'echo', value=0)
    receiver.kill()
    with contextlib.suppress(FileNotFoundError):
        receiver.cut_off_ipc()      # it was made anew
    mute = Mute(receiver.port)
    outcomes = []

    def call():
        try:
            outcomes.append(client.call({}, 'echo', value=1))
        except errors.ServerGone as error:
            outcomes.append(error)
    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        waiting.until(lambda: mute.taken >= 2)
        mute.close()
        receiver.start()
    finally:
        mute.close()
        for thread in threads:
            thread.join(60)
    # One was refused and waited; of the other nobody knows.
    assert sorted(type(each).__name__ for each in outcomes) == [
        'ServerGone', 'int']
