# SPDX-License-Identifier: Apache-2.0
"""Which threads work for which services."""

import threading

from zmq_threaded import counters as counts
from zmq_threaded.net import descriptors
from zmq_threaded.service import poller_thread
from zmq_threaded.service import reply_thread


class Crew:
    """A poller thread and a reply thread.

    :param name: by which their names end

    Thread: any.
    """

    def __init__(self, name: str, counters: counts.Counters) -> None:
        self.poller = poller_thread.PollerThread(f'zmq-poller-{name}',
                                                 counters)
        self.replies = reply_thread.ReplyThread(f'zmq-reply-{name}', counters)

    def end(self, deadline: float) -> bool:
        """To be called when nobody is left in it.

        :param deadline: monotonic seconds
        :returns: whether its threads have ended
        """
        self.poller.stop()
        self.replies.stop()
        has_ended = self.poller.join(deadline)
        return self.replies.join(deadline) and has_ended


class Crews:
    """The crews of one driver in one process.

    Services whose callbacks only pass messages on share one. A callback that
    runs handlers itself would hold up all others, or wait for one of them for
    ever; its service has a crew of its own.

    Thread: any; the lock is reentrant for the sake of signal handlers.
    """

    def __init__(self, counters: counts.Counters) -> None:
        self._counters = counters
        self._lock = threading.RLock()
        self._shared: Crew | None = None
        self._members = 0

    def join(self, name: str, may_share: bool) -> Crew:
        """The crew for a service, which has to leave() it.

        :param name: of the service, a part of the names of new threads
        :raises: descriptors.Short
        """
        try:
            if not may_share:
                return Crew(name, self._counters)
            with self._lock:
                if self._shared is None:
                    self._shared = Crew(name, self._counters)
                    self._members = 0
                self._members += 1
                return self._shared
        except OSError as error:
            raise descriptors.short(error) from None

    def leave(self, crew: Crew, deadline: float) -> bool:
        """Its threads have let go of a service; the last one ends them.

        :param deadline: monotonic seconds
        :returns: False when they ought to have ended, and did not in time
        """
        with self._lock:
            if crew is self._shared:
                self._members -= 1
                if self._members:
                    return True
                self._shared = None
        return crew.end(deadline)
