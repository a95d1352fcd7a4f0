# SPDX-License-Identifier: Apache-2.0
"""The snapshot of the registry from which senders choose."""

import dataclasses
import itertools
import math
import random
import threading
import time

# Periods after which a topic that nobody used is no longer refreshed, until
# somebody does; and after which it is forgotten.
_REFRESHED, _KEPT = 6, 30
# How long an instance that could not be reached is passed over, doubling. One
# that is back is found by trying; one that is not loses its record.
_FIRST_AVOIDANCE, _LAST_AVOIDANCE = 0.5, 5.0


@dataclasses.dataclass
class Entry:
    """What is known of one topic; `live` is replaced, never changed.

    :ivar doubted: of instances that are listed although the registry lost
        them: until when, by id
    """

    key: str
    listed: tuple = ()
    live: tuple = ()
    cursor: itertools.count = dataclasses.field(
        default_factory=lambda: itertools.count(random.randrange(1 << 16)))
    waiting: list = dataclasses.field(default_factory=list)
    looked_up_at: float = -math.inf
    next_lookup: float = 0.0
    spacing: float = 0.0
    next_refresh: float = 0.0
    idle_refreshes: int = 0
    doubted: dict = dataclasses.field(default_factory=dict)

    def is_old(self):
        """Nobody used it for so long that it is not refreshed."""
        return self.idle_refreshes > _REFRESHED

    def is_forgotten(self):
        return self.idle_refreshes > _KEPT and not self.waiting


class View:
    """Who is known under which topic, and who of them is passed over.

    :param expire: seconds of life of a record that is not renewed
    :param look: called with the key of a topic that is in use again, for
        what is known of it may be old

    Thread: any, but where it says otherwise.
    """

    def __init__(self, expire, look):
        self._expire = expire
        self._look = look
        self._lock = threading.RLock()
        self._entries = {}
        self._avoided = {}
        self._reached = {}

    def choose(self, topic):
        """The next live instance of a topic in turn, or None."""
        entry = self._use(topic)
        live = entry.live if entry else ()
        if not live:
            return None
        return live[next(entry.cursor) % len(live)]

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
        self._avoid(instance.id, for_ever, why)

    def unreachable(self, instance, why=''):
        """Pass over an instance, and all behind the same receiver, for a
        while that doubles.

        :param why: for whoever asks later, and in vain
        """
        self._avoid(_way(instance), False, why)

    def _avoid(self, key, for_ever, why):
        with self._lock:
            until, pause, _ = self._avoided.get(key, (0, 0, ''))
            if until > time.monotonic() and not for_ever:
                return      # many find out at the same time
            pause = min(max(2 * pause, _FIRST_AVOIDANCE), _LAST_AVOIDANCE)
            until = math.inf if for_ever else time.monotonic() + pause
            # Kept when it is over: the next pause is longer.
            self._avoided[key] = (until, pause, why)
            self._recompute()

    def reached(self, instance):
        """The instance answers: forget earlier failures."""
        self._reached[instance.id] = time.monotonic()
        if self._avoided:
            with self._lock:
                for key in {instance.id, _way(instance)}:
                    until, _, _ = self._avoided.get(key, (math.inf, 0, ''))
                    if until != math.inf:
                        del self._avoided[key]
                        self._recompute()

    # For the directory thread alone

    def is_empty(self):
        return not self._entries

    def entries(self):
        return list(self._entries.values())

    def entry(self, key):
        """What is known of a topic that somebody asks for."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = Entry(key)
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
        if missing and not is_doubtful():
            missing = [each for each in missing if each.id in expired
                       and self._may_live(each)]
            if len(missing) == 1 and found and not self._lives(missing[0],
                                                               entry):
                missing = ()    # one that dies beside others
        with self._lock:
            entry.listed = found + self._still_listed(entry, missing)
            entry.live = _without(self._avoided_now(), entry.listed)

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
        return not {instance.id, _way(instance)} & self._avoided.keys()

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
            if self._avoided.get(instance.id, (0, 0))[0] != math.inf}
        return tuple(instance for instance in missing
                     if entry.doubted.get(instance.id, 0) > now)

    def _avoided_now(self):
        now = time.monotonic()
        return {key for key, (until, _, _) in self._avoided.items()
                if until > now}

    def _recompute(self):
        avoided = self._avoided_now()
        for entry in list(self._entries.values()):
            entry.live = _without(avoided, entry.listed)

    def tidy(self):
        """Pauses end, and those who are no longer listed are forgotten."""
        before = time.monotonic() - self._expire
        for instance_id, reached in list(self._reached.items()):
            if reached < before:
                self._reached.pop(instance_id, None)
        if not self._avoided:
            return
        with self._lock:
            listed = {key for entry in list(self._entries.values())
                      for instance in entry.listed
                      for key in (instance.id, _way(instance))}
            for key in self._avoided.keys() - listed:
                del self._avoided[key]
            self._recompute()


def _without(avoided, instances):
    return instances if not avoided else tuple(
        instance for instance in instances
        if instance.id not in avoided and _way(instance) not in avoided)


def _way(instance):
    """What is lost with the connection to an instance."""
    return instance.endpoints if instance.receiver else instance.id
