# SPDX-License-Identifier: Apache-2.0
"""What the cache knows of one topic."""

import dataclasses
import itertools
import math
import random
from collections.abc import Callable
from typing import Any

from zmq_threaded.registry import avoided as avoiding
from zmq_threaded.registry import record

# Update periods after which a topic that nobody used is no longer refreshed,
# until somebody uses it; and after which it is forgotten.
_REFRESHED, _KEPT = 6, 30
# Of a topic's instances that were found to be passed over since its list was
# made, the part at which the list is made anew.
_STALE = 8


def _somewhere() -> itertools.count:
    """Senders that start together do not all begin with the same one."""
    return itertools.count(random.randrange(1 << 16))


@dataclasses.dataclass
class Entry:
    """What is known of one topic. The tuples are replaced, never changed.

    :ivar key: of the topic
    :ivar listed: the instances that the cache lists
    :ivar refused: the instances that count as not there, each with the reason
    :ivar avoided: who of all instances is passed over; None if nobody ever is
    :ivar cursor: numbers of which each sender takes the next one
    :ivar waiting: functions to be called after the next look-up
    :ivar looked_up_at: when it was looked up last, in monotonic seconds
    :ivar next_lookup: when it is looked up next if somebody waits for it
    :ivar spacing: seconds between two look-ups while somebody waits
    :ivar next_refresh: when it is looked up next if nobody waits
    :ivar idle_refreshes: update periods since somebody used it
    :ivar doubted: of instances that are listed although the registry lost
        them: until when, in monotonic seconds, by id

    Thread: any for `live` and next(); registry for all else.
    """

    key: str
    listed: tuple[record.Instance, ...] = ()
    avoided: avoiding.Avoided | None = None
    refused: tuple[tuple[record.Instance, str], ...] = ()
    cursor: itertools.count = dataclasses.field(default_factory=_somewhere)
    waiting: list[Callable[[float | None], Any]] = dataclasses.field(
        default_factory=list)
    looked_up_at: float = -math.inf
    next_lookup: float = 0.0
    spacing: float = 0.0
    next_refresh: float = 0.0
    idle_refreshes: int = 0
    doubted: dict[bytes, float] = dataclasses.field(default_factory=dict)
    _live: tuple[record.Instance, ...] = ()
    _changes: int = 0
    _endings: int = 0
    _skipped: int = 0

    @property
    def live(self) -> tuple[record.Instance, ...]:
        """Those who are listed and not passed over."""
        if self.avoided is not None and (self._changes
                                         != self.avoided.changes):
            self.choose_anew(self.avoided)
        return self._live

    def choose_anew(self, avoided: avoiding.Avoided) -> None:
        """Find out who is not passed over."""
        listed = None
        while listed is not self.listed:    # or another thread has a new list
            listed = self.listed
            changes, endings = avoided.changes, avoided.endings
            self._live = avoided.without(listed)
            self._changes, self._endings = changes, endings
        self._skipped = 0

    def next(self) -> record.Instance | None:
        """The next live instance in turn, or None.

        It costs little, although thousands are found to be unreachable one
        after the other: the list is made anew only now and then.
        """
        avoided = self.avoided
        if avoided is not None and self._endings != avoided.endings:
            self.choose_anew(avoided)
        live = self._live
        while live:
            instance = live[next(self.cursor) % len(live)]
            if not avoided or not avoided.holds(instance):
                return instance
            self._skipped += 1
            if self._skipped * _STALE >= len(live):
                self.choose_anew(avoided)
                live = self._live
        return None

    def is_old(self) -> bool:
        """Nobody used it for so long that it is not refreshed."""
        return self.idle_refreshes > _REFRESHED

    def is_forgotten(self) -> bool:
        """Nobody used it for so long that the cache may drop it."""
        return self.idle_refreshes > _KEPT and not self.waiting
