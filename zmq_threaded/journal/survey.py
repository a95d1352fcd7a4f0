# SPDX-License-Identifier: Apache-2.0
"""What lies in the journals of a directory, whoever owns them. Nothing is
changed, and no owner is disturbed.
"""

import collections
import contextlib
import dataclasses
import json
import os
import sqlite3
import time
from urllib import parse

from zmq_threaded import topic as topics
from zmq_threaded.journal import drops
from zmq_threaded.journal import guard
from zmq_threaded.journal import locks
from zmq_threaded.journal import place as places
from zmq_threaded.journal import rows

_BUSY = 2.0


@dataclasses.dataclass(frozen=True)
class Found:
    """One journal.

    :ivar path: of the database
    :ivar owner: the process that has it, None if that has died or is not
        known; locks.UNNAMED if it lives in another PID namespace
    :ivar is_owner_known: whether the lock of the owner could be read
    :ivar count: how many messages are in it
    :ivar bytes: how many they take, about
    :ivar oldest: the age of the oldest, in seconds; 0 without messages
    :ivar topics: how many messages there are for each topic, as text
    :ivar pools: (topic, pool) of each pool that is known, as text
    :ivar problem: why it cannot be read, '' if it can

    Thread: any.
    """

    path: str
    owner: int | None = None
    count: int = 0
    bytes: int = 0
    oldest: float = 0.0
    topics: dict[str, int] = dataclasses.field(default_factory=dict)
    pools: tuple[tuple[str, str], ...] = ()
    problem: str = ''
    is_owner_known: bool = True

    @property
    def is_alive(self) -> bool | None:
        """Whether there is an owner; None if that is not known."""
        return self.owner is not None if self.is_owner_known else None

    @property
    def shown_owner(self) -> int | str:
        """The owner, as a table shows it."""
        if self.owner is None:
            return 'has ended' if self.is_owner_known else 'not known'
        return self.owner or 'lives in another PID namespace'


@dataclasses.dataclass(frozen=True)
class Stock:
    """What a journal has of one topic, or of one pool.

    :ivar count: how many messages, or for a pool how many copies
    :ivar knows_pool: whether the pool gets its copies

    Thread: any.
    """

    count: int = 0
    knows_pool: bool = False

    def __bool__(self) -> bool:
        return bool(self.count or self.knows_pool)


def survey(directory: str) -> list[Found]:
    """The journals of a directory, of all registries; an empty list if there
    is no such directory.

    :raises: OSError if it cannot be read
    """
    # The name by which locks.py knows its files.
    directory = os.path.realpath(directory)
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    return [_look_at(os.path.join(directory, name)) for name in names
            if name.endswith(places.SUFFIX)]


def _look_at(path):
    try:
        owner = locks.owner(places.lock_of(path))
    except OSError as error:
        return Found(path, problem=error.strerror or str(error),
                     is_owner_known=False)
    if guard.is_inherited(path):
        return Found(path, owner, problem='it belongs to a parent of this '
                     'process')
    try:
        with open_to_read(path) as connection:
            return _read(path, owner, connection)
    except (sqlite3.Error, ValueError) as error:
        return Found(path, owner, problem=str(error))


@contextlib.contextmanager
def open_to_read(path: str):
    """A connection that cannot change anything.

    :raises: sqlite3.Error
    """
    with guard.steps:
        connection = sqlite3.connect(
            f'file:{parse.quote(path)}?mode=ro', uri=True, timeout=_BUSY)
        try:
            yield connection
        finally:
            connection.close()


def _read(path, owner, connection):
    run = connection.execute
    count, size, since = run('SELECT count(*), total(size), min(since) '
                             'FROM messages').fetchone()
    counts: collections.Counter[str] = collections.Counter()
    for topic, found in run(
            'SELECT topics.topic, count(*) FROM messages JOIN topics ON '
            'topics.number = messages.topic GROUP BY topics.topic'):
        counts[str(rows.topic_of(topic))] += found
    return Found(path, owner, count, int(size),
                 max(0.0, time.time() - since) if count else 0.0,
                 dict(counts.most_common()), tuple(
                     (str(topic), pool) for topic, pool, _
                     in rows.pools(connection)))


def stock(path: str, name: str, pool: str | None) -> Stock:
    """What a journal has that drops.drop() would remove.

    :param name: of the topic; for notifications with its priority
    :param pool: only this pool; None for all of the topic
    :raises: sqlite3.Error, ValueError
    """
    with open_to_read(path) as connection:
        run = connection.execute
        numbers = json.dumps([
            number for number, text in run('SELECT number, topic FROM topics')
            if drops.matches(rows.topic_of(text), name, pool)])
        table = 'messages' if pool is None else 'parts'
        count, = run(f'SELECT count(*) FROM {table} WHERE topic IN '
                     '(SELECT value FROM json_each(?))',
                     (numbers,)).fetchone()
        return Stock(count, any(
            known == pool and drops.matches(topic, name, None)
            for topic, known, _ in rows.pools(connection)))


def known_pools(place: places.Place) -> list[tuple[topics.Topic, str, float]]:
    """The pools that the journals of a place know of: (topic, pool, when it
    was seen last, on the wall).
    """
    found = []
    for path in place.journals():
        if not guard.is_inherited(path):
            with (contextlib.suppress(sqlite3.Error, ValueError),
                  open_to_read(path) as connection):
                found += rows.pools(connection)
    return found
