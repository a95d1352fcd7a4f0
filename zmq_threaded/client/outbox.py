# SPDX-License-Identifier: Apache-2.0
"""The outbox: one thread that keeps every message until it is acknowledged.

Casts, fanouts and calls that may get more than one message go over DEALER
sockets, all owned by this thread. A sender only appends to the inbox, in one
step: whatever exception ends the sender, a message is there or not.
"""

import contextlib
import functools
import math
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from zmq_threaded import errors
from zmq_threaded import mailbox
from zmq_threaded import threads
from zmq_threaded import timings
from zmq_threaded import wire
from zmq_threaded.client import custody
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import flushes
from zmq_threaded.client import overdue
from zmq_threaded.client import room
from zmq_threaded.net import descriptors
from zmq_threaded.registry import record

_TICK, _IDLE_TICK = timings.OUTBOX_TICK, timings.OUTBOX_IDLE_TICK
_FORGET_EVERY, _POLL = 60.0, 0.002
# Senders without the time to wait could ask for room faster than the thread
# can answer. Who has waited for so many seconds gets into the line anyway.
_INBOX_LIMIT, _INBOX_WAIT = 1000, 1.0
_STALLED = timings.OUTBOX_STALL
# Senders in full spate must not keep the thread from reading what arrives:
# acknowledgements that lie unread when a connection breaks are lost with it.
_TASKS_PER_TURN = 100
# Seconds that a sender who got no room waits to learn for whom.
_BEHIND_LIMIT = 0.1
_CLOSED = 'the driver was closed'


class Outbox:
    """The sending thread of one driver in one process.

    :param socket_factory: sockets.Sockets
    :param name: of the thread
    :param journals_for: makes its Journals; see journal.journals
    :ivar journals: journal.journals.Journals

    Thread: any for the public methods, outbox for the rest.
    """

    def __init__(self, socket_factory, settings, registry, counters, name,
                 journals_for):
        self._limit = settings.outbox_limit
        self._registry = registry
        # Its own: settled ids speak for the messages of one outbox alone.
        self._new_id = wire.id_maker()
        maker = wire.maker(self._new_id())
        self._destinations = room.Destinations()
        self._refusal: str | None = None
        self._finished = False
        self._next_tick = self._next_forgetting = self._turned_at = 0.0
        self._mailbox = mailbox.PolledMailbox()
        self._inbox = self._mailbox.items
        with contextlib.ExitStack() as undo:
            undo.callback(self._mailbox.close)
            self.journals = journals_for(maker, self._tell)
            self._custody = custody.Custody(
                socket_factory, settings, registry, counters, self._mailbox,
                self._tell, maker, self.journals)
            undo.pop_all()
        self._flushers = flushes.Flushes(self._custody, self.pending,
                                         self._posted)
        self._loop = threads.Loop(name, self._turn, self._mailbox.wake,
                                  counters, finish=self._finish)

    def post(self, delivery: deliveries.Delivery,
             room_deadline: float) -> None:
        """Take a message into custody.

        :param room_deadline: monotonic seconds for which to wait for room
            when a living service is slow
        :raises: errors.NotAccepted; descriptors.Short when there are no
            threads to be had for it
        """
        if self._refusal:
            raise errors.NotAccepted(self._refusal)
        delivery.id = self._new_id()
        self.start()
        if self.journals.keeps:
            self.journals.post(delivery, room_deadline, self._post)
        else:
            self._post(delivery, room_deadline)

    def _post(self, delivery, room_deadline):
        if self._has_room(delivery.topic):
            self._tell(delivery)
        else:
            self._post_when_there_is_room(delivery, room_deadline)
        # Looked at last, so that nothing is posted behind the thread's end.
        if self._finished:
            raise errors.NotAccepted(self._refusal or _CLOSED)

    def start(self) -> None:
        """Start the threads that it needs; descriptors.Short is raised."""
        # Both threads, before a message is accepted that would need them.
        self._registry.start()
        self._loop.start()

    def _has_room(self, topic):
        pending = self._destinations.pending_for(topic)
        # The inbox is counted only near the limit.
        return (pending + len(self._inbox) < self._limit
                or pending < self._limit and pending + sum(
                    each.topic.key == topic.key for each in self._posted())
                < self._limit)

    def _post_when_there_is_room(self, delivery, deadline):
        if not threads.may_wait():
            raise errors.NotAccepted(room.may_not_wait(delivery.topic,
                                                       self._limit))
        if not self._gets_into_the_line(deadline):
            raise errors.NotAccepted(room.outbox_is_behind(len(self._inbox)))
        admission = room.Admission(functools.partial(self._ask_for_room,
                                                     delivery))
        admission.call()
        if not admission.wait(deadline):
            raise errors.NotAccepted(room.services_are_slow(
                delivery.topic, self._destinations.pending_for(delivery.topic),
                mailbox.ask(self._tell, lambda: self._custody.store.behind(
                    delivery.topic), _BEHIND_LIMIT, '')))
        if admission.refusal:
            raise errors.NotAccepted(admission.refusal)

    def _gets_into_the_line(self, deadline):
        in_line_at = time.monotonic() + _INBOX_WAIT
        while (len(self._inbox) > _INBOX_LIMIT
               and time.monotonic() < in_line_at):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)
        return True

    def withdraw(self, delivery: deliveries.Delivery) -> None:
        """Forget a message: nobody waits for it any more."""
        self._tell(functools.partial(self._custody.withdraw, delivery))

    @contextlib.contextmanager
    def watch(self, instance: record.Instance, message_id: bytes
              ) -> Iterator[deliveries.Watch]:
        """Ask an instance now and then whether it still has a call.

        :returns: a context manager that gives a delivery.Watch
        """
        watch = deliveries.Watch(instance, message_id)
        with contextlib.suppress(descriptors.Short):
            self.start()       # else its caller waits for its time
        try:
            self._tell(functools.partial(self._custody.watch, watch))
            yield watch
        finally:
            self._tell(functools.partial(self._custody.unwatch, watch))

    def survey(self, timeout: float) -> dict[str, dict]:
        """What is not acknowledged; see Custody.survey().

        :param timeout: seconds to wait for the thread
        :raises: errors.MessagingTimeout
        """
        if not self.pending() and not self.journals.is_adopting():
            return {}
        if self._loop.is_current():
            return self._custody.survey()
        found = mailbox.ask(self._tell, self._custody.survey, timeout)
        if found is None:
            raise errors.MessagingTimeout(
                f'The outbox, which holds {self.pending()} messages, did not '
                f'say within {timeout} s which')
        return found

    def mute(self) -> list[overdue.Overdue]:
        """Who is listed, and has not taken messages for long."""
        return self._custody.mute if self.pending() else []

    def turned_at(self) -> float:
        """When the thread had its last turn, in monotonic seconds; inf
        before the first one.
        """
        return self._turned_at or math.inf

    def ask_pending(self, answer: Callable[[list[dict[str, Any]]], object]
                    ) -> None:
        """Have the thread say what is not acknowledged.

        :param answer: called with what Store.pending() returns
        """
        self._tell(lambda: answer(self._custody.store.pending(
            time.monotonic())))

    def pending(self) -> int:
        """How many messages are in custody."""
        # In this order: what leaves the inbox was counted before.
        return len(self._posted()) + self._destinations.pending()

    def begin_flush(self, deadline: float, until: float = math.inf
                    ) -> flushes.Flush:
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
                self.start()
        # Nobody waits for a thread that has nothing to do, has ended, or would
        # wait for itself.
        if not self.pending() or self._finished or self._loop.is_current():
            flush.end()
        return flush

    def refuse(self, reason: str) -> None:
        """Take no more messages, also of those who wait for room."""
        self._refusal = reason
        self._tell(self._refuse_all)

    def stop(self) -> None:
        """End the thread soon."""
        self._loop.stop()

    def join(self, deadline: float) -> bool:
        """Whether the thread has ended by then, in monotonic seconds."""
        return self._loop.join(deadline)

    def _posted(self):
        # One step, which no other thread can interrupt: list() of a deque.
        return [each for each in list(self._inbox)
                if type(each) is deliveries.Delivery]

    def _tell(self, task):
        self._mailbox.put(task)

    # The outbox thread

    def _turn(self):
        wait = self._time_to_wait()
        self._custody.pump(self._mailbox.wait(wait))
        for _ in range(min(len(self._inbox), _TASKS_PER_TURN)):
            self._do_next()
        self._custody.pump_queued()
        now = time.monotonic()
        if now - self._turned_at > wait + _STALLED:
            self._custody.had_stalled(now)
        self._turned_at = now
        if now >= self._next_tick:
            self._next_tick = now + _TICK
            self._custody.tick(now)
        if now >= self._next_forgetting:
            self._next_forgetting = now + _FORGET_EVERY
            self._destinations.forget_idle()
        self._flushers.look(now)

    def _do_next(self):
        task = self._inbox[0]
        if type(task) is deliveries.Delivery:
            # Before the message leaves the inbox: pending() always knows it.
            self._count(task)
            self._inbox.popleft()
            self._custody.route(task)
        else:
            self._inbox.popleft()()

    def _count(self, delivery):
        delivery.destination = self._destinations.of(delivery.topic,
                                                     self._limit)
        delivery.destination.add(1)

    def _ask_for_room(self, delivery, admission):
        # Later: this is called wherever a message ends.
        self._tell(functools.partial(self._admit, delivery, admission))

    def _admit(self, delivery, admission):
        """A sender wants room for this message."""
        destination = self._destinations.of(delivery.topic, self._limit)
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
        self._destinations.refuse_all(self._refusal or _CLOSED)

    def _time_to_wait(self):
        if self._inbox:
            return 0.0
        if self._flushers:
            return flushes.LOOK_EVERY
        return _IDLE_TICK if self._custody.is_empty() else _TICK

    def _finish(self):
        self._finished = True
        while self._inbox:
            self._do_next()
        self._refuse_all()
        self._custody.close()
        self._flushers.end_all()
        self._mailbox.close()
