# SPDX-License-Identifier: Apache-2.0
"""The outbox: one thread that keeps every message until it is acknowledged.

Casts, fanouts and calls that may get more than one message go over DEALER
sockets, one for each instance, all owned by this thread.
"""

import collections
import contextlib
import functools
import queue
import select
import threading
import time

from zmq_threaded import errors
from zmq_threaded import threads
from zmq_threaded import wire
from zmq_threaded.client import custody
from zmq_threaded.client import delivery as deliveries

_TICK = 0.2
_IDLE_TICK = 5.0
_FORGET_EVERY = 60.0
_POLL = 0.002
# Senders without the time to wait could ask for room faster than the thread
# can answer.
_INBOX_LIMIT, _INBOX_WAIT = 1000, 1.0
# A turn that takes longer than it should, in seconds: the process was paused.
_PAUSED = 1.0
# Senders in full spate must not keep the thread from reading what arrives:
# acknowledgements that lie unread when a connection breaks are lost with it.
_TASKS_PER_TURN = 100


class Outbox:
    """The sending thread of one driver in one process.

    :param context: zmq.Context

    Thread: any for the public methods, outbox for the rest.
    """

    def __init__(self, context, settings, directory, counters, name):
        self._settings = settings
        # Its own: settled ids speak for the messages of one outbox.
        self._new_id = wire.id_maker()
        self._inbox = collections.deque()
        self._destinations = {}
        # Reentrant for the sake of signal handlers.
        self._lock = threading.RLock()
        self._flushers = []
        self._finished = False
        self._next_tick = self._next_forgetting = self._turned_at = 0.0
        self._wakeup = threads.Wakeup()
        self._epoll = select.epoll()
        self._epoll.register(self._wakeup.fd, select.EPOLLIN)
        self._custody = custody.Custody(context, settings, directory,
                                        counters, self._epoll, self._tell)
        self._loop = threads.Loop(name, self._turn, self._wakeup.set,
                                  counters, finish=self._finish)

    def post(self, delivery, room_deadline):
        """Take a message into custody.

        :param room_deadline: monotonic seconds for which to wait for room
            when a living service is slow
        :returns: None, or why it was not taken
        """
        delivery.id = self._new_id()
        self._loop.start()
        destination = self._destination(delivery.topic)
        if destination.is_full() and not self._make_room(destination,
                                                         room_deadline):
            return ('no room in the outbox within rpc_cast_timeout, its '
                    'services are too slow')
        delivery.destination = self._count_in(delivery.topic)
        self._tell(functools.partial(self._custody.route, delivery))
        # Looked at last, so that nothing is posted behind the thread's end.
        return 'the driver was closed' if self._finished else None

    def withdraw(self, delivery):
        """Nobody waits for this message any more; forget it."""
        self._tell(functools.partial(self._custody.withdraw, delivery))

    @contextlib.contextmanager
    def watch(self, instance, message_id):
        """Ask an instance now and then whether it still has a call.

        :returns: a context manager; entered it gives a delivery.Watch
        """
        watch = deliveries.Watch(instance, message_id)
        self._loop.start()
        self._tell(functools.partial(self._custody.watch, watch))
        try:
            yield watch
        finally:
            self._tell(functools.partial(self._custody.unwatch, watch))

    def survey(self, timeout):
        """What is not acknowledged; see Custody.survey().

        :param timeout: seconds to wait for the thread
        :raises: errors.MessagingTimeout
        """
        if not self.pending():
            return {}
        answer = queue.SimpleQueue()
        self._tell(lambda: answer.put(self._custody.survey()))
        try:
            return answer.get(timeout=timeout)
        except queue.Empty:
            raise errors.MessagingTimeout(
                f'The outbox, which holds {self.pending()} messages, did not '
                f'say within {timeout} s which') from None

    def pending(self):
        """How many messages are in custody."""
        return sum(destination.pending
                   for destination in list(self._destinations.values()))

    def flush(self, deadline):
        """Wait until nothing is in custody but notifications for which nobody
        listens.

        :param deadline: monotonic seconds
        :returns: how many messages are left
        """
        if self.pending():
            empty = queue.SimpleQueue()
            self._tell(lambda: self._flushers.append(empty))
            # Not with get(timeout): that of CPython waits for ever when a
            # signal handler takes longer than what is left.
            while (empty.empty() and not self._finished
                   and time.monotonic() < deadline):
                time.sleep(_POLL)
        return self.pending()

    def stop(self):
        self._loop.stop()

    def join(self, deadline):
        """:param deadline: monotonic seconds"""
        return self._loop.join(deadline)

    def _destination(self, topic):
        destination = self._destinations.get(topic.key)
        if destination is None:
            destination = self._destinations.setdefault(
                topic.key, deliveries.Destination(self._settings.outbox_limit))
        return destination

    def _count_in(self, topic):
        """One message more to a topic; never to a destination that is being
        forgotten as idle, of which pending() would not know.
        """
        with self._lock:
            destination = self._destination(topic)
            destination.add(1)
        return destination

    def _make_room(self, destination, deadline):
        while destination.is_full():
            if not self._is_keeping_up():
                return False
            ticket = deliveries.Ticket()
            self._tell(functools.partial(self._custody.make_room, destination,
                                         ticket))
            if not ticket.wait(deadline):
                return not destination.is_full()
        return True

    def _is_keeping_up(self):
        deadline = time.monotonic() + _INBOX_WAIT
        while len(self._inbox) > _INBOX_LIMIT:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
        return True

    def _tell(self, task):
        self._inbox.append(task)
        self._wakeup.set()

    def _turn(self):
        wait = self._time_to_wait()
        ready = self._epoll.poll(wait)
        self._wakeup.clear_if(ready)
        self._custody.pump(ready)
        for _ in range(min(len(self._inbox), _TASKS_PER_TURN)):
            self._inbox.popleft()()
        self._custody.pump_queued()
        now = time.monotonic()
        if now - self._turned_at > wait + _PAUSED:
            self._custody.was_paused(now)
        self._turned_at = now
        if now >= self._next_tick:
            self._next_tick = now + _TICK
            self._custody.tick(now)
        if now >= self._next_forgetting:
            self._next_forgetting = now + _FORGET_EVERY
            self._forget_idle_destinations()
        if self._flushers and self.pending() <= self._custody.hopeless():
            self._release_flushers()

    def _release_flushers(self):
        while self._flushers:
            self._flushers.pop().put(True)

    def _time_to_wait(self):
        if self._inbox:
            return 0.0
        busy = self._flushers or not self._custody.is_empty()
        return _TICK if busy else _IDLE_TICK

    def _forget_idle_destinations(self):
        for key, destination in list(self._destinations.items()):
            with self._lock:
                if not destination.pending:
                    self._destinations.pop(key, None)

    def _finish(self):
        self._finished = True
        while self._inbox:
            self._inbox.popleft()()
        self._custody.close()
        self._release_flushers()
        self._epoll.close()
        self._wakeup.close()
