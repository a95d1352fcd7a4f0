# SPDX-License-Identifier: Apache-2.0
"""The cached view of the registry, and the one thread that talks to it.

Senders choose an instance from a snapshot and never wait for the registry
while they have one. A snapshot stays while the registry is down. When it
answers again it may lack what nobody could renew meanwhile, or all: what is
missing then stays as well, for the life of a record. By then its owner has
come back, or is gone.
"""

import math
import queue
import random
import time

from zmq_threaded import errors
from zmq_threaded import logs
from zmq_threaded import threads
from zmq_threaded.registry import health
from zmq_threaded.registry import cache

LOG = logs.get(__name__)

# Spacing of the look-ups of one topic while somebody waits for a service. It
# grows by a half each time, up to an update period, but:
_FIRST_SPACING = 0.1
# Within how many seconds of the last one there is another for who has just
# come; for a thread that goes on waiting; and for what can wait.
AT_ONCE, IN_HASTE, AT_LEISURE = 0.5, 2.0, math.inf
# While there are services (fanouts look first), also as multiples of what a
# look-up takes: large topics are read less often.
_LIVE_SPACING, _LIVE_REST = 0.02, 10
# Longer than an answer of the registry is waited for: then there is a reason.
_REGISTER_TIMEOUT = 6.0
_UNREGISTER_TIMEOUT = 2.0
# A registration is looked at soon: a deletion may have come in between.
_FIRST_BEAT = 1.0
# There is a turn in each second at least. Seconds between two after which the
# process stood still, if a third of the life of a record is not longer.
_LONGEST_TURN = 2.0
# Update periods after which all topics are looked at when it is back: by then
# the services have seen it too.
_LOOK_AGAIN = 0.4, 0.6


class Registry:
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
        self._expire = expire
        self._counters = counters
        self._housekeeping = housekeeping
        self._tasks = queue.SimpleQueue()
        self._waited_for = {}
        self._cache = cache.Cache(
            expire, lambda key: self._tasks.put(lambda: self._want(key)))
        self._closed = False
        now = time.monotonic()
        self._tick = min(1.0, update / 4)
        self._next_tick = self._next_housekeeping = now
        self._next_beat = now + self._beat_interval()
        self._health = health.Health(update, matchmaker.explain, counters)
        self._doubted_until = 0.0
        self._last_turn = math.inf
        self._loop = threads.Loop(name, self._turn, self._wake, counters,
                                  finish=self._finish)

    # What senders use; see View

    def choose(self, topic):
        return self._cache.choose(topic)

    def live(self, topic):
        return self._cache.live(topic)

    def listed(self, topic):
        return self._cache.listed(topic)

    def is_listed(self, topic, instance):
        return self._cache.is_listed(topic, instance)

    def vanished(self, topic):
        return self._cache.vanished(topic)

    def avoid(self, instance, for_ever=False, why=''):
        self._cache.avoid(instance, for_ever, why)

    def unreachable(self, instance, why=''):
        self._cache.unreachable(instance, why)

    def reached(self, instance):
        self._cache.reached(instance)

    def explain(self, topic):
        """Why nobody of a topic can be reached: text for a log line or an
        error, of bounded length.
        """
        return self._cache.explain(topic, self._health.trouble())

    def resolve(self, topic, deadline, attempts=None):
        """Choose an instance; wait for one if there is none.

        :param deadline: monotonic seconds
        :param attempts: fresh look-ups allowed, None for any number; those
            that the registry did not answer do not count
        :raises: errors.Nobody
        """
        instance, within = self.choose(topic), AT_ONCE
        while instance is None:
            if attempts == 0:
                raise errors.Nobody(True, self.explain(topic))
            looked_at = self._wait_for_look_up(topic, deadline, within)
            instance, within = self.choose(topic), IN_HASTE
            if looked_at is not None and attempts:
                attempts -= 1
        return instance

    def _wait_for_look_up(self, topic, deadline, within):
        """As ask() says; raises Nobody at the deadline."""
        looked = queue.SimpleQueue()
        self.ask(topic, looked.put, within)
        if self._closed:
            # Looked at last: what is asked behind the thread's end is never
            # answered, and a deadline may be years away.
            raise errors.Nobody(False, 'the driver was closed')
        try:
            return looked.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise errors.Nobody(False, self.explain(topic)) from None

    def start(self):
        """Start the thread, before somebody relies on it.

        :raises: descriptors.Short when there is none to be had; then the next
            one tries again
        """
        self._loop.start()

    def ask(self, topic, done, within=AT_ONCE):
        """Look the topic up anew soon.

        :param done: called by the directory thread after a look-up that
            began later than this call: with when it began, in monotonic
            seconds, or None if the registry did not answer
        :param within: of the last look-up, in seconds, however seldom the
            topic is looked up otherwise
        """
        self.start()
        self._tasks.put(lambda: self._want(topic.key, done, within))

    # What services use

    def register(self, instance, topics):
        """List an instance; returns when it is listed, or after a few
        seconds, and goes on trying in the background.
        """
        keys = [topic.key for topic in topics]
        self.start()
        if not self._do(lambda: self._register(instance, keys),
                        _REGISTER_TIMEOUT):
            LOG.warning('The registry did not take %s yet, trying on; until '
                        'then nobody finds it: %s', instance,
                        self._health.why or 'it is busy')

    def unregister(self, instance):
        """Take an instance off the list; waits a bounded time for it."""
        if not self._do(lambda: self._unregister(instance),
                        _UNREGISTER_TIMEOUT):
            LOG.warning('The registry did not take %s off its list, its '
                        'record will expire: %s', instance,
                        self._health.why or 'it is busy')

    # Stopping

    def stop(self):
        """Ends within seconds, though the registry hang."""
        self._closed = True
        self._matchmaker.hurry()
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
        self._do_tasks(block=True)
        self._notice_pause()
        self._beat_if_due()
        for entry in list(self._waited_for.values()):
            if entry.next_lookup <= time.monotonic():
                self._look_up(entry)
                self._do_more_urgent()
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + self._tick
            self._refresh()
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + 1.0
            self._cache.tidy()
            self._look_after_records()
            self._housekeeping()

    def _notice_pause(self):
        """If this process stood still, others may have done so as well, and
        none of them could renew a record.
        """
        now = time.monotonic()
        if now - self._last_turn > max(_LONGEST_TURN, self._expire / 3):
            self._doubt()
        self._last_turn = now

    def _do_more_urgent(self):
        """Between two look-ups: there may be thousands, and each may take a
        while.
        """
        self._do_tasks(block=False)
        self._beat_if_due()

    def _do_tasks(self, block):
        task = self._next_task(block)
        while task is not None:
            task()
            task = self._next_task(block=False)

    def _next_task(self, block):
        try:
            return self._tasks.get(block, timeout=self._time_to_wait()
                                   if block else None)
        except queue.Empty:
            return None

    def _time_to_wait(self):
        due = [entry.next_lookup for entry in self._waited_for.values()]
        due += (self._next_beat, self._next_housekeeping)
        if not self._cache.is_empty():
            due.append(self._next_tick)
        return max(0.0, min(due) - time.monotonic())

    def _finish(self):
        while not self._tasks.empty():
            self._tasks.get()()
        self._matchmaker.close()
        for entry in self._waited_for.values():
            for done in entry.waiting:
                done(None)

    # Look-ups

    def _want(self, key, done=lambda looked_at: None, within=AT_ONCE):
        entry = self._waited_for[key] = self._cache.entry(key)
        entry.waiting.append(done)
        entry.next_lookup = min(entry.next_lookup,
                                entry.looked_up_at + within)

    def _look_up(self, entry):
        self._waited_for.pop(entry.key, None)
        waiting, entry.waiting = entry.waiting, []
        began = time.monotonic()
        answered = self._attempt(health.READING, self._read, entry)
        now = entry.looked_up_at = time.monotonic()
        entry.spacing = self._spacing(entry, now - began, answered)
        entry.next_lookup = now + entry.spacing
        entry.next_refresh = now + self._update * random.uniform(0.9, 1.0)
        for done in waiting:
            done(began if answered else None)

    def _spacing(self, entry, duration, answered):
        """Seconds until the next look-up, if somebody waits for it."""
        if entry.live:
            return max(_LIVE_SPACING, _LIVE_REST * duration)
        # One that was not answered has cost nothing; and who is passed over
        # for a while is not passed over for longer.
        longest = (self._update if answered and not entry.listed
                   else AT_ONCE)
        return min(max(entry.spacing * 1.5, _FIRST_SPACING), longest)

    def _read(self, entry):
        began = time.monotonic()
        found = tuple(self._matchmaker.lookup(entry.key))
        if time.monotonic() - began > self._expire / 3:
            self._doubt()       # nobody else could renew a record either
        self._cache.absorb(entry, found, lambda: self._is_doubtful(entry.key),
                          self._matchmaker.expired)

    def _is_doubtful(self, key):
        return (time.monotonic() < self._doubted_until
                or self._matchmaker.lost_its_records(key))

    def _doubt(self):
        self._doubted_until = time.monotonic() + self._expire

    def _refresh(self):
        for entry in self._cache.entries():
            if entry.next_refresh > time.monotonic():
                continue
            entry.idle_refreshes += 1
            if entry.is_forgotten():
                self._forget(entry)
                self._do_more_urgent()
            elif entry.is_old():
                entry.next_refresh = time.monotonic() + self._update
            else:
                self._look_up(entry)
                self._do_more_urgent()

    def _forget(self, entry):
        """Not while the registry is down: it could not be found again."""
        if not self._attempt(health.READING, self._read, entry):
            entry.next_refresh = time.monotonic() + self._update
        elif entry.is_forgotten():      # nobody came meanwhile
            self._cache.forget(entry)

    # Registrations

    def _register(self, instance, keys):
        listed = self._try(health.WRITING, self._matchmaker.register,
                           instance, keys, is_told=True)
        if listed:
            self._next_beat = min(self._next_beat,
                                  time.monotonic() + _FIRST_BEAT)
        return listed

    def _unregister(self, instance):
        return self._try(health.WRITING, self._matchmaker.unregister,
                         instance, is_told=True)

    def _beat_if_due(self):
        if time.monotonic() < self._next_beat:
            return
        if (not self._matchmaker.has_records()
                or self._attempt(health.WRITING, self._matchmaker.beat)):
            self._next_beat = time.monotonic() + self._beat_interval()
        else:
            self._next_beat = self._health.paused_until(health.WRITING)

    def _beat_interval(self):
        return self._expire / 3 * random.uniform(0.9, 1.0)

    def _look_after_records(self):
        """Put back at once what is seen to be gone."""
        if (self._matchmaker.has_records()
                and self._health.may_try(health.WRITING)):
            self._try(health.READING, self._beat_at_once_if_lost)

    def _beat_at_once_if_lost(self):
        if not self._matchmaker.is_intact():
            self._next_beat = min(self._next_beat, time.monotonic())
        return False    # no sign of a registry that answers

    # A registry that fails

    def _attempt(self, kind, operation, *args):
        """As _try(), but one that has just failed is left alone."""
        return (self._health.may_try(kind)
                and self._try(kind, operation, *args))

    def _try(self, kind, operation, *args, is_told=False):
        """Whether the operation succeeded; the engines' clients raise what
        they like, see matchmaker.

        :param is_told: whoever wants it warns when it fails
        """
        try:
            # What says False had nothing to ask the registry.
            was_asked = operation(*args) is not False
        except Exception as error:
            self._failed(kind, error, is_told)
            return False
        if was_asked and self._health.succeeded(kind):
            self._recovered()
        return True

    def _failed(self, kind, error, is_told):
        self._health.failed(kind, error, is_told)
        self._doubt()
        if kind == health.WRITING:
            self._next_beat = min(self._next_beat,
                                  self._health.paused_until(kind))

    def _recovered(self):
        now = time.monotonic()
        for entry in self._cache.entries():
            entry.next_refresh = now + self._update * random.uniform(
                *_LOOK_AGAIN)
