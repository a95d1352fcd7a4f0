# SPDX-License-Identifier: Apache-2.0
"""What cannot be sent to a client for now."""

import pytest

from zmq_threaded import counters
from zmq_threaded.net import multiparts
from zmq_threaded.net import slow_clients

MEGABYTE = 1024 * 1024


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
        if outcome is multiparts.SENT:
            self.got.append(frames[1])
        return outcome


@pytest.fixture
def client():
    made = Client()
    for number in range(3):
        made.slow.keep([b'client', number])
    return made


def test_the_order_is_kept(client):
    client.outcomes = [multiparts.SENT, multiparts.SLOW]
    client.slow.retry()
    assert b'client' in client.slow
    client.outcomes = [multiparts.SENT, multiparts.SENT]
    client.slow.retry()
    assert client.got == [0, 1, 2]
    assert not len(client.slow)


def test_what_a_vanished_client_does_not_get_is_counted(client):
    client.outcomes = [multiparts.SENT, multiparts.GONE]
    client.slow.retry()
    assert client.counters.snapshot() == {'replies_to_vanished_clients': 2}
    assert not len(client.slow)


def test_one_that_cannot_be_sent_is_not_in_the_way_of_the_others(client):
    client.outcomes = [
        ValueError('on purpose'),
        multiparts.SENT,
        multiparts.SENT,
    ]
    with pytest.raises(ValueError):
        client.slow.retry()
    client.slow.retry()
    assert client.got == [1, 2]


def test_discarding_says_how_many(client):
    client.slow.keep([b'another', 3])
    assert client.slow.discard() == 4
    assert not len(client.slow) and client.slow.discard() == 0


# Bytes


def _take_all(client, count):
    client.got.clear()
    client.outcomes = [multiparts.SENT] * count
    client.slow.retry()
    assert not client.outcomes and not len(client.slow)
    return client.got


def test_one_client_keeps_so_many_bytes_and_the_oldest_go_first():
    client = Client()
    for number in range(20):
        client.slow.keep([b'client', number], MEGABYTE)
    assert _take_all(client, 16) == list(range(4, 20))
    assert client.counters.snapshot() == {'replies_dropped': 4}


def test_all_clients_together_keep_so_many_bytes():
    client = Client()
    for number in range(10):
        for name in range(10):
            client.slow.keep([b'%d' % name, number], MEGABYTE)
    client.slow.keep([b'small', 'small'], 10)
    dropped = client.counters.snapshot()['replies_dropped']
    assert dropped == 37
    assert _take_all(client, 101 - dropped)[-1] == 'small'
    # And now there is room again.
    for name in (b'a', b'b', b'c', b'd'):
        client.slow.keep([name, 8], 15 * MEGABYTE)
    assert _take_all(client, 4) == [8] * 4
    assert client.counters.snapshot()['replies_dropped'] == dropped


def test_the_newest_is_kept_however_big_it_is():
    client = Client()
    for number in range(3):
        client.slow.keep([b'client', number], 100 * MEGABYTE)
        client.slow.keep([b'other', number], MEGABYTE)
    client.slow.keep([b'client', 'last'], 100 * MEGABYTE)
    assert 'last' in _take_all(client, 1)


@pytest.mark.parametrize('outcome', [multiparts.GONE, multiparts.SENT])
def test_room_comes_back_however_the_bytes_went(outcome):
    client = Client()
    for _ in range(20):
        for name in (b'a', b'b', b'c', b'd'):
            client.slow.keep([name, 0], 15 * MEGABYTE)
        client.outcomes = [outcome] * 4
        client.slow.retry()
    assert not client.counters.snapshot().get('replies_dropped')
