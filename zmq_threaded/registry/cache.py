# SPDX-License-Identifier: Apache-2.0
"""The snapshot of the registry from which senders choose."""

import math
import threading
import time
from collections.abc import Callable

from zmq_threaded import topic as topics
from zmq_threaded.client import reasons
from zmq_threaded.registry import avoided
from zmq_threaded.registry import cached
from zmq_threaded.registry import complaints
from zmq_threaded.registry import record
from zmq_threaded.registry import unanswered
from zmq_threaded.registry import vanished

Instances = tuple[record.Instance, ...]


class Cache:
    """Who is known under which topic, and who of them is passed over.

    :param expire: seconds of life of a record that is not renewed
    :param look: called with the key of a topic that is in use again, for
        what is known of it may be old
    :param trouble: says since when and why the registry does not answer; see
        Operations.trouble()
    :param problem: says of an instance why it counts as not there, for
        instance since its key is not trusted; '' if it counts
    :param only_own: makes of an instance what this process uses of it

    :ivar complaints: whom this process cannot reach
    :ivar unanswered: who answers no calls any more

    Thread: any; registry for those methods that say so.
    """

    def __init__(self, expire: float, look: Callable[[str], None],
                 trouble: Callable[[], tuple[float, str] | None]
                 = lambda: None,
                 problem: Callable[[record.Instance], str]
                 = lambda instance: '',
                 only_own: Callable[[record.Instance], record.Instance]
                 = lambda instance: instance) -> None:
        self._expire = expire
        self._look = look
        self._trouble = trouble
        self._problem = problem
        self._only_own = only_own
        self._lock = threading.RLock()
        self._entries: dict[str, cached.Entry] = {}
        self._avoided = avoided.Avoided()
        self._closings = self._avoided.closings
        self._warnings = reasons.Warnings()
        self._vanished = vanished.Vanished(expire)
        self._reached: dict[bytes, float] = {}
        self.complaints = complaints.Complaints()
        self.unanswered = unanswered.Unanswered(self._listed_ids)

    def choose(self, topic: topics.Topic) -> record.Instance | None:
        """The next live instance of a topic in turn, or None."""
        entry = self._use(topic)
        return entry.next() if entry else None

    def live(self, topic: topics.Topic) -> Instances:
        """All listed instances that are not passed over."""
        entry = self._use(topic)
        return entry.live if entry else ()

    def listed(self, topic: topics.Topic) -> Instances:
        """All instances that the registry had when it last answered, whether
        they can be reached or not. If the registry lost its records less
        than the life of a record ago, also those that it had before, unless
        they have said that they are gone.
        """
        entry = self._use(topic)
        return entry.listed if entry else ()

    def is_listed(self, topic: topics.Topic,
                  instance: record.Instance) -> bool:
        """Whether listed() has the instance.

        If not, its service stopped, or did not renew its record: together
        with a lost connection that is evidence that it is gone. If listed()
        has the instance, that says little: its record may not have expired
        yet, and nothing is taken off while the registry is down or has just
        lost its records.
        """
        # By id: its record may have changed.
        return any(each.id == instance.id for each in self.listed(topic))

    def vanished(self, topic: topics.Topic
                 ) -> list[tuple[record.Instance, float]]:
        """Who was listed less than the life of a record ago and is not any
        more, but for those who have said that they are gone.

        :returns: list of (Instance, seconds ago)
        """
        vanished = self._vanished.of(topic.key)
        if not vanished:
            return []
        listed = {instance.id for instance in self.listed(topic)}
        return [(instance, ago) for instance, ago
                in vanished if instance.id not in listed
                and not self._avoided.is_for_ever(instance)]

    def _use(self, topic: topics.Topic) -> cached.Entry | None:
        entry = self._entries.get(topic.key)
        if entry is not None and entry.idle_refreshes:
            if entry.is_old():
                self._look(topic.key)
            entry.idle_refreshes = 0
        return entry

    def avoid(self, instance: record.Instance, for_ever: bool = False,
              why: str = '') -> None:
        """Pass over an instance that is busy, for a while that doubles; or
        for ever, when the instance is known to be gone.

        :param why: for whoever asks later, and in vain
        """
        self._avoided.add(instance.id, for_ever, why)

    def unreachable(self, instance: record.Instance, why: str = '') -> None:
        """Pass over an instance, and all behind the same receiver, for a
        while that doubles.

        :param why: for whoever asks later, and in vain
        """
        why = reasons.unreachable(instance, why)
        if self._avoided.add(avoided.way(instance), False, why):
            # Not at once: one that has just ended is no longer listed soon.
            self._warnings.tell(instance, why)
            self.complaints.unreachable(instance, why)

    def why(self, instance: record.Instance) -> str:
        """Why an instance was passed over last; see Avoided.why()."""
        return self._avoided.why(instance)

    def closes(self, instance: record.Instance, seconds: float) -> None:
        """Pass over an instance, and all behind the same receiver, which is
        closing.

        :param seconds: after which the receiver is closed at the latest
        """
        self._avoided.closes(instance, seconds)

    def is_closing(self, instance: record.Instance) -> bool:
        """Whether the receiver of an instance is closing."""
        return self._closings.holds(avoided.way(instance))

    def is_old(self, instance: record.Instance, opened_at: float) -> bool:
        """See Closings.is_old()."""
        return self._closings.is_old(avoided.way(instance), opened_at)

    def took_nothing(self, instance: record.Instance, opened_at: float,
                     sent_at: float) -> bool:
        """See Closings.took_nothing()."""
        return self._closings.took_nothing(avoided.way(instance), opened_at,
                                           sent_at)

    def is_expected(self, topic: topics.Topic) -> bool:
        """Whether somebody is listed whose receiver is closing, or was a
        moment ago: that nobody can be reached will soon be over.
        """
        return len(self._closings) > 0 and any(
            self._closings.is_expected(avoided.way(instance))
            for instance in self.listed(topic))

    def reached(self, instance: record.Instance) -> None:
        """A worker of the instance has replied, or taken a message: forget
        the earlier failures of the instance.
        """
        self.unanswered.worked(instance)
        self.is_there(instance)

    def is_there(self, instance: record.Instance) -> None:
        """The instance answers, if only by its poller: it can be reached. Its
        workers may all be stuck.
        """
        self._reached[instance.id] = time.monotonic()
        if self._avoided:
            self._avoided.remove(instance)
            self.complaints.reached(instance)

    def explain(self, topic: topics.Topic) -> str:
        """Why nobody of a topic can be reached: text for a log line or an
        error, of bounded length.
        """
        entry = (self._entries.get(topic.key)
                 or cached.Entry(topic.key))
        return reasons.explain(
            [*((instance, self._avoided.why(instance))
               for instance in entry.listed), *entry.refused],
            entry.looked_up_at, self._trouble())

    # For the registry thread alone

    def is_empty(self) -> bool:
        """Whether nobody has asked for a topic; for the registry thread."""
        return not self._entries

    def entries(self) -> list[cached.Entry]:
        """What is known of each topic; for the registry thread."""
        return list(self._entries.values())

    def entry(self, key: str) -> cached.Entry:
        """What is known of a topic that somebody asks for; for the registry
        thread.
        """
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = cached.Entry(
                key, avoided=self._avoided)
        entry.idle_refreshes = 0
        return entry

    def find(self, key: str) -> cached.Entry | None:
        """What is known of a topic, if anything; for the registry thread."""
        return self._entries.get(key)

    def forget(self, entry: cached.Entry) -> None:
        """Drop a topic that nobody uses; for the registry thread."""
        del self._entries[entry.key]

    def absorb(self, entry: cached.Entry, found: Instances,
               doubted: Callable[[Instances], Instances],
               expired: frozenset[bytes] = frozenset()) -> None:
        """Take over what the registry says; for the registry thread.

        :param doubted: called with those who are missing and were listed, if
            there are any; those of them of whom that says nothing, for the
            registry may have lost their records
        :param expired: ids of those who are missing, but did not take
            themselves off the list
        """
        found = tuple(map(self._only_own, found))
        entry.refused = tuple((instance, why) for instance in found
                              if (why := self._problem(instance)))
        if entry.refused:
            found = self._without_refused(entry, found)
        missing = self._missing(entry, found)
        self._vanished.note(entry.key, missing, found)
        if missing:
            kept = doubted(missing)
            missing = kept + self._unrenewed(entry, found, expired.difference(
                each.id for each in kept), missing)
        with self._lock:
            entry.listed = found + self._still_listed(entry, missing)
            entry.choose_anew(self._avoided)

    @staticmethod
    def _without_refused(entry: cached.Entry, found: Instances) -> Instances:
        """Those who count. Of the others nothing is kept, as if they had said
        that they are gone.
        """
        refused = {instance.id for instance, _ in entry.refused}
        entry.listed = tuple(each for each in entry.listed
                             if each.id not in refused)
        return tuple(each for each in found if each.id not in refused)

    @staticmethod
    def _missing(entry: cached.Entry, found: Instances) -> Instances:
        if not entry.listed:
            return ()
        there = {instance.id for instance in found}
        return tuple(instance for instance in entry.listed
                     if instance.id not in there)

    def _unrenewed(self, entry: cached.Entry, found: Instances,
                   expired: frozenset[bytes],
                   missing: Instances) -> Instances:
        """Those of the missing whose records have expired and who may live
        all the same.
        """
        alive = tuple(each for each in missing if each.id in expired
                      and self._may_live(each))
        if len(alive) == 1 and found and not self._lives(alive[0], entry):
            return ()       # one that dies beside others
        return alive

    def _may_live(self, instance: record.Instance) -> bool:
        """An instance whose record has expired may live all the same: the
        clock of the registry was set, and the owner of the record is about to
        renew it.
        """
        return not self._avoided.why(instance)

    def _lives(self, instance: record.Instance,
               entry: cached.Entry) -> bool:
        """Its record has not been renewed for longer than this, so it has
        answered since; or it expired together with others.
        """
        reached = self._reached.get(instance.id, -math.inf)
        return (instance.id in entry.doubted
                or time.monotonic() - reached < self._expire / 2)

    def _still_listed(self, entry: cached.Entry,
                      missing: Instances) -> Instances:
        now = time.monotonic()
        entry.doubted = {
            instance.id: entry.doubted.get(instance.id, now + self._expire)
            for instance in missing
            if not self._avoided.is_for_ever(instance)}
        return tuple(instance for instance in missing
                     if entry.doubted.get(instance.id, 0) > now)

    def _listed_ids(self) -> set[bytes]:
        return {instance.id for entry in self.entries()
                for instance in entry.listed
                if not self._avoided.is_for_ever(instance)}

    def judge_anew(self) -> None:
        """Other instances may count from now on; for the registry thread. Who
        counts again is found by the next look-up, which is due at once.
        """
        for entry in self.entries():
            refused = tuple((instance, why) for instance in entry.listed
                            if (why := self._problem(instance)))
            entry.next_refresh = 0.0
            if refused:
                with self._lock:
                    entry.refused = (*entry.refused, *refused)
                    self._without_refused(entry, entry.listed)
                    entry.choose_anew(self._avoided)

    def newest(self, topic: topics.Topic,
               instance: record.Instance) -> record.Instance:
        """The instance as its record is now, if it is listed."""
        return next((each for each in self.listed(topic)
                     if each.id == instance.id), instance)

    def tidy(self) -> None:
        """No longer pass over those whose time is over, and forget those who
        are no longer listed; for the registry thread.
        """
        before = time.monotonic() - self._expire
        for instance_id, reached in list(self._reached.items()):
            if reached < before:
                self._reached.pop(instance_id, None)
        if self._avoided:
            self._avoided.tidy(instance for entry in self.entries()
                               for instance in entry.listed)
