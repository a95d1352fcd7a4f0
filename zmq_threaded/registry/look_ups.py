# SPDX-License-Identifier: Apache-2.0
"""Which topics are looked up in the registry, and when."""

import collections.abc
import contextlib
import math
import random
import time
from collections.abc import Callable

from zmq_threaded.registry import cache as caches
from zmq_threaded.registry import cached
from zmq_threaded.registry import operations as running
from zmq_threaded.registry import store as stores

# Seconds between the first two look-ups of a topic while somebody waits for a
# service. The time between two look-ups grows by a half each time, up to an
# update period.
_FIRST_SPACING = 0.1
# However long it has become: within so many seconds of the last look-up there
# is another one for somebody who has just come; for a thread that goes on
# waiting; and for what can wait.
AT_ONCE, IN_HASTE, AT_LEISURE = 0.5, 2.0, math.inf
# Seconds between two look-ups of a topic that has services (fanouts look
# first); also as a multiple of what a look-up takes, for a large topic is
# read less often.
_LIVE_SPACING, _LIVE_REST = 0.02, 10
# Parts of an update period after which all topics are looked up when the
# registry is back: by then the services have seen it too.
_LOOK_AGAIN = 0.4, 0.6
# Seconds, at random, after which a topic is looked up that has changed: many
# processes are told at the same time. More for each of them, and for what
# each of them reads: so many seconds for a look-up, and for an instance.
_SPREAD = 0.1
LOOK_UP, _INSTANCE = 1e-4, 2e-5
# Processes that are told, where nobody knows how many they are.
_TOLD = 100
# Seconds between a look-up of a topic that has services and the next one that
# a notice asks for, at the most; more for each instance.
_LONGEST_REST, _REST = 0.2, 1e-3

Done = Callable[[float | None], None]


class LookUps:
    """Look-ups of the topics for which somebody waits, and refreshes of the
    topics in use.

    :param store: the registry
    :param cache: what becomes of the answers
    :param update: seconds between refreshes of the topics in use
    :param expire: seconds of life of a record that is not renewed

    Thread: registry.
    """

    def __init__(self, store: stores.Store, cache: caches.Cache,
                 operations: running.Operations, update: float,
                 expire: float) -> None:
        self._store = store
        self._cache = cache
        self._operations = operations
        self._update = update
        self._expire = expire
        self._wanted: dict[str, cached.Entry] = {}
        self._doubted_until = 0.0
        self._tick = min(1.0, update / 4)
        self._next_tick = time.monotonic()

    def want(self, key: str, done: Done = lambda looked_at: None,
             within: float = AT_ONCE) -> None:
        """See that a topic is looked up soon.

        :param done: called after the look-up; see Registry.ask()
        :param within: seconds after the last look-up of the topic
        """
        entry = self._wanted[key] = self._cache.entry(key)
        entry.waiting.append(done)
        entry.next_lookup = min(entry.next_lookup,
                                entry.looked_up_at + within)

    def do_due(self) -> collections.abc.Iterator[None]:
        """Do all look-ups that are due, one at each step. There may be
        thousands, and each may take a while: whoever steps may do more urgent
        things in between.
        """
        for entry in list(self._wanted.values()):
            if entry.next_lookup <= time.monotonic():
                self._look_up(entry)
                yield
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + self._tick
            yield from self.refresh()

    def refresh(self) -> collections.abc.Iterator[None]:
        """Look up the topics in use, and forget those that nobody has used
        for long, one at each step.
        """
        for entry in self._cache.entries():
            if entry.next_refresh > time.monotonic():
                continue
            entry.idle_refreshes += 1
            if entry.is_forgotten():
                self._forget(entry)
                yield
            elif entry.is_old():
                entry.next_refresh = time.monotonic() + self._update
            else:
                self._look_up(entry)
                yield

    def next_due(self) -> float:
        """When there is something to do, in monotonic seconds."""
        due = [entry.next_lookup for entry in self._wanted.values()]
        if not self._cache.is_empty():
            due.append(self._next_tick)
        return min(due, default=math.inf)

    def look_again(self) -> None:
        """The registry answers again: look up all topics soon."""
        now = time.monotonic()
        for entry in self._cache.entries():
            entry.next_refresh = now + self._update * random.uniform(
                *_LOOK_AGAIN)

    def notice(self, key: str, told: int = 0) -> None:
        """A topic may have changed: look it up soon, if anybody uses it.

        :param told: how many processes are told so, 0 if nobody knows
        """
        entry = self._cache.find(key)
        if entry is None or entry.is_old():
            return
        soon = time.monotonic() + random.uniform(0, self._spread(entry, told))
        if entry.live:
            soon = max(soon, entry.looked_up_at + min(
                entry.spacing, _LONGEST_REST + _REST * len(entry.listed)))
        self._look_up_at(entry, soon)

    def _spread(self, entry: cached.Entry, told: int) -> float:
        cost = LOOK_UP + _INSTANCE * len(entry.listed)
        return max(_SPREAD, min((told or _TOLD) * cost, self._update))

    def _look_up_at(self, entry: cached.Entry, soon: float) -> None:
        entry.next_lookup = (min(entry.next_lookup, soon)
                             if entry.key in self._wanted else soon)
        self._wanted[entry.key] = entry

    def doubt(self) -> None:
        """Perhaps nobody could renew a record: for the life of a record it
        says nothing when one is missing.
        """
        self._doubted_until = time.monotonic() + self._expire

    def end(self) -> None:
        """Tell those who wait for a look-up that there will be none."""
        for entry in self._wanted.values():
            for done in entry.waiting:
                done(None)

    def _look_up(self, entry: cached.Entry) -> None:
        self._wanted.pop(entry.key, None)
        waiting, entry.waiting = entry.waiting, []
        began = time.monotonic()
        answered = self._operations.run_if_due(running.READING,
                                               self._read, entry)
        now = entry.looked_up_at = time.monotonic()
        entry.spacing = self._spacing(entry, now - began, answered)
        entry.next_lookup = now + entry.spacing
        entry.next_refresh = now + self._update * random.uniform(0.9, 1.0)
        for done in waiting:
            done(began if answered else None)
        if answered:
            self._watch(entry)

    def _watch(self, entry: cached.Entry) -> None:
        """Only now: nobody is to wait for it."""
        with contextlib.suppress(Exception):
            if self._store.watch(entry.key):
                self._look_up_at(entry, time.monotonic())

    def _spacing(self, entry: cached.Entry, duration: float,
                 answered: bool) -> float:
        """Seconds until the next look-up, if somebody waits for it."""
        if entry.live:
            return max(_LIVE_SPACING, _LIVE_REST * duration)
        # A look-up that was not answered has cost nothing. An instance that
        # is passed over is not passed over for longer than a while.
        longest = (self._update if answered and not entry.listed
                   else AT_ONCE)
        return min(max(entry.spacing * 1.5, _FIRST_SPACING), longest)

    def _read(self, entry: cached.Entry) -> None:
        began = time.monotonic()
        found = tuple(self._store.lookup(entry.key))
        if time.monotonic() - began > self._expire / 3:
            self.doubt()        # nobody else could renew a record either
        self._cache.absorb(entry, found,
                           lambda missing: self._doubted(entry.key, missing),
                           self._store.expired)

    def _doubted(self, key: str, missing: caches.Instances
                 ) -> caches.Instances:
        if time.monotonic() < max(self._doubted_until,
                                  self._operations.failed_at + self._expire):
            return missing
        loss = self._store.loss(key)
        return tuple(filter(loss.concerns, missing)) if loss else ()

    def _forget(self, entry: cached.Entry) -> None:
        """Not while the registry is down: it could not be found again."""
        if not self._operations.run_if_due(running.READING, self._read, entry):
            entry.next_refresh = time.monotonic() + self._update
        elif entry.is_forgotten():      # nobody came meanwhile
            self._cache.forget(entry)
            self._store.notices.forget(entry.key)
