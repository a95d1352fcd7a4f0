# SPDX-License-Identifier: Apache-2.0
"""Takes over the journals of processes that died.

Whoever gets the lock of a journal adopts it: he sends what is in it, under
the ids that it has, and keeps the journal open until it is empty. If he dies
as well the next one goes on. Rows never move from one journal to another, for
a crash in between would leave them twice.
"""

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Callable

from zmq_threaded import counters as counting
from zmq_threaded import logs
from zmq_threaded import texts
from zmq_threaded.journal import adopted as one
from zmq_threaded.journal import database
from zmq_threaded.journal import file as files
from zmq_threaded.journal import guard
from zmq_threaded.journal import locks
from zmq_threaded.journal import place as places
from zmq_threaded.net import descriptors

LOG = logs.get(__name__)

# Journals that are adopted at the same time, besides those in which all waits
# for nobody. With these: one for so many descriptors that there may be, and so
# many at the most.
_MOST_BUSY, _DESCRIPTORS, _MOST_FILES = 16, 16, 1000
# Seconds between two looks whether more has to be loaded; and between two
# looks whether that is held back by messages that wait for nobody.
_EVERY, _MARK_EVERY = 0.05, 1.0
# Seconds until a journal is looked at again that this process could not use;
# and one whose owner lives, spread.
_LEAVE, _ALIVE = 60.0, (1.0, 3.0)
# What a journal may raise when it is read.
_ERRORS = (sqlite3.Error, MemoryError, OSError, *database.BROKEN)


class Adoption:
    """Looks for journals whose owner died, and feeds them to the outbox.

    :param place: where they are
    :param adopt: called with a list of deliveries
    :param merge_pools: called with what JournalFile.pools() returns; returns
        whether the journal is not needed for them any more
    :param mark: called when messages that wait for nobody are to be marked

    Thread: journal; any for is_busy().
    """

    def __init__(self, place: places.Place, counters: counting.Counters,
                 adopt: Callable[[list], None],
                 merge_pools: Callable[[list], bool],
                 mark: Callable[[], None]) -> None:
        self._place = place
        self._counters = counters
        self._adopt = adopt
        self._merge_pools = merge_pools
        self._mark = mark
        self._adopted: list[one.Adopted] = []
        self._next = self._next_mark = 0.0
        # Paths that are left alone until then, in monotonic seconds; and why
        # they are, if that was reported.
        self._not_before: dict[str, float] = {}
        self._reported: dict[str, str] = {}
        self._may_warn = counting.Seldom()
        self._may_warn_of_many = counting.Seldom()

    def look(self) -> None:
        """Adopt what has no owner."""
        there = self._place.journals()
        for known in self._not_before, self._reported:
            for path in set(known).difference(there):
                del known[path]
        for path in there:
            if self._has_enough():
                return
            if self._not_before.get(path, 0.0) <= time.monotonic():
                self._try(path)
        for path in self._place.stray_locks():
            with contextlib.suppress(OSError):
                if locks.take(path):
                    os.unlink(path)
                    locks.release(path)

    def _has_enough(self):
        most = min(_MOST_FILES, max(
            _MOST_BUSY, descriptors.raise_limit() // _DESCRIPTORS))
        if len(self._adopted) < most:
            return sum(not each.file.is_stranded
                       for each in self._adopted) >= _MOST_BUSY
        if self._may_warn_of_many.allows():
            LOG.error('This process has adopted %d journals in %s, and '
                      'adopts no more for now: their messages wait for '
                      'services that do not listen. Start services for '
                      'these topics, or drop the messages '
                      '(oslo-messaging-zmq custody list|drop)',
                      len(self._adopted), self._place.path)
        return True

    def _try(self, path):
        lock = places.lock_of(path)
        if locks.is_ours(lock):
            return
        try:
            if guard.is_inherited(path):
                return self._is_of_a_parent(path)
            if not locks.take(lock):
                return self._wait(path, random.uniform(*_ALIVE))
        except OSError as error:
            if os.path.lexists(path):
                self._leave(path, error.strerror or str(error))
            return
        try:
            self._open(path)
        except _ERRORS as error:
            if database.is_broken(error):
                set_aside(path, error, self._counters)
            else:
                self._leave(path, texts.line(str(error)))
                locks.release(lock)

    def _is_of_a_parent(self, path):
        if locks.owner(places.lock_of(path)) is None:
            self._leave(path, 'this process was forked by its owner, and '
                        'must not open it')
        else:
            self._wait(path, _LEAVE)

    def _wait(self, path, seconds):
        self._not_before[path] = time.monotonic() + seconds

    def _leave(self, path, why):
        self._wait(path, _LEAVE)
        if self._reported.get(path) != why:
            self._reported[path] = why
            self._counters.add('journals_left')
            LOG.error('The journal %s is left where it is, and looked at '
                      'again every %.0f s: %s', path, _LEAVE, why)

    def _open(self, path):
        """Nothing of the journal is used yet if this raises."""
        if not os.path.getsize(path):
            if any(map(os.path.lexists, places.files_of(path)[1:])):
                # Of which sqlite would remove the WAL.
                raise database.Unusable('the database is empty, its WAL is '
                                        'not')
            # Its owner died before it wrote anything.
            return self._discard(path)
        file = files.JournalFile(path)
        try:
            adopted = one.Adopted(file)
            if file.is_empty():
                return self._end(file)
            self._merge_pools(file.pools())
        except BaseException:
            file.close()
            raise
        self._adopted.append(adopted)
        self._counters.add('journals_adopted')
        self._counters.add('messages_adopted', file.count)
        LOG.warning('The owner of the journal %s has ended; what is in it '
                    '(messages: %d) is sent by this process now', path,
                    file.count)

    def _discard(self, path):
        places.remove(path)
        locks.release(places.lock_of(path))

    def _end(self, file):
        """A journal has no messages any more."""
        path = file.path
        is_needed = not self._merge_pools(file.pools())
        file.close()
        if is_needed:
            self._wait(path, _LEAVE)
            locks.release(places.lock_of(path))
        else:
            self._discard(path)

    def is_busy(self) -> bool:
        """Whether there are journals to go on with."""
        return bool(self._adopted)

    def go_on(self, now: float) -> None:
        """Load more, and end what is empty; to be called often."""
        if now < self._next:
            return
        self._next = now + _EVERY
        for adopted in list(self._adopted):
            if now >= adopted.try_at:
                try:
                    self._go_on(adopted)
                except _ERRORS as error:
                    self._failed(adopted, error)
        if now >= self._next_mark and (
                len(self._adopted) >= _MOST_BUSY
                or any(each.is_held_back() for each in self._adopted)):
            self._next_mark = now + _MARK_EVERY
            self._mark()

    def _go_on(self, adopted):
        if adopted.file.is_closed:      # it was set aside
            self._adopted.remove(adopted)
        elif adopted.file.is_empty():
            self._end(adopted.file)
            self._adopted.remove(adopted)
        else:
            found = adopted.load()
            if found:
                self._adopt(found)

    def _failed(self, adopted, error):
        """Keep a journal and its lock, unless it is of no use: messages of it
        are under way, and their ends have to be written.
        """
        self._counters.add('journal_errors')
        path = adopted.file.path
        if database.is_broken(error):
            self._adopted.remove(adopted)
            adopted.file.set_aside()
            set_aside(path, error, self._counters)
            return
        adopted.try_later()
        if self._may_warn.allows():
            LOG.error('The adopted journal %s cannot be read, and is tried '
                      'again: %s', path, texts.line(str(error)))

    def asked(self) -> list[tuple[str, str | None]]:
        """See JournalFile.asked(); what is not loaded is removed here."""
        found = []
        for adopted in self._adopted:
            with contextlib.suppress(sqlite3.Error):
                for each in adopted.file.asked():
                    adopted.drop(*each)
                    found.append(each)
        return found

    def close(self) -> None:
        """Let others adopt what is left."""
        for adopted in self._adopted:
            adopted.file.close()
            locks.release(places.lock_of(adopted.file.path))
        self._adopted.clear()


def set_aside(path: str, error: Exception,
              counters: counting.Counters) -> None:
    """Give a journal that is broken another name, and say so."""
    counters.add('journals_set_aside')
    LOG.error('The journal %s is of no use, and is now called %s: %s', path,
              places.set_aside(path), texts.line(str(error)))
    locks.release(places.lock_of(path))
