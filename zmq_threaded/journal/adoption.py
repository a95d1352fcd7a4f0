# SPDX-License-Identifier: Apache-2.0
"""Takes over the journals of processes that died.

Whoever gets the lock of a journal adopts it: he sends what is in it, under
the ids that it has, and keeps the journal open until it is empty. If he dies
as well the next one goes on. Rows never move from one journal to another, for
a crash in between would leave them twice.
"""

import collections
import contextlib
import os
import sqlite3
import sys
from collections.abc import Callable

from zmq_threaded import counters as counting
from zmq_threaded import logs
from zmq_threaded import texts
from zmq_threaded.client import room
from zmq_threaded.journal import file as files
from zmq_threaded.journal import guard
from zmq_threaded.journal import locks
from zmq_threaded.journal import place as places

LOG = logs.get(__name__)

# Journals that are adopted at the same time, messages of one topic that are
# in memory, and how few of them have more loaded.
_MOST_FILES = 16
_LOADED, _LOW = 500, 250
# Seconds between two looks whether more has to be loaded.
_EVERY = 0.05


class Adopted:
    """A journal that was adopted.

    :ivar waiting: keys that are not loaded, by the number of the topic
    :ivar loaded: keys that are, by the number of the topic

    Thread: journal.
    """

    def __init__(self, file: files.JournalFile) -> None:
        self.file = file
        # No limit of its sender's is broken by what lies on disk.
        self._destination = room.Destination(sys.maxsize)
        self._waiting: dict[int, collections.deque[int]] = {}
        self._loaded: dict[int, dict] = {}
        for key, topic in file.keys_and_topics():
            self._waiting.setdefault(topic, collections.deque()).append(key)
            self._loaded.setdefault(topic, {})

    def load(self) -> list:
        """The deliveries that are to be sent next."""
        keys: list[int] = []
        for topic, waiting in self._waiting.items():
            loaded = self._loaded[topic]
            for key in [each for each, kept in loaded.items()
                        if kept is not None and kept.is_ended]:
                del loaded[key]
            if waiting and len(loaded) <= _LOW:
                keys += self._take(waiting, loaded)
        if not keys:
            return []
        found = self.file.load(sorted(keys))
        for each in found:
            each.destination = self._destination
            self._loaded[each.kept.topic][each.kept.key] = each.kept
        self._destination.add(len(found))
        return found

    def drop(self, name: str, pool: str | None) -> None:
        """Remove what an operator wants dropped, unless it is loaded."""
        self.file.drop(name, pool, [key for loaded in self._loaded.values()
                                    for key in loaded])
        left = {key for key, _ in self.file.keys_and_topics()}
        for topic, waiting in self._waiting.items():
            self._waiting[topic] = collections.deque(
                key for key in waiting if key in left)

    @staticmethod
    def _take(waiting, loaded):
        keys = [waiting.popleft() for _ in range(min(
            len(waiting), _LOADED - len(loaded)))]
        loaded.update(dict.fromkeys(keys))
        return keys


class Adoption:
    """Looks for journals whose owner died, and feeds them to the outbox.

    :param place: where they are
    :param adopt: called with a list of deliveries
    :param merge_pools: called with what JournalFile.pools() returns; returns
        whether the journal is not needed for them any more

    Thread: journal.
    """

    def __init__(self, place: places.Place, counters: counting.Counters,
                 adopt: Callable[[list], None],
                 merge_pools: Callable[[list], bool]) -> None:
        self._place = place
        self._counters = counters
        self._adopt = adopt
        self._merge_pools = merge_pools
        self._adopted: list[Adopted] = []
        self._next = 0.0
        # What this process cannot use, or has no use for, and was reported.
        self._left_alone: set[str] = set()

    def look(self) -> None:
        """Adopt what has no owner."""
        for path in self._place.journals():
            if len(self._adopted) >= _MOST_FILES:
                return
            if path not in self._left_alone:
                self._try(path)
        for path in self._place.stray_locks():
            with contextlib.suppress(OSError):
                if locks.take(path):
                    os.unlink(path)
                    locks.release(path)

    def _try(self, path):
        lock = places.lock_of(path)
        if guard.is_inherited(path):
            return self._leave(path, 'this process was forked by its owner, '
                               'and must not open it')
        try:
            if not locks.take(lock):
                return
        except OSError as error:
            if os.path.lexists(path):
                self._leave(path, error.strerror or str(error))
            return
        try:
            self._open(path)
        except (sqlite3.Error, OSError, files.Unusable, ValueError) as error:
            self._failed(path, error)

    def _leave(self, path, why):
        self._left_alone.add(path)
        self._counters.add('journals_left')
        LOG.error('The journal %s is left where it is: %s', path, why)

    def _failed(self, path, error):
        if files.is_broken(error):
            set_aside(path, error, self._counters)
        else:
            self._leave(path, texts.line(str(error)))
            locks.release(places.lock_of(path))

    def _open(self, path):
        if not os.path.getsize(path):
            if any(map(os.path.lexists, places.files_of(path)[1:])):
                # Of which sqlite would remove the WAL.
                raise files.Unusable('the database is empty, its WAL is not')
            # Its owner died before it wrote anything.
            return self._discard(path)
        file = files.JournalFile(path)
        try:
            adopted = Adopted(file)
            if file.is_empty():
                return self._end(file)
        except BaseException:
            file.close()
            raise
        self._adopted.append(adopted)
        self._counters.add('journals_adopted')
        self._counters.add('messages_adopted', file.count)
        LOG.warning('The owner of the journal %s has ended; what is in it '
                    '(messages: %d) is sent by this process now', path,
                    file.count)
        self._merge_pools(file.pools())
        self._feed(adopted)

    def _discard(self, path):
        places.remove(path)
        locks.release(places.lock_of(path))

    def _end(self, file):
        """A journal has no messages any more."""
        path = file.path
        is_needed = not self._merge_pools(file.pools())
        file.close()
        if is_needed:
            self._left_alone.add(path)
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
            try:
                if adopted.file.is_closed:
                    self._adopted.remove(adopted)   # it was set aside
                elif adopted.file.is_empty():
                    self._adopted.remove(adopted)
                    self._end(adopted.file)
                else:
                    self._feed(adopted)
            except (sqlite3.Error, ValueError) as error:
                self._adopted.remove(adopted)
                adopted.file.close()
                self._failed(adopted.file.path, error)

    def _feed(self, adopted):
        found = adopted.load()
        if found:
            self._adopt(found)

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
