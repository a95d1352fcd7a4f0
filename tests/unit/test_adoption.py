# SPDX-License-Identifier: Apache-2.0
"""Adoption without a thread: journals of owners that died."""

import os
import sqlite3
import time

import pytest

from tests.support import ids
from zmq_threaded import counters as counting
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.journal import adoption
from zmq_threaded.journal import batch
from zmq_threaded.journal import file as files
from zmq_threaded.journal import locks
from zmq_threaded.journal import making
from zmq_threaded.journal import place as places

TOPIC = topics.rpc('exchange', 'topic')


class World:
    """What an adoption has around it."""

    def __init__(self, path):
        self.place = places.Place(path, '/nowhere', 'registry')
        self.counters = counting.Counters()
        self.found, self.marked = [], []
        self.is_merged = True
        self.adoption = adoption.Adoption(
            self.place, self.counters, self.found.extend,
            lambda pools: self.is_merged, lambda: self.marked.append(1))
        self.now = 1.0

    def left(self, count=1, pools=(), body=b''):
        """A journal whose owner died; returns its path."""
        made = making.create(self.place, os.urandom(4), is_synced=False)
        self.write(made, count, pools, body)
        made.close()
        locks.release(places.lock_of(made.path))
        return made.path

    def write(self, made, count, pools=(), body=b''):
        messages = [deliveries.Delivery(
            kind=wire.CAST, topic=TOPIC, body=[b'{}', body], flags=0,
            expires=time.monotonic() + 100, id=ids.new_id())
            for _ in range(count)]
        for each in messages:
            made.prepare(each)
        made.write(batch.Batch(messages=messages, pools=list(pools)))

    def go_on(self, seconds=2.0):
        self.now = time.monotonic() + seconds
        self.adoption._next = 0.0
        self.adoption.go_on(self.now)


@pytest.fixture
def world(tmp_path):
    made = World(str(tmp_path / 'journals'))
    yield made
    made.adoption.close()


def counted(world, name):
    return world.counters.snapshot().get(name, 0)


def end(world, found):
    """The ends of messages are written."""
    for each in found:
        each.kept.file.write(batch.Batch(ended=[each.kept]))
        each.kept.is_ended = True


def test_what_a_dead_owner_left_is_sent_and_removed(world):
    path = world.left(3)
    world.adoption.look()
    world.go_on()
    assert len(world.found) == 3 and locks.is_ours(places.lock_of(path))
    end(world, world.found)
    world.go_on()
    assert not world.adoption.is_busy() and os.listdir(world.place.path) == []
    assert not locks.is_ours(places.lock_of(path))


def fail_once(monkeypatch, name, error):
    real = getattr(files.JournalFile, name)

    def fails(self, *arguments):
        monkeypatch.setattr(files.JournalFile, name, real)
        raise error
    monkeypatch.setattr(files.JournalFile, name, fails)


def passing():
    error = sqlite3.OperationalError('disk I/O error')
    error.sqlite_errorname = 'SQLITE_IOERR_READ'
    return error


def test_who_is_not_adopted_in_full_is_not_adopted(world, monkeypatch):
    path = world.left(3)

    def fails(pools):
        raise MemoryError
    monkeypatch.setattr(world.adoption, '_merge_pools', fails)
    world.adoption.look()
    assert not world.adoption.is_busy()
    assert not locks.is_ours(places.lock_of(path))


def test_a_passing_error_keeps_file_lock_and_messages(world, monkeypatch):
    path = world.left(3)
    world.adoption.look()
    fail_once(monkeypatch, 'load', passing())
    world.go_on()
    assert not world.found and locks.is_ours(places.lock_of(path))
    world.go_on()
    assert len(world.found) == 3
    assert counted(world, 'journals_adopted') == 1
    fail_once(monkeypatch, 'pools', passing())
    end(world, world.found)
    world.go_on()
    assert world.adoption.is_busy() and locks.is_ours(places.lock_of(path))
    world.go_on()
    assert not world.adoption.is_busy() and not os.path.exists(path)


@pytest.mark.parametrize('error', [KeyError(1), TypeError('row')])
def test_rows_of_no_use_set_a_journal_aside(world, monkeypatch, error):
    path = world.left(3)
    world.adoption.look()
    fail_once(monkeypatch, 'load', error)
    world.go_on()
    assert counted(world, 'journals_set_aside') == 1
    assert not world.adoption.is_busy() and not os.path.exists(path)
    assert not locks.is_ours(places.lock_of(path))
    world.go_on()


def test_pools_that_cannot_be_merged_leave_the_journal_adopted(world):
    path = world.left(2, [(TOPIC, 'pool', time.time())])
    world.is_merged = False
    world.adoption.look()
    world.adoption.look()
    world.go_on()
    assert len(world.found) == 2
    end(world, world.found)
    world.go_on()
    assert os.path.exists(path) and not world.adoption.is_busy()
    assert not locks.is_ours(places.lock_of(path))


def test_what_cannot_be_opened_for_now_is_tried_again(world, monkeypatch,
                                                      caplog):
    path = world.left()
    for _ in range(2):
        world.adoption._not_before.clear()
        fail_once(monkeypatch, '_set_up', passing())
        world.adoption.look()
        assert not locks.is_ours(places.lock_of(path))
        world.adoption.look()       # too early
        assert not world.adoption.is_busy()
    assert counted(world, 'journals_left') == 1
    monkeypatch.setattr(adoption, '_LEAVE', 0.0)
    world.adoption._not_before.clear()
    world.adoption.look()
    assert world.adoption.is_busy()


def test_the_ends_of_what_is_closed_are_not_dropped_in_silence(world):
    world.left(1)
    world.adoption.look()
    world.go_on()
    kept = world.found[0].kept
    kept.file.close()
    with pytest.raises(sqlite3.Error):
        kept.file.write(batch.Batch(ended=[kept]))
    kept.file.set_aside()
    kept.file.write(batch.Batch(ended=[kept]))


def test_what_waits_for_nobody_is_not_in_the_way(world):
    world.left(1200)
    world.adoption.look()
    world.go_on()
    world.go_on()
    assert len(world.found) == 500 and world.marked
    for each in world.found:
        each.kept.is_stranded = True
    world.go_on()
    assert len(world.found) == 1000
    end(world, world.found[500:])
    world.go_on()
    assert len(world.found) == 1200


def test_big_messages_are_not_all_loaded_at_once(world):
    world.left(5, body=bytes(700_000))
    world.adoption.look()
    for number in range(1, 6):
        world.go_on()
        assert len(world.found) == number
        world.go_on()
        assert len(world.found) == number
        end(world, world.found[-1:])


def test_journals_in_which_all_waits_for_nobody_hold_up_no_other(world):
    for _ in range(40):
        world.left(1)
    for count in 16, 32, 40:
        world.adoption.look()
        world.adoption.look()
        world.adoption._next_mark = 0.0
        world.go_on()
        assert len(world.found) == count and world.marked
        # The outbox thread sees it
        for each in world.found:
            each.kept.file.is_stranded = True
        world.marked.clear()


def test_who_has_adopted_too_many_says_so(world, monkeypatch, caplog):
    monkeypatch.setattr(adoption, '_MOST_FILES', 3)
    monkeypatch.setattr(adoption, '_MOST_BUSY', 2)
    for _ in range(5):
        world.left(1)
    for _ in range(3):
        world.adoption.look()
        world.go_on()
        for each in world.found:
            each.kept.file.is_stranded = True
    assert len(world.found) == 3
    assert 'adopts no more for now' in caplog.text
    assert world.place.path in caplog.text
    end(world, world.found)
    world.go_on()
    world.adoption.look()
    world.go_on()
    assert len(world.found) == 5


def test_when_a_pool_was_seen_does_not_go_back(world):
    made = making.create(world.place, ids.MAKER, is_synced=False)
    try:
        for seen in 2.0, 1.0:
            made.write(batch.Batch(pools=[(TOPIC, 'pool', seen)]))
        assert made.pools() == [(TOPIC, 'pool', 2.0)]
    finally:
        making.end(made)


def test_a_child_says_nothing_of_its_living_parents_journal(world, caplog):
    made = making.create(world.place, ids.MAKER, is_synced=False)
    try:
        world.write(made, 1)
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            world.adoption.look()
            os.write(write, b'%d' % counted(world, 'journals_left'))
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(write)
        with os.fdopen(read, 'rb') as answer:
            assert answer.read() == b'0'
    finally:
        making.end(made)


def test_whose_owner_lives_is_not_asked_all_the_time(world, monkeypatch):
    world.left()
    asked = []
    monkeypatch.setattr(locks, 'take', asked.append)
    for _ in range(5):
        world.adoption.look()
    assert len(asked) == 1
    world.adoption._not_before = dict.fromkeys(
        world.adoption._not_before, time.monotonic())
    world.adoption.look()
    assert len(asked) == 2
