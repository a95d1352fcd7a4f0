# SPDX-License-Identifier: Apache-2.0
"""The thread that writes for the services of a process. There is one for
the reason that poller_thread.py gives.
"""

import time

from zmq_threaded import mailbox
from zmq_threaded import threads
from zmq_threaded.net import slow_clients
from zmq_threaded.service import stalls


class ReplyThread:
    """Gives a turn to each service that has something to write.

    A service here is an object with `turn()`; `is_behind()`, which says
    whether a client is to be tried again soon; `is_stopping`; and `finish()`,
    which is called when that is true and ends its membership.

    Thread: any for the public methods, reply for the rest.
    """

    def __init__(self, name, counters):
        self._members = {}
        self._behind = {}
        self._next_tick = self._next_retry = 0.0
        self._mailbox = mailbox.Mailbox()
        # Gives a member a turn. Safe in a signal handler.
        self.wake = self._mailbox.put
        self._loop = threads.Loop(name, self._turn, self._mailbox.wake,
                                  counters)

    def add(self, member):
        """:raises: descriptors.Short when there is no thread to be had"""
        self._loop.start()
        self._members[member] = None

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
        for member in self._mailbox.take(self._time_to_wait()):
            self._serve(member)
        now = time.monotonic()
        if now >= self._next_tick:
            # Each of them looks whether the process stood still.
            self._next_tick = now + stalls.Stalls.TICK
            self._serve_all(list(self._members))
        elif self._behind and now >= self._next_retry:
            self._next_retry = now + slow_clients.TICK
            self._serve_all(list(self._behind))

    def _serve_all(self, members):
        threads.do_all([lambda member=member: self._serve(member)
                        for member in members])

    def _serve(self, member):
        if member not in self._members:
            return      # it was woken once more at its end
        if member.is_stopping:
            del self._members[member]
            self._behind.pop(member, None)
            return member.finish()
        member.turn()
        if member.is_behind():
            self._behind[member] = None
        elif self._behind:
            self._behind.pop(member, None)

    def _time_to_wait(self):
        at = self._next_tick
        if self._behind:
            at = min(at, self._next_retry)
        return max(0.0, at - time.monotonic())
