# SPDX-License-Identifier: Apache-2.0
"""The outbox: one thread that keeps every message until it is acknowledged.

Casts, fanouts and calls that may get more than one message go over DEALER
sockets, one for each instance, all owned by this thread.

A sender's only act is to append to the inbox, which is one step: a message is
there or not, whatever exception ends the sender. Only this thread counts.
"""

import collections
import contextlib
import functools
import math
import queue
import select
import time

from zmq_threaded.net import descriptors
from zmq_threaded import errors
from zmq_threaded import mailbox
from zmq_threaded import threads
from zmq_threaded import wire
from zmq_threaded.client import custody
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import flushes

_TICK = 0.2
_IDLE_TICK = 5.0
_FORGET_EVERY = 60.0
_POLL = 0.002
# Senders without the time to wait could ask for room faster than the thread
# can answer. Who has waited for so many seconds gets into the line anyway.
_INBOX_LIMIT, _INBOX_WAIT = 1000, 1.0
# A turn that takes longer than it should, in seconds: the process was paused.
_PAUSED = 1.0
# Senders in full spate must not keep the thread from reading what arrives:
# acknowledgements that lie unread when a connection breaks are lost with it.
_TASKS_PER_TURN = 100
# Seconds that a sender who got no room waits to learn for whom.
_BEHIND_LIMIT = 0.1
_CLOSED = 'the driver was closed'


class Outbox:
    """The sending thread of one driver in one process.

    :param socket_factory: sockets.Sockets

    Thread: any for the public methods, outbox for the rest.
    """

    def __init__(self, socket_factory, settings, registry, counters, name):
        self._limit = settings.outbox_limit
        self._registry = registry
        # Its own: settled ids speak for the messages of one outbox.
        self._new_id = wire.id_maker()
        # Deliveries that were accepted, and what else is to be done.
        self._inbox = collections.deque()
        self._destinations = {}
        self._refusal = None
        self._finished = False
        self._next_tick = self._next_forgetting = self._turned_at = 0.0
        with contextlib.ExitStack() as undo:
            self._wakeup = mailbox.Wakeup()
            undo.callback(self._wakeup.close)
            self._epoll = select.epoll()
            undo.callback(self._epoll.close)
            self._epoll.register(self._wakeup.fd, select.EPOLLIN)
            self._custody = custody.Custody(socket_factory, settings, registry,
                                            counters, self._epoll, self._tell)
            undo.pop_all()
        self._flushers = flushes.Flushes(self._custody, self.pending)
        self._loop = threads.Loop(name, self._turn, self._wakeup.set,
                                  counters, finish=self._finish)

    def post(self, delivery, room_deadline):
        """Take a message into custody.

        :param room_deadline: monotonic seconds for which to wait for room
            when a living service is slow
        :raises: descriptors.Short when there are no threads to be had for it
        :returns: None, or why it was not taken
        """
        if self._refusal:
            return self._refusal
        delivery.id = self._new_id()
        self._start()
        if self._has_room(delivery.topic):
            self._tell(delivery)
            problem = None
        else:
            problem = self._post_when_there_is_room(delivery, room_deadline)
        # Looked at last, so that nothing is posted behind the thread's end.
        return self._refusal or _CLOSED if self._finished else problem

    def _start(self):
        # The directory's as well, before anything is accepted: this thread
        # must not find that there is none to be had.
        self._registry.start()
        self._loop.start()

    def _has_room(self, topic):
        pending = self._pending_for(topic)
        # The inbox is counted only near the limit.
        return (pending + len(self._inbox) < self._limit
                or pending < self._limit and pending + sum(
                    each.topic.key == topic.key for each in self._posted())
                < self._limit)

    def _post_when_there_is_room(self, delivery, deadline):
        if not threads.may_wait():
            return (f'no room in the outbox: {self._limit} messages wait for '
                    f'{delivery.topic}, and this thread of the driver must '
                    'not wait for them')
        if not self._gets_into_the_line(deadline):
            return ('no room in the outbox within rpc_cast_timeout: it is '
                    f'behind itself, {len(self._inbox)} messages and '
                    'questions wait for its thread')
        admission = deliveries.Admission(functools.partial(self._call_again,
                                                     delivery))
        self._tell(functools.partial(self._admit, delivery, admission))
        if admission.wait(deadline):
            return admission.refusal
        return ('no room in the outbox within rpc_cast_timeout: '
                f'{self._pending_for(delivery.topic)} messages wait for '
                f'{delivery.topic}, its services are too slow'
                f'{self._who_is_behind(delivery.topic)} '
                '(rpc_zmq_outbox_limit)')

    def _who_is_behind(self, topic):
        """The services for which the most messages wait, as text."""
        answer = queue.SimpleQueue()
        self._tell(lambda: answer.put(self._custody.behind(topic)))
        try:
            found = answer.get(timeout=_BEHIND_LIMIT)
        except queue.Empty:
            return ''       # its thread is behind as well
        return f': {found}' if found else ''

    def _gets_into_the_line(self, deadline):
        in_line_at = time.monotonic() + _INBOX_WAIT
        while (len(self._inbox) > _INBOX_LIMIT
               and time.monotonic() < in_line_at):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)
        return True

    def withdraw(self, delivery):
        """Nobody waits for this message any more; forget it."""
        self._tell(functools.partial(self._custody.withdraw, delivery))

    @contextlib.contextmanager
    def watch(self, instance, message_id):
        """Ask an instance now and then whether it still has a call.

        :returns: a context manager; entered it gives a delivery.Watch
        """
        watch = deliveries.Watch(instance, message_id)
        with contextlib.suppress(descriptors.Short):
            self._start()       # else its caller waits for its time
        try:
            self._tell(functools.partial(self._custody.watch, watch))
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
        if self._loop.is_current():
            return self._custody.survey()
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
        # In this order: whoever leaves the inbox was counted before.
        in_inbox = sum(1 for _ in self._posted())
        return in_inbox + sum(destination.pending for destination
                              in list(self._destinations.values()))

    def begin_flush(self, deadline, until=math.inf):
        """Hurry to deliver what is in custody.

        :param deadline: monotonic seconds, when the hurry ends
        :param until: only what was posted before, in monotonic seconds
        :returns: client.flushes.Flush
        """
        flush = flushes.Flush(deadline, until)
        self._tell(lambda: self._flushers.add(flush))
        # It may have been short of threads when something was posted.
        with contextlib.suppress(descriptors.Short):
            if self.pending():
                self._start()
        # Nobody waits for a thread that has nothing to do, was never started,
        # has ended, or would wait for itself.
        if (not self.pending() or self._finished or self._loop.is_current()):
            flush.has_ended = True
        return flush

    def refuse(self, reason):
        """Take no more messages, also of those who wait for room."""
        self._refusal = reason
        self._tell(self._refuse_all)

    def stop(self):
        self._loop.stop()

    def join(self, deadline):
        """:param deadline: monotonic seconds"""
        return self._loop.join(deadline)

    def _pending_for(self, topic):
        destination = self._destinations.get(topic.key)
        return destination.pending if destination else 0

    def _posted(self):
        # One step, which no other thread can interrupt: list() of a deque.
        return [each for each in list(self._inbox)
                if type(each) is deliveries.Delivery]

    def _tell(self, task):
        self._inbox.append(task)
        self._wakeup.set()

    # The outbox thread

    def _turn(self):
        wait = self._time_to_wait()
        ready = self._epoll.poll(wait)
        self._wakeup.clear_if(ready)
        self._custody.pump(ready)
        for _ in range(min(len(self._inbox), _TASKS_PER_TURN)):
            self._do_next()
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
        self._flushers.look(now)

    def _do_next(self):
        task = self._inbox[0]
        if type(task) is deliveries.Delivery:
            # Before it leaves the inbox, so that pending() knows it always.
            self._count(task)
            self._inbox.popleft()
            self._custody.route(task)
        else:
            self._inbox.popleft()()

    def _count(self, delivery):
        delivery.destination = self._destination(delivery.topic)
        delivery.destination.add(1)

    def _destination(self, topic):
        destination = self._destinations.get(topic.key)
        if destination is None:
            destination = deliveries.Destination(self._limit)
            self._destinations[topic.key] = destination
        return destination

    def _call_again(self, delivery, admission):
        # Later: this is called wherever a message ends.
        self._tell(functools.partial(self._admit, delivery, admission))

    def _admit(self, delivery, admission):
        """A sender wants room for this message."""
        destination = self._destination(delivery.topic)
        if self._refusal or self._finished:
            admission.refuse(self._refusal or _CLOSED)
        elif destination.is_full():
            if not admission.abandoned:
                self._custody.make_room(destination, admission)
        elif admission.admit():
            self._count(delivery)
            self._custody.route(delivery)
        else:
            destination.call_next()

    def _refuse_all(self):
        for destination in self._destinations.values():
            destination.refuse_all(self._refusal or _CLOSED)

    def _time_to_wait(self):
        if self._inbox:
            return 0.0
        if self._flushers:
            return flushes.LOOK_EVERY
        return _IDLE_TICK if self._custody.is_empty() else _TICK

    def _forget_idle_destinations(self):
        for key, destination in list(self._destinations.items()):
            if destination.is_idle():
                del self._destinations[key]

    def _finish(self):
        self._finished = True
        while self._inbox:
            self._do_next()
        self._refuse_all()
        self._custody.close()
        self._flushers.end_all()
        self._epoll.close()
        self._wakeup.close()
