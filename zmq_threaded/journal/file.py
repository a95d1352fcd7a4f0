# SPDX-License-Identifier: Apache-2.0
"""One journal: the database, and what is written into it in one step."""

import itertools
import json
import time
from collections.abc import Collection
from collections.abc import Iterable

from zmq_threaded import topic as topics
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.journal import batch as batches
from zmq_threaded.journal import database
from zmq_threaded.journal import drops
from zmq_threaded.journal import guard
from zmq_threaded.journal import kept as keeping
from zmq_threaded.journal import numbers
from zmq_threaded.journal import rows

Delivery = deliveries.Delivery
Batch = batches.Batch
_ID, VERSION = 0x5a4d514a, 1        # 'ZMQJ'
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


class JournalFile:
    """A journal that is open, and whose lock this process has.

    :param path: of the database
    :param is_synced: of a new one: whether a step is on the disk when it is
        done, and not only in the memory of the kernel
    :param registry: of a new one, see place.Place
    :param is_new: whether to make it
    :ivar count: how many messages are in it
    :ivar bytes: how many they take, about
    :ivar is_stranded: all of it that is in memory waits for nobody, as the
        outbox thread has seen it
    :ivar is_closed: nothing is written into it any more
    :ivar is_set_aside: nor will anybody send again what is in it
    :raises: database.Unusable, sqlite3.Error, OSError

    Thread: journal; any for next_key(), next_part() and the numbers.
    """

    def __init__(self, path: str, is_synced: bool = True, registry: str = '',
                 is_new: bool = False) -> None:
        self.path = path
        self.count = self.bytes = 0
        self.is_closed = self.is_set_aside = self.is_stranded = False
        self._version: int | None = None
        self._database = database.Database(path, is_new)
        self._connection = self._database.connection
        self._numbers = numbers.Numbers(self._connection)
        try:
            self._database.step(lambda: self._set_up(is_synced, is_new,
                                                     registry))
        except BaseException:
            self.close()
            raise

    def _set_up(self, is_synced, is_new, registry):
        run = self._connection.execute
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
            raise database.Unusable(
                f'it is no journal of version {VERSION} (its marks are '
                f'{found[0]:#x} and {found[1]})')

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
        self._database.close()

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

        :raises: sqlite3.Error, OSError
        """
        if self.is_set_aside and not batch.messages:
            return
        write = self._database.add if batch.messages else self._database.remove
        try:
            write(lambda: self._write(batch))
        except BaseException:
            # These may have been written in what was taken back.
            self._numbers.forget()
            raise
        self.count += len(batch.messages) - len(batch.ended)
        self.bytes += (sum(each.kept.size for each in batch.messages)
                       - sum(each.size for each in batch.ended))

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
            self._database.remove(lambda: drops.done(self._connection))
        return found

    def drop(self, name: str, pool: str | None,
             spare: Collection[int] = ()) -> int:
        """See drops.drop().

        :returns: how many messages are gone
        """
        before = self.count
        self._database.remove(lambda: drops.drop(self._connection, name, pool,
                                                 spare))
        with guard.steps:
            self._count()
        return before - self.count

    def forget_pool(self, name: str, pool: str) -> None:
        """Know nothing of a pool any more."""
        self._database.remove(lambda: drops.forget_pool(self._connection,
                                                        name, pool))

    # Its files

    def shrink(self) -> None:
        """See Database.shrink()."""
        self._database.shrink()

    def is_lost(self) -> bool:
        """See Database.is_lost()."""
        return self._database.is_lost()

    # Reading

    def contents(self) -> list[tuple[int, int, int]]:
        """(key, number of its topic, bytes that it takes, about) of each
        message, the oldest first.
        """
        with guard.steps:
            return self._connection.execute(
                'SELECT key, topic, size FROM messages ORDER BY key'
            ).fetchall()

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
