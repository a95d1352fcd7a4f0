# SPDX-License-Identifier: Apache-2.0
"""One journal: the database, and what is written into it in one step."""

import contextlib
import itertools
import json
import time
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator

from zmq_threaded import topic as topics
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.journal import batch as batches
from zmq_threaded.journal import drops
from zmq_threaded.journal import guard
from zmq_threaded.journal import kept as keeping
from zmq_threaded.journal import numbers
from zmq_threaded.journal import rows

Delivery = deliveries.Delivery
Batch = batches.Batch
_ID, VERSION = 0x5a4d514a, 1        # 'ZMQJ'
# Seconds for which somebody else, such as a status command, may be at it.
_BUSY = 5.0
# Pages of 4 KiB after which the WAL goes into the database; and the bytes
# beyond which the file of the WAL is cut.
_CHECKPOINT, _LONGEST_WAL = 4000, 1 << 26
_SCHEMA = f'''
PRAGMA application_id = {_ID};
PRAGMA user_version = {VERSION};
CREATE TABLE about(boot TEXT, registry TEXT, created REAL,
    synced INTEGER);
CREATE TABLE topics(number INTEGER PRIMARY KEY, topic TEXT);
CREATE TABLE instances(number INTEGER PRIMARY KEY, record BLOB);
CREATE TABLE messages(key INTEGER PRIMARY KEY, id BLOB, kind INTEGER,
    flags INTEGER, topic INTEGER, spread INTEGER, deadline REAL, wall REAL,
    lifetime REAL, since REAL, size INTEGER, context BLOB, message BLOB);
CREATE TABLE parts(key INTEGER PRIMARY KEY, message INTEGER, topic INTEGER,
    instance INTEGER, pinned INTEGER);
CREATE TABLE pools(topic TEXT, pool TEXT, seen REAL,
    PRIMARY KEY(topic, pool));
CREATE TABLE drops(topic TEXT, pool TEXT);
'''
_INTO_MESSAGES = f'INSERT INTO messages VALUES({", ".join("?" * 13)})'
_INTO_PARTS = 'INSERT OR REPLACE INTO parts VALUES(?, ?, ?, ?, ?)'
_INTO_POOLS = ('INSERT INTO pools VALUES(?, ?, ?) ON CONFLICT DO UPDATE '
               'SET seen = max(seen, excluded.seen)')


# What sqlite says of a file that is broken, as against one that cannot be
# used for now.
_BROKEN = ('SQLITE_CORRUPT', 'SQLITE_NOTADB', 'SQLITE_ERROR',
           'SQLITE_MISMATCH', 'SQLITE_FORMAT')


class Unusable(Exception):
    """A file is no journal of this version, or is broken; the text says
    what it is.
    """


# What is raised by rows that say what they cannot say.
BROKEN = (Unusable, ValueError, LookupError, TypeError, ArithmeticError,
          AttributeError)


def is_broken(error: Exception) -> bool:
    """Whether an error says that a journal is of no use to anybody."""
    return (isinstance(error, BROKEN) or getattr(
        error, 'sqlite_errorname', '').startswith(_BROKEN))


class JournalFile:
    """A journal that is open, and whose lock this process has.

    :param path: of the database
    :param is_synced: of a new one: whether a step is on the disk when it is
        done, and not only in the memory of the kernel
    :param registry: of a new one, see place.Place
    :param is_new: whether to make it
    :ivar count: how many messages are in it
    :ivar bytes: how many they take, about
    :ivar is_closed: nothing is written into it any more
    :ivar is_set_aside: nor will anybody send again what is in it
    :raises: Unusable, sqlite3.Error, OSError

    Thread: journal; any for next_key(), next_part() and the numbers.
    """

    def __init__(self, path: str, is_synced: bool = True, registry: str = '',
                 is_new: bool = False) -> None:
        self.path = path
        self.count = self.bytes = 0
        self.is_closed = self.is_set_aside = False
        self._version: int | None = None
        self._connection = guard.connect(path, _BUSY)
        self._numbers = numbers.Numbers(self._connection)
        try:
            with guard.steps:
                self._set_up(is_synced, is_new, registry)
        except BaseException:
            self.close()
            raise

    def _set_up(self, is_synced, is_new, registry):
        run = self._connection.execute
        run('PRAGMA journal_mode = WAL').fetchall()
        run(f'PRAGMA wal_autocheckpoint = {_CHECKPOINT}').fetchall()
        run(f'PRAGMA journal_size_limit = {_LONGEST_WAL}').fetchall()
        if is_new:
            self._connection.executescript(f'BEGIN IMMEDIATE; {_SCHEMA}')
            run('INSERT INTO about VALUES(?, ?, ?, ?)',
                (keeping.boot(), registry, time.time(), is_synced))
            run('COMMIT')
        self._check()
        self._read_numbers()

    def _check(self):
        run = self._connection.execute
        found = (run('PRAGMA application_id').fetchone()[0],
                 run('PRAGMA user_version').fetchone()[0])
        if found != (_ID, VERSION):
            raise Unusable(f'it is no journal of version {VERSION} (its marks '
                           f'are {found[0]:#x} and {found[1]})')

    def _read_numbers(self):
        run = self._connection.execute
        about: tuple[str, int] = run(
            'SELECT boot, synced FROM about').fetchone() or ('', 1)
        self._boot, is_synced = about
        run(f'PRAGMA synchronous = {"FULL" if is_synced else "NORMAL"}')
        key = self._count()
        part = run('SELECT max(key) FROM parts').fetchone()[0]
        self.next_key = itertools.count((key or 0) + 1).__next__
        self.next_part = itertools.count((part or 0) + 1).__next__

    def _count(self):
        """:returns: the greatest key, None without messages"""
        self.count, size, key = self._connection.execute(
            'SELECT count(*), total(size), max(key) FROM messages').fetchone()
        self.bytes = int(size)
        return key

    def close(self) -> None:
        """Close it; its lock stays."""
        self.is_closed = True
        guard.close(self._connection)

    def set_aside(self) -> None:
        """Close it: it is of no use to anybody any more."""
        self.is_set_aside = True
        self.close()

    def is_empty(self) -> bool:
        """Whether there is no message in it."""
        return not self.count

    # Writing

    def prepare(self, delivery: Delivery) -> None:
        """A message is to be written for the first time."""
        delivery.kept = keeping.Kept(self, self.next_key(),
                                     keeping.size_of(delivery.body))

    def write(self, batch: Batch) -> None:
        """Write what is in a batch: all of it, or nothing.

        :raises: sqlite3.Error
        """
        if self.is_set_aside and not batch.messages:
            return
        with guard.steps, self._transaction():
            self._write(batch)
        self.count += len(batch.messages) - len(batch.ended)
        self.bytes += (sum(each.kept.size for each in batch.messages)
                       - sum(each.size for each in batch.ended))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute('BEGIN IMMEDIATE')
        try:
            yield
            self._connection.execute('COMMIT')
        except BaseException:
            # Some errors of sqlite have ended it already.
            if self._connection.in_transaction:
                self._connection.execute('ROLLBACK')
            # These may have been written in what was taken back.
            self._numbers.forget()
            raise

    def _write(self, batch):
        many = self._connection.executemany
        if batch.messages:
            many(_INTO_MESSAGES, list(map(self._message, batch.messages)))
        if batch.parts:
            many(_INTO_PARTS, [self._part(*each) for each in batch.parts])
        self._delete('parts', batch.ended_parts)
        self._delete('messages', [each.key for each in batch.ended])
        if batch.pools:
            many(_INTO_POOLS, [
                (rows.text_of(topic), json.dumps(pool), seen)
                for topic, pool, seen in batch.pools])

    def _delete(self, table, keys):
        if keys:
            # In one step, for each step gives up the GIL.
            self._connection.execute(
                f'DELETE FROM {table} WHERE key IN '
                '(SELECT value FROM json_each(?))', (json.dumps(keys),))

    def _message(self, delivery):
        return rows.of_message(delivery,
                               self._numbers.of_topic(delivery.topic))

    def _part(self, delivery, instance):
        return (delivery.part, delivery.kept.key,
                self._numbers.of_topic(delivery.topic),
                self._numbers.of_instance(instance),
                delivery.pinned)

    # What operators want

    def asked(self) -> list[tuple[str, str | None]]:
        """What an operator wants dropped: (name of a topic, pool or None).
        It is asked for once.
        """
        with guard.steps:
            run = self._connection.execute
            version = run('PRAGMA data_version').fetchone()[0]
            if version == self._version:
                return []       # nobody else has written
            self._version = version
            found = drops.asked(self._connection)
        if found:
            with guard.steps, self._transaction():
                drops.done(self._connection)
        return found

    def drop(self, name: str, pool: str | None,
             spare: Collection[int] = ()) -> int:
        """See drops.drop().

        :returns: how many messages are gone
        """
        before = self.count
        with guard.steps, self._transaction():
            drops.drop(self._connection, name, pool, spare)
            self._count()
        return before - self.count

    def forget_pool(self, name: str, pool: str) -> None:
        """Know nothing of a pool any more."""
        with guard.steps, self._transaction():
            drops.forget_pool(self._connection, name, pool)

    # Reading

    def keys_and_topics(self) -> list[tuple[int, int]]:
        """(key, number of its topic) of each message, the oldest first."""
        with guard.steps:
            return self._connection.execute(
                'SELECT key, topic FROM messages ORDER BY key').fetchall()

    def load(self, keys: Iterable[int]) -> list[Delivery]:
        """The deliveries of some messages, in the order of their keys: for
        each its copies, or itself if it has none.
        """
        wanted = json.dumps(list(keys))
        with guard.steps:
            run = self._connection.execute
            known = dict(run('SELECT number, topic FROM topics'))
            instances = dict(run('SELECT number, record FROM instances'))
            parts: dict[int, list] = {}
            for row in run('SELECT * FROM parts WHERE message IN '
                           '(SELECT value FROM json_each(?)) ORDER BY key',
                           (wanted,)):
                parts.setdefault(row[1], []).append(row)
            found = run('SELECT * FROM messages WHERE key IN '
                       '(SELECT value FROM json_each(?)) ORDER BY key',
                       (wanted,)).fetchall()
        is_this_boot = bool(self._boot) and self._boot == keeping.boot()
        return [each for row in found for each in rows.to_deliveries(
            self, row, parts.get(row[0], ()), known, instances,
            is_this_boot)]

    def pools(self) -> list[tuple[topics.Topic, str, float]]:
        """(topic, pool, when it was seen last, on the wall) of each pool."""
        with guard.steps:
            return rows.pools(self._connection)
