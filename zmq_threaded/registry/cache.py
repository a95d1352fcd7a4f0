# SPDX-License-Identifier: Apache-2.0
"""The snapshot of the registry from which senders choose."""

import dataclasses
import itertools
import math
import random
import threading
import time

from zmq_threaded.registry import avoided
from zmq_threaded.client import reasons
from zmq_threaded.registry import vanished

# Periods after which a topic that nobody used is no longer refreshed, until
# somebody does; and after which it is forgotten.
_REFRESHED, _KEPT = 6, 30
# Of a topic's instances that were found to be passed over since its list was
# made, the part at which it is made anew.
_STALE = 8


@dataclasses.dataclass
class Entry:
    """What is known of one topic; tuples are replaced, never changed.

    :ivar avoided: client.avoided.Avoided
    :ivar doubted: of instances that are listed although the registry lost
        them: until when, by id
    """

    key: str
    listed: tuple = ()
    avoided: object = None
    cursor: itertools.count = dataclasses.field(
        default_factory=lambda: itertools.count(random.randrange(1 << 16)))
    waiting: list = dataclasses.field(default_factory=list)
    looked_up_at: float = -math.inf
    next_lookup: float = 0.0
    spacing: float = 0.0
    next_refresh: float = 0.0
    idle_refreshes: int = 0
    doubted: dict = dataclasses.field(default_factory=dict)
    _live: tuple = ()
    _changes: int = 0
    _endings: int = 0
    _skipped: int = 0

    @property
    def live(self):
        """Those who are listed and not passed over."""
        if self.avoided is not None and (self._changes
                                         != self.avoided.changes):
            self.choose_anew()
        return self._live

    def choose_anew(self):
        """Find out who is not passed over."""
        listed = None
        while listed is not self.listed:    # or another thread has a new list
            listed = self.listed
            changes, endings = self.avoided.changes, self.avoided.endings
            self._live = self.avoided.without(listed)
            self._changes, self._endings = changes, endings
        self._skipped = 0

    def next(self):
        """The next live instance in turn, or None.

        It costs little although thousands are found to be unreachable one
        after the other: the list is made anew only now and then.
        """
        if self.avoided is not None and self._endings != self.avoided.endings:
            self.choose_anew()
        live = self._live
        while live:
            instance = live[next(self.cursor) % len(live)]
            if not self.avoided or not self.avoided.holds(instance):
                return instance
            self._skipped += 1
            if self._skipped * _STALE >= len(live):
                self.choose_anew()
                live = self._live
        return None

    def is_old(self):
        """Nobody used it for so long that it is not refreshed."""
        return self.idle_refreshes > _REFRESHED

    def is_forgotten(self):
        return self.idle_refreshes > _KEPT and not self.waiting


class Cache:
    """Who is known under which topic, and who of them is passed over.

    :param expire: seconds of life of a record that is not renewed
    :param look: called with the key of a topic that is in use again, for
        what is known of it may be old
    :param trouble: says since when and why the registry does not answer; see
        Health.trouble()

    Thread: any, but where it says otherwise.
    """

    def __init__(self, expire, look, trouble=lambda: None):
        self._expire = expire
        self._look = look
        self._trouble = trouble
        self._lock = threading.RLock()
        self._entries = {}
        self._avoided = avoided.Avoided()
        self._warnings = reasons.Warnings()
        self._vanished = vanished.Vanished(expire)
        self._reached = {}

    def choose(self, topic):
        """The next live instance of a topic in turn, or None."""
        entry = self._use(topic)
        return entry.next() if entry else None

    def live(self, topic):
        """All listed instances that are not passed over."""
        entry = self._use(topic)
        return entry.live if entry else ()

    def listed(self, topic):
        """All instances that the registry had when it last answered, whether
        they can be reached or not; and those that it had until it lost its
        records, less than the life of a record ago, unless they have said
        that they are gone.
        """
        entry = self._use(topic)
        return entry.listed if entry else ()

    def is_listed(self, topic, instance):
        """Whether listed() has the instance. If not, its service stopped, or
        did not renew its record: evidence that it is gone, together with a
        lost connection. If it has, that says little: its record may not have
        expired yet, and nothing is taken off while the registry is down or
        has just lost its records.
        """
        return instance in self.listed(topic)

    def vanished(self, topic):
        """Who was listed less than the life of a record ago and is not any
        more, but for those who have said that they are gone.

        :returns: list of (Instance, seconds ago)
        """
        listed = {instance.id for instance in self.listed(topic)}
        return [(instance, ago) for instance, ago
                in self._vanished.of(topic.key) if instance.id not in listed
                and not self._avoided.is_for_ever(instance)]

    def _use(self, topic):
        entry = self._entries.get(topic.key)
        if entry is not None and entry.idle_refreshes:
            if entry.is_old():
                self._look(topic.key)
            entry.idle_refreshes = 0
        return entry

    def avoid(self, instance, for_ever=False, why=''):
        """Pass over an instance that is busy, for a while that doubles; or
        for ever, when it is known to be gone.

        :param why: for whoever asks later, and in vain
        """
        self._avoided.add(instance.id, for_ever, why)

    def unreachable(self, instance, why=''):
        """Pass over an instance, and all behind the same receiver, for a
        while that doubles.

        :param why: for whoever asks later, and in vain
        """
        why = reasons.unreachable(instance, why)
        if self._avoided.add(avoided.way(instance), False, why):
            # Not at once: one that has just ended is no longer listed soon.
            self._warnings.tell(instance, why)

    def reached(self, instance):
        """The instance answers: forget earlier failures."""
        self._reached[instance.id] = time.monotonic()
        if self._avoided:
            self._avoided.remove(instance)

    def explain(self, topic):
        """Why nobody of a topic can be reached: text for a log line or an
        error, of bounded length.
        """
        entry = self._entries.get(topic.key) or Entry(topic.key)
        return reasons.explain([(instance, self._avoided.why(instance))
                                for instance in entry.listed],
                               entry.looked_up_at, self._trouble())

    # For the directory thread alone

    def is_empty(self):
        return not self._entries

    def entries(self):
        return list(self._entries.values())

    def entry(self, key):
        """What is known of a topic that somebody asks for."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = Entry(
                key, avoided=self._avoided)
        entry.idle_refreshes = 0
        return entry

    def forget(self, entry):
        del self._entries[entry.key]

    def absorb(self, entry, found, is_doubtful, expired=frozenset()):
        """Take over what the registry says.

        :param found: tuple of Instance
        :param is_doubtful: called when somebody is missing who was listed;
            whether that says nothing, for the registry lost its records
        :param expired: ids of those who are missing, but did not take
            themselves off the list
        """
        missing = self._missing(entry, found)
        self._vanished.note(entry.key, missing, found)
        if missing and not is_doubtful():
            missing = [each for each in missing if each.id in expired
                       and self._may_live(each)]
            if len(missing) == 1 and found and not self._lives(missing[0],
                                                               entry):
                missing = ()    # one that dies beside others
        with self._lock:
            entry.listed = found + self._still_listed(entry, missing)
            entry.choose_anew()

    @staticmethod
    def _missing(entry, found):
        if not entry.listed:
            return ()
        there = {instance.id for instance in found}
        return [instance for instance in entry.listed
                if instance.id not in there]

    def _may_live(self, instance):
        """Who has expired may live all the same: the clock of the registry
        was set, and its owner is about to renew its record.
        """
        return not self._avoided.why(instance)

    def _lives(self, instance, entry):
        """Its record has not been renewed for longer than this, so it has
        answered since; or it expired together with others.
        """
        reached = self._reached.get(instance.id, -math.inf)
        return (instance.id in entry.doubted
                or time.monotonic() - reached < self._expire / 2)

    def _still_listed(self, entry, missing):
        now = time.monotonic()
        entry.doubted = {
            instance.id: entry.doubted.get(instance.id, now + self._expire)
            for instance in missing
            if not self._avoided.is_for_ever(instance)}
        return tuple(instance for instance in missing
                     if entry.doubted.get(instance.id, 0) > now)

    def tidy(self):
        """Pauses end, and those who are no longer listed are forgotten."""
        before = time.monotonic() - self._expire
        for instance_id, reached in list(self._reached.items()):
            if reached < before:
                self._reached.pop(instance_id, None)
        if self._avoided:
            self._avoided.tidy(instance for entry in self.entries()
                               for instance in entry.listed)
