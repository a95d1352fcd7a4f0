# SPDX-License-Identifier: Apache-2.0
"""What the poller thread does for one service: it is the only reader of the
ROUTER.
"""

import time
from collections.abc import Callable
from typing import Any

from zmq_threaded import counters as counts
from zmq_threaded import finished
from zmq_threaded import logs
from zmq_threaded import mailbox
from zmq_threaded import timings
from zmq_threaded.service import batch as batches
from zmq_threaded.service import outcomes
from zmq_threaded.service import poller_thread
from zmq_threaded.service import reception
from zmq_threaded.service import router

LOG = logs.get(__name__)

_READ_AT_ONCE = 64
# Messages of one turn: those that are refused take no room, and may never end.
_READ_PER_TURN = 1000
_STOP_LIMIT = 5.0


class Poller:
    """Reads requests and hands each to the executor.

    Flow control: it stops reading while the service holds as many messages
    as it may, so that its senders wait or choose other services.

    :param inbox: the mailbox of this service; its items are called
    :param taking: takes or refuses what is read
    :param ends: has requests that are given back by this thread
    :param backlog: how many messages may be held unacknowledged
    :param batch: says how many messages are handed over together
    :param tick: called about once a second
    :ivar was_full: it has stopped reading for want of room, until somebody
        else sets this back

    Thread: any for the public methods, poller for the rest.
    """

    def __init__(self, shared: router.SharedRouter,
                 inbox: poller_thread.Inbox, taking: reception.Reception,
                 ends: outcomes.Outcomes, backlog: int, batch: batches.Batch,
                 counters: counts.Counters,
                 tick: Callable[[], None] = lambda: None) -> None:
        self._router = shared
        self.fd = shared.fd
        self._mailbox = inbox
        self._reception = taking
        self._outcomes = ends
        self._counters = counters
        self._may_warn = counts.Seldom()
        self._batch = batch
        # With less, no batch would ever be full.
        self.backlog = max(backlog, batch.size)
        # Given by start(); nothing is read before.
        self._on_incoming: Any = None
        self._has_stopped_reading = False
        # Whether there is more to read that ZMQ_FD says nothing of.
        self._has_more = False
        self.was_full = False
        self._tick, self._next_tick = tick, 0.0
        self.last_read = 0.0
        self.is_stopping = False
        self._finished = finished.Finished()

    def start(self, on_incoming: Callable[[list], object],
              thread: poller_thread.PollerThread) -> None:
        """Begin to read.

        :param on_incoming: called with a list of Incoming
        :param thread: reads for this service, and perhaps for others
        :raises: descriptors.Short when there is no thread to be had
        """
        self._on_incoming = on_incoming
        self._mailbox.enter(thread, self)

    def refuse_from_now_on(self) -> None:
        """Hand over what has arrived, refuse what still comes; returns when
        no callback can follow. Safe in a signal handler.
        """
        if self._mailbox.is_current() or not self._is_running():
            self._stop_accepting()
            return
        if not mailbox.ask(self._mailbox.put, self._drain_and_refuse,
                           _STOP_LIMIT):
            # In a callback for that long. From now on it makes no other one.
            self._reception.accepting = False

    def _stop_accepting(self):
        self._reception.accepting = False
        self._outcomes.close()

    def made_room(self) -> None:
        """A message is no longer held: there may be room again.

        Thread: any.
        """
        if self._has_stopped_reading and self._has_room_to_resume():
            self._mailbox.wake()

    def stop(self) -> None:
        """Ask the thread to let go of this service; does not wait."""
        self.is_stopping = True
        if self._mailbox.thread is None:
            self.finish()
        else:
            self._mailbox.wake()

    def join(self, deadline: float) -> bool:
        """Wait until the thread has let go of this service.

        :param deadline: monotonic seconds
        :returns: False when it has not
        """
        return self._mailbox.is_current() or self._finished.wait(deadline)

    def finish(self) -> None:
        """The last act of the thread for this service."""
        try:
            self._stop_accepting()
        finally:
            self._finished.set()

    def _is_running(self):
        return (self._mailbox.thread is not None
                and not self._finished.is_set())

    def turn(self) -> float:
        """Do what is due.

        :returns: when the next turn is due by itself, in monotonic seconds;
            inf for never
        """
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + timings.POLLER_TICK
            self._tick()
        due_at = self._outcomes.turn()
        self._read()
        if self._batch.due_at <= now:
            self._hand_over(self._batch.take())
        while self._mailbox.items:
            self._mailbox.items.popleft()()
        if self._has_more:
            return now
        return min(self._batch.due_at, due_at)

    def _has_room_to_resume(self):
        # Not at the first place that is free: that would be a wake-up and a
        # system call for every message of a saturated service.
        return len(self._reception.held) <= self.backlog * 3 // 4

    def _read(self, left=_READ_PER_TURN):
        """:param left: messages to read at the most"""
        if (self._has_stopped_reading and self._reception.accepting
                and not self._has_room_to_resume()):
            return
        # Before the drain: from here on the writer tells of what arrives.
        self._router.is_read = True
        room, self._has_more = self._room(), False
        while room > 0:
            if left <= 0:
                self._has_more = True
                break
            limit = min(room, left, _READ_AT_ONCE)
            received = self._router.receive(limit)
            if received:
                self.last_read = time.monotonic()
            left -= len(received)
            for frames in received:
                self._handle(frames)
            if len(received) < limit:
                if not self._router.is_behind():
                    self._reception.drained()
                break
            room = self._room()
        self._control_flow(room <= 0)

    def _room(self):
        if not self._reception.accepting:
            return _READ_AT_ONCE
        return self.backlog - len(self._reception.held)

    def _control_flow(self, is_full):
        """Stop reading, or read on.

        :param is_full: whether the service holds as much as it may
        """
        if is_full == self._has_stopped_reading:
            return
        self._has_stopped_reading = is_full
        if not is_full:
            self._mailbox.watch(self.fd)
            return
        self.was_full = True
        # Left in, a readable descriptor that nobody reads would spin.
        self._router.is_read = False
        self._mailbox.unwatch(self.fd)
        # Who acknowledged before the flag was up has not woken us.
        self.made_room()

    def is_full(self) -> bool:
        """Whether flow control has stopped the reading, for want of room."""
        return self._has_stopped_reading

    def _handle(self, frames):
        try:
            incoming = self._reception.admit(frames)
        except Exception:
            # The others that were read with it must not go with it.
            self._counters.add('loop_errors')
            LOG.exception('A message was lost by an unexpected error')
            return
        if incoming is not None:
            self._hand_over(self._batch.add(incoming))

    def _hand_over(self, messages):
        if not messages:
            return
        try:
            self._on_incoming(messages)
        except BaseException as error:
            if self._may_warn.allows():
                LOG.error(
                    '%d messages could not be handed to the executor; their '
                    'senders will choose again (more of them are only counted '
                    'for a while, as refused_busy)', len(messages),
                    exc_info=error)
            for incoming in messages:
                incoming.refuse_busy()

    def _drain_and_refuse(self):
        # What has arrived, as far as there is room.
        self._read(max(self.backlog, _READ_PER_TURN))
        self._hand_over(self._batch.take())
        self._stop_accepting()
        # What is over the backlog is refused now, not when there is room.
        self._read()
        return True
