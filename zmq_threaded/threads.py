# SPDX-License-Identifier: Apache-2.0
"""Threads that start, stop and survive alike; and how to wake one.

Nothing here is created at import, and everything belongs to the process that
made it: a forked child drops the parent's objects without using them.
"""

import itertools
import os
import threading
import time

from zmq_threaded import logs

LOG = logs.get(__name__)

_PAUSE_AFTER_ERROR = 0.1


class Wakeup:
    """An eventfd that interrupts an epoll; any number of set() is one event.

    Thread: any for set(), which is safe in a signal handler; the rest belongs
    to the thread that waits.
    """

    def __init__(self):
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._signalled = False
        # Reentrant: a signal handler may interrupt its own thread in set().
        self._lock = threading.RLock()

    def set(self):
        if not self._signalled:
            with self._lock:
                if self.fd is not None:
                    self._signalled = True
                    os.eventfd_write(self.fd, 1)

    def clear_if(self, ready):
        """Take back what was set; to be called before looking for work,
        never after.

        :param ready: what epoll returned
        """
        if not any(fd == self.fd for fd, _ in ready):
            return
        os.eventfd_read(self.fd)
        # Only after the read: a set() in between has its work in place and
        # may stay silent; the other order would leave the flag set for ever.
        self._signalled = False

    def close(self):
        """Later calls of set() do nothing; without the lock they could write
        to whatever got this number next.
        """
        with self._lock:
            fd, self.fd = self.fd, None
        if fd is not None:
            os.close(fd)


def wait_for_quiet(last_moved, quiet, limit):
    """Wait until nothing has moved for a while.

    :param last_moved: returns when something did, in monotonic seconds
    :param quiet: seconds without a move, from now at the earliest
    :param limit: seconds to wait at the most
    """
    began = time.monotonic()
    while (time.monotonic() < began + limit
           and time.monotonic() - max(began, last_moved()) < quiet):
        time.sleep(quiet / 5)


class Loop:
    """A named daemon thread that repeats one turn until it is stopped.

    An exception in a turn is logged and counted, and the loop goes on.

    :param turn: what to repeat; it blocks for a bounded time, or until wake()
    :param wake: makes a blocked turn return; safe in a signal handler
    :param finish: run by the thread as its last act (closing its sockets)

    Thread: any.
    """

    def __init__(self, name, turn, wake, counters, finish=None):
        self._turn = turn
        self._wake = wake
        self._finish = finish
        self._counters = counters
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name,
                                        daemon=True)
        self._claims = itertools.count()
        self._begun = False

    def start(self):
        """Start the thread; by any number of threads, it happens once, and
        not at all after stop().
        """
        if self._begun or self._stopping or next(self._claims):
            return
        self._begun = True
        self._thread.start()

    def stop(self):
        """Ask the thread to end; does not wait. Twice is fine. If it was
        never started, its last act is done here.
        """
        self._stopping = True
        # Read once: the thread may end, and drop it, at any time.
        wake = self._wake
        if not next(self._claims):
            self._end()
        elif wake:
            wake()

    def join(self, deadline):
        """Wait for the end of a stopped thread.

        :param deadline: monotonic seconds
        :returns: False when it still runs
        """
        if not self._begun or self.is_current():
            return True
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            LOG.warning('Thread %s did not end in time', self._thread.name)
        return not self._thread.is_alive()

    def is_current(self):
        return threading.current_thread() is self._thread

    def is_alive(self):
        return self._thread.is_alive()

    def _run(self):
        while not self._stopping:
            self._survive(self._turn)
        self._end()

    def _end(self):
        if self._finish:
            self._survive(self._finish)
        # The owner and its Loop refer to each other; part them, so that
        # memory goes at once and not with the next garbage collection.
        self._turn = self._finish = self._wake = None

    def _survive(self, step):
        try:
            step()
        except Exception:
            self._counters.add('loop_errors')
            LOG.exception('Thread %s goes on after an unexpected error',
                          self._thread.name)
            time.sleep(_PAUSE_AFTER_ERROR)
