# SPDX-License-Identifier: Apache-2.0
"""Which threads work for which services."""

import threading

from zmq_threaded import counters as counts
from zmq_threaded.net import descriptors
from zmq_threaded.service import poller_thread
from zmq_threaded.service import reply_thread

# So many services of a driver have threads of their own.
OWN = 8


class Crew:
    """A poller thread and a reply thread.

    :param name: by which their names end

    Thread: any.
    """

    def __init__(self, name: str, counters: counts.Counters) -> None:
        self.poller = poller_thread.PollerThread(f'zmq-poller-{name}',
                                                 counters)
        try:
            self.replies = reply_thread.ReplyThread(f'zmq-reply-{name}',
                                                    counters)
        except BaseException:
            self.poller.stop()
            raise

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

    Each service has a crew of its own. Only where there are more than OWN
    services, those that come later share one, for the reason that
    poller_thread.py gives. A callback that runs handlers itself would hold up
    all others, or wait for one of them for ever; its service never shares.

    Thread: any; the lock is reentrant for the sake of signal handlers.
    """

    def __init__(self, counters: counts.Counters) -> None:
        self._counters = counters
        self._lock = threading.RLock()
        self._own: set[Crew] = set()
        self._shared: Crew | None = None
        self._members = 0

    def join(self, name: str, may_share: bool) -> Crew:
        """The crew for a service, which has to leave() it.

        :param name: of the service, a part of the names of new threads
        :param may_share: whether the threads may serve others as well
        :raises: descriptors.Short
        """
        try:
            with self._lock:
                if may_share and len(self._own) >= OWN:
                    return self._join_shared(name)
                crew = Crew(name, self._counters)
                self._own.add(crew)
                return crew
        except OSError as error:
            raise descriptors.short(error) from None

    def _join_shared(self, name):
        if self._shared is None:
            self._shared = Crew(name, self._counters)
            self._members = 0
        self._members += 1
        return self._shared

    def leave(self, crew: Crew, deadline: float) -> bool:
        """Its threads have let go of a service; the last one ends them.

        :param deadline: monotonic seconds
        :returns: False when they ought to have ended, and did not in time
        """
        with self._lock:
            self._own.discard(crew)
            if crew is self._shared:
                self._members -= 1
                if self._members:
                    return True
                self._shared = None
        return crew.end(deadline)
