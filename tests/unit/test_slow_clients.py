# SPDX-License-Identifier: Apache-2.0
"""What cannot be sent to a client for now."""

import pytest

from zmq_threaded import counters
from zmq_threaded import slow_clients
from zmq_threaded import sockets


class Client:
    """Answers each attempt to send with the next outcome."""

    def __init__(self):
        self.counters = counters.Counters()
        self.slow = slow_clients.SlowClients(self._send, self.counters)
        self.outcomes, self.got = [], []

    def _send(self, frames):
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is sockets.SENT:
            self.got.append(frames[1])
        return outcome


@pytest.fixture
def client():
    made = Client()
    for number in range(3):
        made.slow.keep([b'client', number])
    return made


def test_the_order_is_kept(client):
    client.outcomes = [sockets.SENT, sockets.SLOW]
    client.slow.retry()
    assert b'client' in client.slow
    client.outcomes = [sockets.SENT, sockets.SENT]
    client.slow.retry()
    assert client.got == [0, 1, 2]
    assert not len(client.slow)


def test_what_a_vanished_client_does_not_get_is_counted(client):
    client.outcomes = [sockets.SENT, sockets.GONE]
    client.slow.retry()
    assert client.counters.snapshot() == {'replies_to_vanished_clients': 2}
    assert not len(client.slow)


def test_one_that_cannot_be_sent_is_not_in_the_way_of_the_others(client):
    client.outcomes = [ValueError('on purpose'), sockets.SENT, sockets.SENT]
    with pytest.raises(ValueError):
        client.slow.retry()
    client.slow.retry()
    assert client.got == [1, 2]


def test_discarding_says_how_many(client):
    client.slow.keep([b'another', 3])
    assert client.slow.discard() == 4
    assert not len(client.slow) and client.slow.discard() == 0
