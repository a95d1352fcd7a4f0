# SPDX-License-Identifier: Apache-2.0
"""One journal that was adopted, and how much of it is in memory."""

import collections
import sys
import time
from typing import Any

from zmq_threaded.client import room
from zmq_threaded.journal import file as files

# Messages of one topic that are in memory, and how few of them have more
# loaded.
_LOADED, _LOW = 500, 250
# Seconds after which what failed is tried again.
_TRY_AGAIN = 1.0


class Adopted:
    """A journal that was adopted.

    :ivar waiting: keys that are not loaded, by the number of the topic
    :ivar loaded: keys that are, by the number of the topic
    :ivar try_at: monotonic seconds, before which nothing is done with it

    Thread: journal.
    """

    def __init__(self, file: files.JournalFile) -> None:
        self.file = file
        self.try_at = 0.0
        # No limit of its sender's is broken by what lies on disk.
        self._destination = room.Destination(sys.maxsize)
        self._waiting: dict[int, collections.deque[int]] = {}
        self._loaded: dict[int, dict[int, Any]] = {}
        for key, topic in file.keys_and_topics():
            self._waiting.setdefault(topic, collections.deque()).append(key)
            self._loaded.setdefault(topic, {})

    def try_later(self) -> None:
        """Something failed, and may not fail again in a moment."""
        self.try_at = time.monotonic() + _TRY_AGAIN

    def load(self) -> list:
        """The deliveries that are to be sent next.

        :raises: what JournalFile.load() raises; then nothing has changed
        """
        taken = {topic: keys for topic in self._waiting
                 if (keys := self._take(topic))}
        if not taken:
            return []
        try:
            found = self.file.load(sorted(
                key for keys in taken.values() for key in keys))
        except BaseException:
            for topic, keys in taken.items():
                self._waiting[topic].extendleft(reversed(keys))
            raise
        each: Any
        for each in found:
            each.destination = self._destination
            self._loaded[each.kept.topic][each.kept.key] = each.kept
        self._destination.add(len(found))
        return found

    def _take(self, topic):
        """:returns: keys, which are not waiting any more"""
        waiting, loaded = self._waiting[topic], self._loaded[topic]
        for key in [each for each, kept in loaded.items() if kept.is_ended]:
            del loaded[key]
        count = len(loaded) - self._stranded(loaded)
        if count > _LOW:
            return []
        return [waiting.popleft()
                for _ in range(min(len(waiting), _LOADED - count))]

    @staticmethod
    def _stranded(loaded):
        # What waits for a pool without listeners is in the way of nobody.
        return sum(kept.is_stranded for kept in loaded.values())

    def is_held_back(self) -> bool:
        """Whether messages are not loaded because others have not ended."""
        return any(self._waiting.values())

    def drop(self, name: str, pool: str | None) -> None:
        """Remove what an operator wants dropped, unless it is loaded."""
        self.file.drop(name, pool, [key for loaded in self._loaded.values()
                                    for key in loaded])
        left = {key for key, _ in self.file.keys_and_topics()}
        for topic, waiting in self._waiting.items():
            self._waiting[topic] = collections.deque(
                key for key in waiting if key in left)
