# SPDX-License-Identifier: Apache-2.0
"""The writer of journals without a thread: what was not written is held."""

import sqlite3
import time

import pytest

from tests.support import ids
from zmq_threaded import counters as counting
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.journal import file as files
from zmq_threaded.journal import making
from zmq_threaded.journal import place as places
from zmq_threaded.journal import steps
from zmq_threaded.journal import writer
from zmq_threaded.registry import record

TOPIC = topics.rpc('exchange', 'topic')
NEAR = record.Instance(b'n' * 16, ('ipc:///near',), host='h')


class World:
    """A writer with its journal."""

    def __init__(self, path):
        place = places.Place(path, '/nowhere', 'registry')
        self.file = making.create(place, ids.MAKER, is_synced=False)
        self.removed, self.done = [], []
        self.writer = writer.Writer(
            lambda call: call(), self.removed.extend, lambda: self.file,
            lambda file, error: file.set_aside(), str, counting.Counters())

    def keep(self):
        delivery = deliveries.Delivery(
            kind=wire.CAST, topic=TOPIC, body=[b'{}', b''], flags=0,
            expires=time.monotonic() + 100, id=ids.new_id())
        step = steps.Keep(delivery)
        self.writer.add(step)
        self.write()
        return delivery, step.wait(time.monotonic() + 1)

    def record(self, delivery):
        delivery.part = self.file.next_part()
        self.writer.add(steps.Parts(self.file, [(delivery, NEAR)],
                                    lambda: self.done.append(delivery)))
        self.write()

    def write(self, later=0.0):
        self.writer.write(time.monotonic() + later)


@pytest.fixture
def world(tmp_path):
    made = World(str(tmp_path / 'journals'))
    yield made
    making.end(made.file)


@pytest.fixture
def full(monkeypatch):
    """A disk that is full until this is called."""
    def fails(self, batch):
        raise sqlite3.OperationalError('database or disk is full')
    real = files.JournalFile._write
    monkeypatch.setattr(files.JournalFile, '_write', fails)
    return lambda: monkeypatch.setattr(files.JournalFile, '_write', real)


def test_where_a_message_goes_is_written_before_it_goes(world, request):
    delivery, why = world.keep()
    assert not why
    has_room = request.getfixturevalue('full')
    world.record(delivery)
    world.writer.add(steps.Seen(TOPIC, 'pool', 1.0))
    world.write(later=2)
    assert not world.done
    # Nobody turns round and round meanwhile.
    assert 0.5 < world.writer.time_left(5.0) <= 1.0
    has_room()
    world.write()
    assert not world.done, 'too early'
    world.write(later=2)
    assert world.done == [delivery]
    found, = world.file.load([delivery.kept.key])
    assert found.recorded_for == NEAR.id
    assert world.file.pools() == [(TOPIC, 'pool', 1.0)]
    assert world.writer.time_left(5.0) == 5.0


def test_ends_are_held_behind_what_came_before(world, request):
    delivery, _ = world.keep()
    has_room = request.getfixturevalue('full')
    world.record(delivery)
    world.writer.add(steps.Ended(delivery, True))
    world.write(later=2)
    assert not world.removed and not world.done
    has_room()
    # A sender who waits has it tried at once.
    assert not world.keep()[1]
    world.write(later=2)
    assert world.removed == [delivery] and world.done == [delivery]
    assert world.file.count == 1
    run = world.file._connection.execute
    assert run('SELECT count(*) FROM parts').fetchone() == (0,)


def test_nothing_is_held_for_what_was_set_aside(world):
    delivery, _ = world.keep()
    world.file.set_aside()
    world.record(delivery)
    assert world.done == [delivery]
