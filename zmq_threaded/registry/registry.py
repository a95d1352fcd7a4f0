# SPDX-License-Identifier: Apache-2.0
"""The registry as one driver sees it: the cache from which senders choose,
and the one thread that talks to the registry.

A sender chooses an instance from the cache, and never waits for the registry
while the cache has one. The cache stays as it is while the registry is down.
When the registry answers again, it may lack what nobody could renew
meanwhile, or all of it. What is missing then stays in the cache as well, for
the life of a record. By then its owner has come back, or is gone.
"""

import contextlib
import math
import queue
import time
from collections.abc import Callable
from collections.abc import Iterable

from zmq_threaded import counters as counting
from zmq_threaded import errors
from zmq_threaded import logs
from zmq_threaded import mailbox
from zmq_threaded import threads
from zmq_threaded import topic as topics
from zmq_threaded.registry import cache
from zmq_threaded.registry import hearing
from zmq_threaded.registry import look_ups
from zmq_threaded.registry import operations as running
from zmq_threaded.registry import record
from zmq_threaded.registry import registrations
from zmq_threaded.registry import store as stores
from zmq_threaded.registry.look_ups import AT_LEISURE as AT_LEISURE
from zmq_threaded.registry.look_ups import AT_ONCE as AT_ONCE
from zmq_threaded.registry.look_ups import IN_HASTE as IN_HASTE

LOG = logs.get(__name__)

# Seconds. Longer than an answer of the registry is waited for: then there is
# a reason to tell.
_REGISTER_TIMEOUT = 6.0
_UNREGISTER_TIMEOUT = 2.0
# There is a turn in each second at least. Seconds between two turns after
# which the process stood still, if a third of the life of a record is not
# longer.
_LONGEST_TURN = 2.0


class Registry:
    """Looks up, registers and renews, for one driver in one process.

    :param store: the registry; used by the registry thread alone
    :param update: seconds between refreshes of the topics in use
    :param expire: seconds of life of a record that is not renewed
    :param name: of the thread
    :param housekeeping: called about once a second by the registry thread
    :param problem: says why an instance counts as not there; see Cache
    :param only_own: makes of an instance what is used of it; see Cache
    :ivar cache: Cache, from which senders choose
    :ivar hearing: who cannot reach the services of this process
    :ivar place: what the registry is and where, for people

    Thread: any; registry for the methods that begin with an underscore.
    """

    def __init__(self, store: stores.Store, update: float, expire: float,
                 counters: counting.Counters, name: str,
                 housekeeping: Callable[[], None] = lambda: None,
                 problem: Callable[[record.Instance], str]
                 = lambda instance: '',
                 only_own: Callable[[record.Instance], record.Instance]
                 = lambda instance: instance) -> None:
        self._store, self.place = store, store.place
        self._expire = expire
        self._housekeeping = housekeeping
        self._tasks = mailbox.PolledMailbox()
        store.notices.bind(self._tasks, lambda key, told: self._tasks.put(
            lambda: self._look_ups.notice(key, told)))
        self._operations = running.Operations(
            update, store.explain, counters,
            lambda: self._look_ups.look_again())
        self.cache = cache.Cache(
            expire, lambda key: self._tasks.put(
                lambda: self._look_ups.want(key)), self._operations.trouble,
            problem, only_own)
        self._look_ups = look_ups.LookUps(store, self.cache, self._operations,
                                          update, expire)
        self._registrations = registrations.Registrations(
            store, self._operations, expire)
        self.hearing = hearing.Hearing(
            store, self._operations, self.cache.complaints, update)
        self._closed = False
        self._next_housekeeping = time.monotonic()
        self._last_turn = math.inf
        self._loop = threads.Loop(name, self._turn, self._wake, counters,
                                  finish=self._finish)

    def start(self) -> None:
        """Start the thread, before somebody relies on it.

        :raises: descriptors.Short when there is no thread to be had; then the
            next caller tries again
        """
        self._loop.start()

    def trouble(self) -> tuple[float, str] | None:
        """See Operations.trouble()."""
        return self._operations.trouble()

    def resolve(self, topic: topics.Topic, deadline: float,
                attempts: int | None = None) -> record.Instance:
        """Choose an instance; wait for one if there is none.

        :param deadline: monotonic seconds
        :param attempts: fresh look-ups allowed, None for any number; those
            that the registry did not answer do not count
        :raises: errors.Nobody
        """
        instance, within = self.cache.choose(topic), AT_ONCE
        while instance is None:
            if attempts == 0:
                raise errors.Nobody(True, self.cache.explain(topic))
            looked_at = self._wait_for_look_up(topic, deadline, within)
            instance, within = self.cache.choose(topic), IN_HASTE
            if (looked_at is not None and attempts
                    and not self.cache.is_expected(topic)):
                attempts -= 1
        return instance

    def _wait_for_look_up(self, topic: topics.Topic, deadline: float,
                          within: float) -> float | None:
        """As ask() says; raises Nobody at the deadline. In any thread."""
        looked = mailbox.Answers()
        self.ask(topic, looked.put, within)
        if self._closed:
            # Looked at last: what is asked behind the thread's end is never
            # answered, and a deadline may be years away.
            raise errors.Nobody(False, 'the driver was closed')
        try:
            return looked.get(deadline)
        except queue.Empty:
            raise errors.Nobody(False, self.cache.explain(topic)) from None

    def ask(self, topic: topics.Topic, done: look_ups.Done,
            within: float = AT_ONCE) -> None:
        """Look the topic up anew soon.

        :param done: called by the registry thread after a look-up that began
            later than this call: with when it began, in monotonic seconds, or
            None if the registry did not answer
        :param within: of the last look-up, in seconds, however seldom the
            topic is looked up otherwise
        """
        self.start()
        self._tasks.put(
            lambda: self._look_ups.want(topic.key, done, within))

    def register(self, instance: record.Instance,
                 listened: Iterable[topics.Topic],
                 in_place_of: record.Instance | None = None) -> None:
        """List an instance under its topics. Returns when the instance is
        listed, or after a few seconds; then the registry thread goes on
        trying.

        :param in_place_of: an instance that is taken off the same topics, in
            the same step for each of them
        """
        keys = [topic.key for topic in listened]
        self.start()
        if not self._do(lambda: self._registrations.register(
                instance, keys, in_place_of), _REGISTER_TIMEOUT):
            LOG.warning('The registry did not take %s yet, trying on; until '
                        'then nobody finds it: %s', instance,
                        self._operations.why or 'it is busy')

    def renew(self, instance: record.Instance,
              listened: Iterable[topics.Topic]) -> None:
        """List an instance anew, of which something has changed; waits for
        nothing.
        """
        keys = [topic.key for topic in listened]
        self._tasks.put(lambda: self._registrations.register(instance, keys))

    def unregister(self, instance: record.Instance) -> None:
        """Take an instance off the list; waits a bounded time for it."""
        if not self._do(lambda: self._registrations.unregister(instance),
                        _UNREGISTER_TIMEOUT):
            LOG.warning('The registry did not take %s off its list, its '
                        'record will expire: %s', instance,
                        self._operations.why or 'it is busy')

    def confirmed_at(self) -> float:
        """When the registry last took the records of this process or renewed
        them, in monotonic seconds; -inf if it never did.
        """
        return self._registrations.confirmed_at

    def turned_at(self) -> float:
        """When the thread had its last turn, in monotonic seconds; inf
        before the first one.
        """
        return self._last_turn

    def stop(self) -> None:
        """Ask the thread to end. It ends within seconds, though the registry
        hang.
        """
        self._closed = self._operations.is_closing = True
        self._store.hurry()
        self._loop.stop()

    def join(self, deadline: float) -> bool:
        """Wait for the end of the thread after stop().

        :param deadline: monotonic seconds
        :returns: whether it has ended
        """
        return self._loop.join(deadline)

    def _wake(self) -> None:
        self._tasks.wake()

    def _do(self, task: Callable[[], bool], timeout: float) -> bool:
        """In any thread: have a task done, and wait for its result."""
        return bool(mailbox.ask(self._tasks.put, task, timeout, False))

    def _turn(self) -> None:
        ready = self._tasks.wait(0 if self._tasks else self._time_to_wait())
        if self._store.notices.is_due(ready):
            self._read_notices()
        self._do_tasks()
        self._notice_stall()
        self._registrations.beat_if_due()
        for _ in self._look_ups.do_due():
            # Each look-up may take a while, and these are more urgent.
            self._do_tasks()
            self._registrations.beat_if_due()
        now = time.monotonic()
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + 1.0
            self.cache.tidy()
            self._registrations.look_after()
            self.hearing.turn()
            self._housekeeping()

    def _read_notices(self) -> None:
        # The next look-up watches again what was not read now.
        with contextlib.suppress(Exception):
            self._store.read_notices()

    def _notice_stall(self) -> None:
        """If this process stood still, others may have done so as well, and
        none of them could renew a record.
        """
        now = time.monotonic()
        if now - self._last_turn > max(_LONGEST_TURN, self._expire / 3):
            self._look_ups.doubt()
        self._last_turn = now

    def _do_tasks(self) -> None:
        tasks = self._tasks.items
        while tasks:
            tasks.popleft()()

    def _time_to_wait(self) -> float:
        due = min(self._registrations.next_beat, self._next_housekeeping,
                  self._look_ups.next_due())
        return max(0.0, due - time.monotonic())

    def _finish(self) -> None:
        self._do_tasks()
        self._store.close()
        self._tasks.close()
        self._look_ups.end()
