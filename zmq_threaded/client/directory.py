# SPDX-License-Identifier: Apache-2.0
"""The cached view of the registry, and the one thread that talks to it.

Senders choose an instance from a snapshot and never wait for the registry
while they have one. A snapshot stays while the registry is down.
"""

import dataclasses
import itertools
import logging
import math
import queue
import random
import threading
import time

from zmq_threaded import threads

LOG = logging.getLogger(__name__)

# Spacing of the look-ups of one topic while somebody waits for a service, and
# while there is one (fanouts look first).
_FIRST_SPACING, _LAST_SPACING = 0.1, 0.5
_LIVE_SPACING = 0.02
# How long an instance that could not be reached is passed over, doubling.
_FIRST_AVOIDANCE, _LAST_AVOIDANCE = 1.0, 30.0
# Refreshes after which a topic that nobody used is forgotten.
_IDLE_REFRESHES = 30
_REGISTER_TIMEOUT = 5.0
_RETRY_REGISTRATION = 1.0
_UNREGISTER_TIMEOUT = 2.0


class Nobody(Exception):
    """No instance of the topic could be found in time, or in the number of
    attempts that was asked for.

    :ivar attempts_used_up: False when time was what ran out
    """

    def __init__(self, attempts_used_up):
        self.attempts_used_up = attempts_used_up
        super().__init__()


@dataclasses.dataclass
class _Entry:
    """What is known of one topic; `live` is replaced, never changed."""

    key: str
    listed: tuple = ()
    live: tuple = ()
    cursor: itertools.count = dataclasses.field(
        default_factory=lambda: itertools.count(random.randrange(1 << 16)))
    waiting: list = dataclasses.field(default_factory=list)
    next_lookup: float = 0.0
    spacing: float = 0.0
    idle_refreshes: int = 0


class Directory:
    """Looks up, registers and renews, for one driver in one process.

    :param matchmaker: the registry; used by the directory thread alone
    :param update: seconds between refreshes of the topics in use
    :param expire: seconds of life of a record that is not renewed
    :param housekeeping: called about once a second by the directory thread

    Thread: any, but for the methods that begin with an underscore.
    """

    def __init__(self, matchmaker, update, expire, counters, name,
                 housekeeping=lambda: None):
        self._matchmaker = matchmaker
        self._update = update
        self._beat_interval = expire / 3
        self._counters = counters
        self._housekeeping = housekeeping
        self._tasks = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._entries = {}
        self._avoided = {}
        self._registered = {}
        self._closed = False
        now = time.monotonic()
        self._next_refresh = now + update
        self._next_beat = now + self._beat_interval
        self._next_housekeeping = now
        self._loop = threads.Loop(name, self._turn, self._wake, counters,
                                  finish=self._finish)

    # What senders use

    def choose(self, topic):
        """The next live instance of a topic in turn, or None."""
        entry = self._entries.get(topic.key)
        if entry is None:
            return None
        entry.idle_refreshes = 0
        live = entry.live
        if not live:
            return None
        return live[next(entry.cursor) % len(live)]

    def live(self, topic):
        """All live instances of the last snapshot."""
        entry = self._entries.get(topic.key)
        return entry.live if entry else ()

    def listed(self, topic):
        """All instances of the last snapshot, reachable or not."""
        entry = self._entries.get(topic.key)
        return entry.listed if entry else ()

    def is_listed(self, topic, instance):
        """Whether the last snapshot has the instance."""
        return instance in self.listed(topic)

    def resolve(self, topic, deadline, attempts=None):
        """Choose an instance; wait for one if there is none.

        :param deadline: monotonic seconds
        :param attempts: fresh look-ups allowed, None for any number
        :raises: Nobody
        """
        instance = self.choose(topic)
        while instance is None:
            if attempts == 0:
                raise Nobody(attempts_used_up=True)
            if self._closed:
                raise Nobody(attempts_used_up=False)
            looked = queue.SimpleQueue()
            self.ask(topic, looked.put)
            try:
                looked.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Nobody(attempts_used_up=False) from None
            instance = self.choose(topic)
            attempts = attempts and attempts - 1
        return instance

    def ask(self, topic, done):
        """Look the topic up anew soon.

        :param done: called by the directory thread after a look-up that
            began later than this call, with whether the registry answered
        """
        self._loop.start()
        self._tasks.put(lambda: self._want(topic.key, done))

    def avoid(self, instance, for_ever=False):
        """Pass over an instance that is busy, for a while that doubles; or
        for ever, when it is known to be gone.
        """
        self._avoid(instance.id, for_ever)

    def unreachable(self, instance):
        """Pass over an instance, and all behind the same receiver, for a
        while that doubles.
        """
        self._avoid(_way(instance))

    def _avoid(self, key, for_ever=False):
        with self._lock:
            _, pause = self._avoided.get(key, (0, 0))
            pause = min(max(2 * pause, _FIRST_AVOIDANCE), _LAST_AVOIDANCE)
            until = math.inf if for_ever else time.monotonic() + pause
            # Kept when it is over: the next pause is longer.
            self._avoided[key] = (until, pause)
            self._recompute()

    def reached(self, instance):
        """The instance answers: forget earlier failures."""
        if self._avoided:
            with self._lock:
                for key in {instance.id, _way(instance)}:
                    until, _ = self._avoided.get(key, (math.inf, 0))
                    if until != math.inf:
                        del self._avoided[key]
                        self._recompute()

    # What services use

    def register(self, instance, topics):
        """List an instance; returns when it is listed, or after a few
        seconds, and goes on trying in the background.
        """
        keys = [topic.key for topic in topics]
        self._loop.start()
        if not self._do(lambda: self._register(instance, keys),
                        _REGISTER_TIMEOUT):
            LOG.warning('The registry did not take a service yet; trying on')

    def unregister(self, instance):
        """Take an instance off the list; waits a bounded time for it."""
        if not self._do(lambda: self._unregister(instance),
                        _UNREGISTER_TIMEOUT):
            LOG.warning('The registry did not take a service off its list; '
                        'its record will expire')

    # Stopping

    def stop(self):
        self._closed = True
        self._loop.stop()

    def join(self, deadline):
        """:param deadline: monotonic seconds"""
        return self._loop.join(deadline)

    # The directory thread

    def _wake(self):
        self._tasks.put(lambda: None)

    def _do(self, task, timeout):
        # A queue of its own: safe in a signal handler, unlike an Event.
        done = queue.SimpleQueue()
        self._tasks.put(lambda: done.put(task()))
        try:
            return done.get(timeout=timeout)
        except queue.Empty:
            return False

    def _turn(self):
        task = self._next_task()
        while task is not None:
            task()
            task = self._next_task(block=False)
        now = time.monotonic()
        for entry in list(self._entries.values()):
            if entry.waiting and entry.next_lookup <= now:
                self._look_up(entry)
        self._do_what_is_due(time.monotonic())

    def _finish(self):
        while not self._tasks.empty():
            self._tasks.get()()
        self._matchmaker.close()
        for entry in self._entries.values():
            for done in entry.waiting:
                done(False)

    def _next_task(self, block=True):
        try:
            return self._tasks.get(block, timeout=self._time_to_wait())
        except queue.Empty:
            return None

    def _time_to_wait(self):
        due = [entry.next_lookup for entry in list(self._entries.values())
               if entry.waiting]
        due += (self._next_refresh, self._next_beat, self._next_housekeeping)
        return max(0.0, min(due) - time.monotonic())

    def _want(self, key, done):
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(key)
        entry.waiting.append(done)
        entry.idle_refreshes = 0

    def _look_up(self, entry):
        waiting, entry.waiting = entry.waiting, []
        answered = False
        try:
            listed = tuple(self._matchmaker.lookup(entry.key))
        except Exception as error:
            # The engines' clients raise what they like; see matchmaker.
            self._counters.add('registry_errors')
            LOG.warning('The registry cannot be read, going on with what is '
                        'known: %s: %s', type(error).__name__, error)
        else:
            with self._lock:
                entry.listed = listed
                self._recompute()
            answered = True
        entry.spacing = (_LIVE_SPACING if entry.live else
                         min(max(entry.spacing * 1.5, _FIRST_SPACING),
                             _LAST_SPACING))
        entry.next_lookup = time.monotonic() + entry.spacing
        for done in waiting:
            done(answered)

    def _recompute(self):
        now = time.monotonic()
        avoided = {key for key, (until, _) in self._avoided.items()
                   if until > now}
        for entry in list(self._entries.values()):
            entry.live = tuple(instance for instance in entry.listed
                               if instance.id not in avoided
                               and _way(instance) not in avoided)

    def _do_what_is_due(self, now):
        if now >= self._next_refresh:
            self._next_refresh = now + self._update * random.uniform(0.9, 1.0)
            self._refresh()
        if now >= self._next_beat:
            self._next_beat = now + self._beat_interval
            for instance, keys in list(self._registered.values()):
                self._attempt(self._matchmaker.beat, instance, keys)
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + 1.0
            if self._avoided:
                with self._lock:
                    self._recompute()
            self._housekeeping()

    def _refresh(self):
        for entry in list(self._entries.values()):
            entry.idle_refreshes += 1
            if entry.idle_refreshes > _IDLE_REFRESHES and not entry.waiting:
                self._entries.pop(entry.key, None)
            else:
                self._look_up(entry)
        with self._lock:
            listed = {key for entry in list(self._entries.values())
                      for instance in entry.listed
                      for key in (instance.id, _way(instance))}
            for key in self._avoided.keys() - listed:
                del self._avoided[key]

    def _register(self, instance, keys):
        self._registered[instance.id] = (instance, keys)
        listed = self._attempt(self._matchmaker.register, instance, keys)
        if not listed:
            self._next_beat = time.monotonic() + _RETRY_REGISTRATION
        return listed

    def _unregister(self, instance):
        _, keys = self._registered.pop(instance.id, (None, ()))
        return self._attempt(self._matchmaker.unregister, instance, keys)

    def _attempt(self, operation, *args):
        try:
            operation(*args)
        except Exception as error:
            self._counters.add('registry_errors')
            LOG.warning('The registry cannot be written, trying on: %s: %s',
                        type(error).__name__, error)
            return False
        return True


def _way(instance):
    """What is lost with the connection to an instance."""
    return instance.endpoints if instance.receiver else instance.id
