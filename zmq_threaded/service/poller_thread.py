# SPDX-License-Identifier: Apache-2.0
"""The thread that reads for the services of a process.

A thread for each service would be simpler. But a fanout reaches all services
of a process at once, and a thread that is woken has to wait for the GIL: it
looks every 5 ms whether it may have it. Where hundreds of threads do so, that
alone takes more time than all the work, and a fanout to 1,000 services took
seconds. So one thread serves them in turn.
"""

import collections
import math
import time

from zmq_threaded import mailbox
from zmq_threaded import threads

# Seconds after which each service has a turn, whether it was woken or not: to
# look after itself. The wake-ups are complete; this also bounds the harm of a
# bug.
_TICK = 0.9


class Inbox:
    """What a PolledMailbox is for a thread, this is for one of the services
    that share the thread.

    :ivar items: deque of what was put; only the poller thread takes from it
    :ivar thread: the PollerThread, None before the service has one

    Thread: any for put() and wake(), which are safe in a signal handler;
    poller for the rest.
    """

    def __init__(self):
        self.items = collections.deque()
        self.thread = None
        self._member = None

    def enter(self, thread, member):
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

    def put(self, item):
        """Add an item behind all others, and wake the service."""
        self.items.append(item)
        self.wake()

    def wake(self):
        """Let the service have a turn."""
        if self.thread is not None:
            self.thread.wake(self._member)

    def is_current(self):
        """Whether the caller is the poller thread."""
        return self.thread is not None and self.thread.is_current()


class PollerThread:
    """Gives a turn to each service for which there is something to do.

    A service here is an object with a descriptor `fd`; with `turn()`, which
    returns the seconds until its next turn, whether it is woken or not;
    `is_stopping`; and `finish()`, which is called when that is true and ends
    its membership.

    Thread: any for the public methods, poller for the rest.
    """

    def __init__(self, name, counters):
        self._members = {}
        self._due_at = {}
        self._next_tick = 0.0
        self._mailbox = mailbox.PolledMailbox()
        self.watch, self.unwatch = self._mailbox.watch, self._mailbox.unwatch
        # Gives a member a turn. Safe in a signal handler.
        self.wake = self._mailbox.put
        self._loop = threads.Loop(name, self._turn, self._mailbox.wake,
                                  counters, finish=self._mailbox.close)

    def add(self, member):
        """:raises: descriptors.Short when there is no thread to be had"""
        self._loop.start()
        self._members[member.fd] = member
        self.watch(member.fd)
        self.wake(member)

    def is_current(self):
        """Whether the caller is this thread."""
        return self._loop.is_current()

    def stop(self):
        """End the thread, which has no members any more."""
        self._loop.stop()

    def join(self, deadline):
        """:param deadline: monotonic seconds"""
        return self._loop.join(deadline)

    def _turn(self):
        due = self._woken(self._mailbox.wait(self._time_to_wait()))
        if self._due_at or time.monotonic() >= self._next_tick:
            self._add_overdue(due)
        if len(due) == 1:
            return self._serve(*due)
        threads.do_all([lambda member=member: self._serve(member)
                        for member in due])

    def _woken(self, ready):
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
            self._next_tick = now + _TICK
            due.update(dict.fromkeys(list(self._members.values())))

    def _serve(self, member):
        if self._members.get(member.fd) is not member:
            return      # it was woken once more at its end
        if member.is_stopping:
            del self._members[member.fd]
            self._due_at.pop(member, None)
            return member.finish()
        left = member.turn()
        if left < math.inf:
            self._due_at[member] = time.monotonic() + left
        elif self._due_at:
            self._due_at.pop(member, None)

    def _time_to_wait(self):
        at = min(self._next_tick, *self._due_at.values(), math.inf)
        return max(0.0, at - time.monotonic())
