# SPDX-License-Identifier: Apache-2.0
"""Journals without a thread: files, rows, locks and clocks."""

import os
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from tests.support import ids
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.journal import database
from zmq_threaded.journal import drops
from zmq_threaded.journal import file as files
from zmq_threaded.journal import guard
from zmq_threaded.journal import kept as keeping
from zmq_threaded.journal import locks
from zmq_threaded.journal import making
from zmq_threaded.journal import place as places
from zmq_threaded.journal import reserve
from zmq_threaded.journal import survey
from zmq_threaded.registry import record

# Names are any unicode, with what no encoding has.
TOPIC = topics.rpc('exchange', 't\udcff:\u2028"', 'server')
POOLS = topics.notifications('exchange', 'topic.info')
NEAR = record.Instance(b'n' * 16, ('ipc:///near',), host='h')


@pytest.fixture
def place(tmp_path):
    return places.Place(str(tmp_path / 'journals'), '/nowhere', 'registry')


_opened = []


@pytest.fixture
def journal(place):
    made = making.create(place, ids.MAKER, is_synced=False)
    yield made
    while _opened:
        _opened.pop().close()
    made.close()
    locks.release(places.lock_of(made.path))


def message(journal, topic=TOPIC, kind=wire.CAST, **fields):
    made = deliveries.Delivery(
        kind=kind, topic=topic, body=[b'{}', b'\x00body'],
        flags=wire.CONFIRM | wire.MSGPACK, expires=time.monotonic() + 100,
        id=ids.new_id(), **fields)
    journal.prepare(made)
    return made


def load(journal):
    return journal.load([key for key, _, _ in journal.contents()])


def again(journal):
    """The journal, as the next process finds it."""
    journal.close()
    _opened.append(files.JournalFile(journal.path))
    return _opened[-1]


def test_a_message_comes_back_as_it_was(journal):
    kept = message(journal)
    journal.write(files.Batch(messages=[kept]))
    assert journal.count == 1 and journal.bytes == kept.kept.size
    found, = load(again(journal))
    for name in ('kind', 'topic', 'body', 'id', 'spread', 'pinned'):
        assert getattr(found, name) == getattr(kept, name)
    # Nobody waits for it any more.
    assert found.flags == wire.MSGPACK and found.attempts is None
    assert found.expires == kept.expires
    assert found.since == pytest.approx(kept.since, abs=0.5)
    assert found.chosen is None and found.recorded_for == b''


def test_it_comes_back_for_the_instance_to_which_it_went(journal):
    kept = message(journal)
    journal.write(files.Batch(messages=[kept]))
    kept.part = journal.next_part()
    for instance in (record.Instance(b'f' * 16, ('ipc:///far',)), NEAR):
        journal.write(files.Batch(parts=[(kept, instance)]))
    found, = load(again(journal))
    assert found.chosen == NEAR and found.recorded_for == NEAR.id
    assert found.kept.left == 1


def copies_of(journal, original):
    made = []
    for instance in (NEAR, record.Instance(b'f' * 16, ('ipc:///far',))):
        copy = original.copy_for(instance)
        copy.part = journal.next_part()
        made.append((copy, instance))
    return made


def test_copies_take_the_place_of_their_message(journal):
    original = message(journal, kind=wire.FANOUT, spread=True)
    journal.write(files.Batch(messages=[original]))
    found, = load(journal)
    assert found.spread
    parts = copies_of(journal, original)
    journal.write(files.Batch(parts=parts))
    journal = again(journal)
    found = load(journal)
    assert [each.instance for each in found] == [
        instance for _, instance in parts]
    assert all(each.pinned and not each.spread for each in found)
    assert found[0].kept is found[1].kept and found[0].kept.left == 2
    journal.write(files.Batch(ended_parts=[found[0].part]))
    left, = load(journal)
    assert left.instance == parts[1][1]
    journal.write(files.Batch(ended_parts=[left.part], ended=[left.kept]))
    assert journal.is_empty() and journal.bytes == 0
    assert not load(again(journal))


def test_what_cannot_be_written_is_not_written_in_part(journal):
    good, bad = message(journal), message(journal)
    bad.kept.key = good.kept.key
    with pytest.raises(sqlite3.IntegrityError):
        journal.write(files.Batch(messages=[good, bad]))
    assert journal.is_empty() and not load(journal)
    # Numbers that were taken back are given anew.
    journal.write(files.Batch(messages=[good]))
    assert load(again(journal))[0].topic == TOPIC


def test_keys_are_not_used_again(journal):
    kept = message(journal)
    journal.write(files.Batch(messages=[kept]))
    assert again(journal).next_key() == kept.kept.key + 1


def test_a_journal_of_another_version_is_of_no_use(journal):
    with sqlite3.connect(journal.path) as connection:
        connection.execute('PRAGMA user_version = 99')
    connection.close()
    with pytest.raises(database.Unusable, match='99'):
        again(journal)


def test_what_is_set_aside_is_out_of_the_way(journal, place):
    journal.write(files.Batch(messages=[message(journal)]))
    aside = places.set_aside(journal.path)
    assert place.journals() == []
    assert os.path.exists(aside) and os.path.exists(aside + '-wal')
    assert not os.path.exists(places.lock_of(journal.path))


def test_journals_of_other_registries_are_not_seen(journal, place):
    other = places.Place(place.path, '/nowhere', 'another registry')
    assert place.journals() == [journal.path]
    assert other.journals() == []


# Clocks

@pytest.mark.parametrize('wall, left', [
    (50, 50), (-1, 0), (1e9, 100)], ids=['later', 'over', 'set back'])
def test_after_a_restart_of_the_machine_the_wall_clock_counts(wall, left):
    found = keeping.deadline(1e12, time.time() + wall, 100, False)
    assert found == pytest.approx(time.monotonic() + left, abs=1)


def test_before_it_nobody_can_set_the_clock():
    assert keeping.deadline(123.0, 0.0, 100, True) == 123.0


def test_no_message_began_in_the_future():
    assert keeping.began(time.time() + 1000) <= time.monotonic()


# Locks

TAKE = ('import sys; from zmq_threaded.journal import locks; '
        'print(locks.owner(sys.argv[1]), locks.take(sys.argv[1]))')


def elsewhere(path):
    """(owner, whether the lock was free), as another process sees it."""
    done = subprocess.run([sys.executable, '-c', TAKE, path], text=True,
                          capture_output=True, check=True)
    return done.stdout.split()


@pytest.fixture
def lock(tmp_path):
    path = str(tmp_path / 'a.lock')
    locks.create(path, 0o640, -1)
    yield path
    locks.release(path)


def test_a_lock_is_ours_until_it_is_released(lock):
    assert elsewhere(lock) == [str(os.getpid()), 'False']
    assert locks.owner(lock) == os.getpid()
    assert not locks.take(lock)     # nor by another thread
    assert elsewhere(lock) == [str(os.getpid()), 'False']
    locks.release(lock)
    assert elsewhere(lock) == ['None', 'True']
    assert locks.owner(lock) is None
    assert locks.take(lock)
    assert os.stat(lock).st_mode & 0o777 == 0o640


def test_a_child_does_not_inherit_it(lock):
    pid = os.fork()
    if not pid:
        # Its own attempts do not end the lock of the parent either.
        os._exit(locks.is_ours(lock) or locks.take(lock))
    assert os.waitpid(pid, 0)[1] == 0
    assert elsewhere(lock) == [str(os.getpid()), 'False']


def test_a_lock_that_its_owner_removes_is_not_taken(lock, monkeypatch):
    locks.release(lock)
    real = os.stat

    def gone(path, *args, **kwargs):
        if path == lock:
            raise FileNotFoundError(path)
        return real(path, *args, **kwargs)
    monkeypatch.setattr(os, 'stat', gone)
    assert not locks.take(lock)
    assert not locks.is_ours(lock)


def test_strays_are_found(place, journal):
    stray = places.lock_of(place.new(b'stray---'))
    locks.create(stray, 0o600, -1)
    assert place.stray_locks() == [stray]
    locks.release(stray)


# Surveys and drops

def test_a_survey_says_what_is_there(journal, place):
    kept = [message(journal), message(journal, POOLS, wire.NOTIFY)]
    journal.write(files.Batch(messages=kept,
                              pools=[(POOLS, 'p\udcff', time.time())]))
    found, = survey.survey(place.path)
    assert found.owner == os.getpid() and found.path == journal.path
    assert found.count == 2 and found.bytes == journal.bytes
    assert found.topics == {str(TOPIC): 1, str(POOLS): 1}
    assert found.pools == ((str(POOLS), 'p\udcff'),)
    assert 0 <= found.oldest < 60 and not found.problem
    assert survey.known_pools(place)[0][:2] == (POOLS, 'p\udcff')
    assert elsewhere(places.lock_of(journal.path))[1] == 'False'


def test_a_survey_says_what_cannot_be_read(place, journal):
    broken = place.new(b'broken--')
    with open(broken, 'w') as file:
        file.write('no database' * 1000)
    found = {each.path: each for each in survey.survey(place.path)}
    assert found[broken].problem and not found[journal.path].problem


def test_two_spellings_of_a_directory_are_one_place(place, journal,
                                                    tmp_path):
    other = tmp_path / 'other'
    other.symlink_to(place.path)
    same = places.Place(str(other), '/nowhere', 'registry')
    assert same.journals() == place.journals() == [journal.path]
    assert survey.survey(str(other))[0].owner == os.getpid()
    # The look has not ended the lock.
    assert elsewhere(places.lock_of(journal.path)) == [
        str(os.getpid()), 'False']


def test_a_directory_that_is_none_is_no_empty_one(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(NotADirectoryError):
        survey.survey(str(tmp_path / 'file'))


def test_there_need_be_no_directory(tmp_path):
    assert survey.survey(str(tmp_path / 'none')) == []


@pytest.mark.parametrize('topic, name, pool, is_meant', [
    (TOPIC, TOPIC.name, None, True), (TOPIC, 't', None, False),
    (POOLS, 'topic.info', None, True), (POOLS, 'topic.info', 'a', False),
    (topics.pool('exchange', 'topic.info', 'a'), 'topic.info', 'a', True),
    (topics.pool('exchange', 'topic.info', 'a'), 'topic.info', None, True),
    (topics.pool('exchange', 'topic.info', ''), 'topic.info', '', True),
    (topics.pool('exchange', 'topic.info', 'b'), 'topic.info', 'a', False)])
def test_which_messages_are_meant(topic, name, pool, is_meant):
    assert drops.matches(topic, name, pool) is is_meant


def pooled(journal, *pools):
    """A notification, and its copies for these pools."""
    original = message(journal, POOLS, wire.NOTIFY, spread=True)
    journal.write(files.Batch(messages=[original]))
    parts = []
    for pool in pools:
        copy = original.copy_for_pool(topics.pool(POOLS.exchange, POOLS.name,
                                                  pool))
        copy.part = journal.next_part()
        parts.append((copy, None))
    journal.write(files.Batch(parts=parts))
    return original.kept.key


def test_a_topic_is_dropped(journal):
    other = message(journal)
    journal.write(files.Batch(messages=[other]))
    pooled(journal, 'a', 'b')
    spared = pooled(journal, 'a')
    assert journal.drop('topic.info', None, [spared]) == 1
    journal = again(journal)
    assert {key for key, _, _ in journal.contents()} == {
        other.kept.key, spared}
    assert len(load(journal)) == journal.count == 2


def test_a_pool_is_dropped_and_forgotten(journal):
    both, alone = pooled(journal, 'a', 'b'), pooled(journal, 'a')
    waiting = message(journal, POOLS, wire.NOTIFY, spread=True)
    journal.write(files.Batch(messages=[waiting], pools=[
        (POOLS, 'a', 1.0), (POOLS, 'b', 1.0)]))
    assert journal.drop('topic.info', 'a') == 1
    journal = again(journal)
    assert [pool for _, pool, _ in journal.pools()] == ['b']
    assert {key for key, _, _ in journal.contents()} == {
        both, waiting.kept.key}
    assert alone not in {key for key, _, _ in journal.contents()}


def test_an_owner_is_asked_once(journal):
    assert journal.asked() == []
    other = sqlite3.connect(journal.path)
    with other:
        drops.ask(other, 'topic.info', '')
        drops.ask(other, 'topic', None)
    assert journal.asked() == [('topic.info', ''), ('topic', None)]
    assert journal.asked() == [] and drops.asked(other) == []
    other.close()


# The file itself

def fill(journal, count, size):
    messages = [message(journal) for _ in range(count)]
    for each in messages:
        each.body = [b'{}', bytes(size)]
    journal.write(files.Batch(messages=messages))
    return messages


def size_on_disk(journal):
    return sum(os.path.getsize(path)
               for path in places.files_of(journal.path)[:2])


def test_what_is_not_needed_any_more_is_given_back(journal):
    messages = fill(journal, 1000, 20_000)
    longest = size_on_disk(journal)
    assert longest > 20_000_000
    journal.write(files.Batch(ended=[each.kept for each in messages]))
    for _ in range(50):
        journal.shrink()
    fill(journal, 1, 10)
    assert size_on_disk(journal) < longest / 4


def test_nobody_waits_for_another_program_within_a_step(journal):
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute('BEGIN IMMEDIATE')
    written = []
    thread = threading.Thread(
        target=lambda: written.append(fill(journal, 1, 10)))
    thread.start()
    try:
        # As a fork does
        for _ in range(20):
            assert guard.steps.acquire(timeout=2.0)
            guard.steps.release()
            time.sleep(0.01)
        assert not written
    finally:
        other.execute('ROLLBACK')
        other.close()
        thread.join(30)
    assert len(load(journal)) == 1


def test_who_never_ends_is_named(journal, monkeypatch):
    monkeypatch.setattr(database, '_BUSY', 0.05)
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute('BEGIN IMMEDIATE')
    with pytest.raises(sqlite3.Error) as raised:
        fill(journal, 1, 10)
    other.close()
    assert database.is_locked(raised.value)
    assert not database.is_broken(raised.value)


def test_a_journal_that_was_removed_or_replaced_is_lost(journal):
    assert not journal.is_lost()
    os.rename(journal.path, journal.path + '.away')
    assert journal.is_lost()
    with open(journal.path, 'w'):
        pass
    assert journal.is_lost()
    os.rename(journal.path + '.away', journal.path)
    assert not journal.is_lost()


def test_new_messages_leave_the_reserve_alone(journal):
    reserved = reserve.path_of(journal.path)
    assert os.stat(reserved).st_blocks * 512 >= reserve.SIZE
    os.unlink(reserved)
    fill(journal, 1, 10)
    assert os.path.getsize(reserved) == reserve.SIZE
