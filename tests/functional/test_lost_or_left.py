# SPDX-License-Identifier: Apache-2.0
"""A record is missing: its registry has lost it, or its owner has taken it
off. Senders keep whom the registry has lost, and nobody else.
"""

import contextlib
import os

import msgpack
import pytest

from tests.support import servers
from tests.support import waiting
from zmq_threaded.registry import epochs
from zmq_threaded.registry import record

KEY = 'rpc:exchange:topic'


@pytest.fixture(scope='module', params=servers.parallel(servers.DISTRIBUTED))
def engine(request):
    with servers.open_engine(request.param) as opened:
        yield opened


@pytest.fixture
def store(engine):
    """store(): a Store of its own, as of another process."""
    with contextlib.ExitStack() as stack:
        def make():
            made = engine.store(30)
            stack.callback(made.close)
            return made
        yield make


def found(store):
    """The instances of the key, once the engine answers."""
    answers = []

    def answered():
        with contextlib.suppress(Exception):
            answers.append(store.lookup(KEY))
        return answers
    waiting.until(answered, 60)
    return answers[0]


def insist(step, *args):
    """A client may notice only now that its server was started anew."""
    def done():
        with contextlib.suppress(Exception):
            step(*args)
            return True
    waiting.until(done, 60)


def instance():
    return record.Instance(os.urandom(16), ('tcp://node-1:1',))


@pytest.fixture
def known(engine, store):
    """A registry that has just begun, a service that began it, and another
    one: (Store of the first, of the other, of a client, the two instances as
    the client has found them).
    """
    engine.restart(empty=True)
    began, other, client = store(), store(), store()
    for each in (began, other):
        insist(each.register, instance(), [KEY])
    first, second = found(client)
    if first.id not in began._wanted:
        first, second = second, first
    return began, other, client, first, second


def test_who_was_taken_off_soon_after_the_registry_began_is_not_lost(known):
    began, other, client, first, second = known
    other.unregister(second)
    assert found(client) == [first]
    assert not client.loss(KEY).concerns(second)
    began.unregister(first)
    # The mark goes with the last record of the process that made it.
    assert found(client) == [] and client.loss(KEY) is None


def test_who_was_lost_is_lost_though_the_same_process_began_the_registry(
        known, engine):
    began, other, client, *both = known
    engine.restart(empty=True)
    assert found(client) == []
    loss = client.loss(KEY)
    assert all(map(loss.concerns, both))
    # The process that made the last mark makes the next one, too.
    insist(began.beat)
    first, = found(client)
    loss = client.loss(KEY)
    assert loss.epochs and all(map(loss.concerns, both))
    assert not loss.concerns(first)


def test_all_is_doubted_where_an_earlier_release_has_made_the_mark(
        known, engine, store):
    began, other, client, *_ = known
    engine.restart(empty=True)
    found(client)
    with engine.coordinator() as earlier:
        earlier.create_group(epochs.MARK.encode()).get()
        earlier.join_group(epochs.MARK.encode(), {}).get()
        earlier.heartbeat()
        mine, service = store(), instance()
        mine.register(service, [KEY])
        assert found(client) == [service]
        mine.unregister(service)
        assert client.loss(KEY).concerns(service)


@pytest.mark.parametrize('mark', [b'', b'\xc1', b'\x01',
                                  msgpack.packb({'epoch': 5}),
                                  msgpack.packb({'epoch': 1000 * b'x'})])
def test_nonsense_in_place_of_a_mark_breaks_nothing(mark):
    assert epochs._epoch(mark) == b''
