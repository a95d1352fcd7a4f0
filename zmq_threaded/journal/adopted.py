# SPDX-License-Identifier: Apache-2.0
"""One journal that was adopted, and how much of it is in memory."""

import collections
import sys
import time
from typing import Any

from zmq_threaded.client import room
from zmq_threaded.journal import file as files

# Messages of one topic that are in memory, and how few of them have more
# loaded; and their bytes, about, beyond which one message is enough.
_LOADED, _LOW, _BYTES = 500, 250, 1 << 20
# Seconds after which what failed is tried again.
_TRY_AGAIN = 1.0


class Adopted:
    """A journal that was adopted.

    :ivar try_at: monotonic seconds, before which nothing is done with it

    Thread: journal.
    """

    def __init__(self, file: files.JournalFile) -> None:
        self.file = file
        self.try_at = 0.0
        # No limit of its sender's is broken by what lies on disk.
        self._destination = room.Destination(sys.maxsize)
        # By the number of the topic: the key and the bytes of what is not
        # loaded, and the Kept of what is, by its key.
        self._waiting: dict[int, collections.deque[tuple[int, int]]] = {}
        self._loaded: dict[int, dict[int, Any]] = {}
        for key, topic, size in file.contents():
            self._waiting.setdefault(topic, collections.deque()).append(
                (key, size))
            self._loaded.setdefault(topic, {})

    def try_later(self) -> None:
        """Something failed, and may not fail again in a moment."""
        self.try_at = time.monotonic() + _TRY_AGAIN

    def load(self) -> list:
        """The deliveries that are to be sent next.

        :raises: what JournalFile.load() raises; then nothing has changed
        """
        taken = {topic: found for topic in self._waiting
                 if (found := self._take(topic))}
        if not taken:
            return []
        try:
            found = self.file.load(sorted(
                key for each in taken.values() for key, _ in each))
        except BaseException:
            for topic, those in taken.items():
                self._waiting[topic].extendleft(reversed(those))
            raise
        each: Any
        for each in found:
            each.destination = self._destination
            self._loaded[each.kept.topic][each.kept.key] = each.kept
        self._destination.add(len(found))
        return found

    def _take(self, topic):
        """:returns: (key, bytes) of those that are not waiting any more"""
        waiting, loaded = self._waiting[topic], self._loaded[topic]
        for key in [each for each, kept in loaded.items() if kept.is_ended]:
            del loaded[key]
        # What waits for a pool without listeners is in the way of nobody.
        in_the_way = [kept.size for kept in loaded.values()
                      if not kept.is_stranded]
        count, size = len(in_the_way), sum(in_the_way)
        taken: list[tuple[int, int]] = []
        if count > _LOW:
            return []
        while waiting and count + len(taken) < _LOADED and (
                size + waiting[0][1] <= _BYTES or not count + len(taken)):
            taken.append(waiting.popleft())
            size += taken[-1][1]
        return taken

    def is_held_back(self) -> bool:
        """Whether messages are not loaded because others have not ended."""
        return any(self._waiting.values())

    def drop(self, name: str, pool: str | None) -> None:
        """Remove what an operator wants dropped, unless it is loaded."""
        self.file.drop(name, pool, [key for loaded in self._loaded.values()
                                    for key in loaded])
        left = {key for key, _, _ in self.file.contents()}
        for topic, waiting in self._waiting.items():
            self._waiting[topic] = collections.deque(
                each for each in waiting if each[0] in left)
