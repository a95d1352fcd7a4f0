# SPDX-License-Identifier: Apache-2.0
"""The thread that reads for a service, or for many of them.

A thread for each service is the rule. But a fanout reaches all services of a
process at once, and a thread that is woken has to wait for the GIL: it looks
every 5 ms whether it may have it. Where hundreds of threads do so, that alone
takes more time than all the work, and a fanout to 1,000 services took
seconds. So one thread serves those beyond the first few in turn.
"""

import collections
import functools
import math
import time
from collections.abc import Iterable
from typing import Any
from typing import Protocol

from zmq_threaded import counters as counts
from zmq_threaded import mailbox
from zmq_threaded import threads
from zmq_threaded import timings


class Member(Protocol):
    """A service, as this thread sees it.

    :ivar fd: readable when it is to have a turn
    :ivar is_stopping: whether it is to be let go of

    Thread: poller.
    """

    fd: int
    is_stopping: bool

    def turn(self) -> float:
        """:returns: when its next turn is due by itself, in monotonic
            seconds; inf for never
        """

    def finish(self) -> None:
        """The thread has let go of it."""


class Inbox:
    """What a PolledMailbox is for a thread, this is for one of the services
    that share the thread.

    :ivar items: deque of what was put; only the poller thread takes from it
    :ivar thread: the PollerThread, None before the service has one

    Thread: any for put() and wake(), which are safe in a signal handler;
    poller for the rest.
    """

    def __init__(self) -> None:
        self.items: collections.deque[Any] = collections.deque()
        self.thread: PollerThread | None = None
        self._member: Member | None = None

    def enter(self, thread: 'PollerThread', member: Member) -> None:
        """Share a thread.

        :raises: descriptors.Short when it cannot be started; then nothing
            has changed
        """
        self._member, self.thread = member, thread
        try:
            thread.add(member)
        except BaseException:
            self.thread = None
            raise

    def put(self, item: Any) -> None:
        """Add an item behind all others, and wake the service."""
        self.items.append(item)
        self.wake()

    def wake(self) -> None:
        """Let the service have a turn."""
        if self.thread is not None and self._member is not None:
            self.thread.wake(self._member)

    def watch(self, fd: int) -> None:
        """Let the service have a turn when this descriptor is readable."""
        if self.thread is not None:
            self.thread.watch(fd)

    def unwatch(self, fd: int) -> None:
        """Undo watch()."""
        if self.thread is not None:
            self.thread.unwatch(fd)

    def is_current(self) -> bool:
        """Whether the caller is the poller thread."""
        return self.thread is not None and self.thread.is_current()


class PollerThread:
    """Gives a turn to each service for which there is something to do.

    Besides, each has one every POLLER_WAIT, to look after itself. The
    wake-ups are complete; that also bounds the harm of a bug.

    Thread: any for the public methods, poller for the rest.
    """

    def __init__(self, name: str, counters: counts.Counters) -> None:
        self._members: dict[int, Member] = {}
        self._due_at: dict[Member, float] = {}
        self._next_tick = 0.0
        self._mailbox = mailbox.PolledMailbox()
        self.watch, self.unwatch = self._mailbox.watch, self._mailbox.unwatch
        # Gives a member a turn. Safe in a signal handler.
        self.wake = self._mailbox.put
        self._loop = threads.Loop(name, self._turn, self._mailbox.wake,
                                  counters, finish=self._mailbox.close)
        self.is_current = self._loop.is_current
        # When it has no members any more.
        self.stop, self.join = self._loop.stop, self._loop.join

    def add(self, member: Member) -> None:
        """Give this service its turns from now on.

        :raises: descriptors.Short when there is no thread to be had
        """
        self._loop.start()
        self._members[member.fd] = member
        self.watch(member.fd)
        self.wake(member)

    def _turn(self):
        due = self._woken(self._mailbox.wait(self._time_to_wait()))
        if self._due_at or time.monotonic() >= self._next_tick:
            self._add_overdue(due)
        if len(due) == 1:
            self._serve(*due)
        else:
            threads.do_all([functools.partial(self._serve, member)
                            for member in due])

    def _woken(self, ready: Iterable[tuple[int, int]]) -> dict[Member, None]:
        members, items = self._members, self._mailbox.items
        woken = {members[fd]: None for fd, _ in ready if fd in members}
        while items:
            woken[items.popleft()] = None
        return woken

    def _add_overdue(self, due):
        now = time.monotonic()
        due.update(dict.fromkeys(
            [member for member, at in self._due_at.items() if at <= now]))
        if now >= self._next_tick:
            self._next_tick = now + timings.POLLER_WAIT
            due.update(dict.fromkeys(list(self._members.values())))

    def _serve(self, member: Member) -> None:
        if self._members.get(member.fd) is not member:
            return      # it was woken once more at its end
        if member.is_stopping:
            del self._members[member.fd]
            self._due_at.pop(member, None)
            member.finish()
            return
        at = member.turn()
        if at < math.inf:
            self._due_at[member] = at
        elif self._due_at:
            self._due_at.pop(member, None)

    def _time_to_wait(self):
        at = self._next_tick
        if self._due_at:
            at = min(at, *self._due_at.values())
        return max(0.0, at - time.monotonic())
