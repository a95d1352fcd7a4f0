# SPDX-License-Identifier: Apache-2.0
"""The thread that writes for a service, or for many of them, for the reason
that poller_thread.py gives.
"""

import functools
import time
from collections.abc import Iterable
from typing import Protocol

from zmq_threaded import counters as counts
from zmq_threaded import mailbox
from zmq_threaded import threads
from zmq_threaded import timings
from zmq_threaded.net import slow_clients


class Member(Protocol):
    """A service, as this thread sees it.

    :ivar is_stopping: whether it is to be let go of

    Thread: reply.
    """

    is_stopping: bool

    def turn(self) -> None:
        """Write what there is."""

    def is_behind(self) -> bool:
        """Whether a client is to be tried again soon."""

    def finish(self) -> None:
        """Write what is left; the thread has let go of it."""


class ReplyThread:
    """Gives a turn to each service that has something to write.

    Besides, each has one every STALL_TICK, to see whether the process stood
    still.

    Thread: any for the public methods, reply for the rest.
    """

    def __init__(self, name: str, counters: counts.Counters) -> None:
        self._members: dict[Member, None] = {}
        self._behind: dict[Member, None] = {}
        self._next_tick = self._next_retry = 0.0
        # Polled, though it waits for nothing else: who wakes it gives up the
        # GIL meanwhile. Woken by a queue it would find the GIL taken, and wait
        # a second time.
        self._mailbox = mailbox.PolledMailbox()
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
        self._members[member] = None

    def _turn(self):
        self._mailbox.wait(self._time_to_wait())
        items = self._mailbox.items
        while items:
            self._serve(items.popleft())
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + timings.STALL_TICK
            self._serve_all(list(self._members))
        elif self._behind and now >= self._next_retry:
            self._next_retry = now + slow_clients.TICK
            self._serve_all(list(self._behind))

    def _serve_all(self, members: Iterable[Member]) -> None:
        threads.do_all([functools.partial(self._serve, member)
                        for member in members])

    def _serve(self, member: Member) -> None:
        if member not in self._members:
            return      # it was woken once more at its end
        if member.is_stopping:
            del self._members[member]
            self._behind.pop(member, None)
            member.finish()
            return
        member.turn()
        if member.is_behind():
            self._behind[member] = None
        elif self._behind:
            self._behind.pop(member, None)

    def _time_to_wait(self):
        if self._mailbox.items:
            return 0.0      # an error has come between
        at = self._next_tick
        if self._behind:
            at = min(at, self._next_retry)
        return max(0.0, at - time.monotonic())
