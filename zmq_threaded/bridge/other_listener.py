# SPDX-License-Identifier: Apache-2.0
"""The listener of the other driver, which may be down."""

import os
import queue
import time
from collections.abc import Callable

from zmq_threaded import backoff
from zmq_threaded import logs
from zmq_threaded import threads
from zmq_threaded.bridge import other as others
from zmq_threaded.bridge import patience
from zmq_threaded.bridge import prefetched

LOG = logs.get(__name__)

THREAD = 'zmq-bridge'
# Seconds after which a service starts without the other driver.
_START_LIMIT = 5.0
_FIRST_WAIT, _LAST_WAIT, _JITTER = 0.5, 10.0, 0.2
# The rabbit driver acknowledges notifications in a thread of its own, every
# millisecond, which its cleanup() ends without a last look.
_LAST_ACKNOWLEDGEMENTS = 0.1


class OtherListener:
    """Opens, starts, stops and closes a listener of the other driver, in a
    thread of its own. If the other driver is down, the thread tries again
    until it is up, and the service goes on meanwhile.

    :param what: that is listened for, in words
    :param other: bridge.other.Other
    :param make: makes a listener; it may block as long as it likes
    :ivar listens: whether a listener has begun, and was not stopped

    Thread: any; zmq-bridge runs _run().
    """

    def __init__(self, what: str, other: others.Other,
                 make: Callable) -> None:
        self._what, self._other, self._make = what, other, make
        self.listens = False
        self._pid: int | None = None
        self._woken: queue.SimpleQueue = queue.SimpleQueue()
        self._is_stopping = self._is_closing = False
        self._was_tried = self._has_stopped = self._has_closed = False

    def start(self, callback: Callable) -> None:
        """Begin to listen; returns when the listener runs, has failed to
        open, or takes too long.

        :raises: descriptors.Short
        """
        self._pid = os.getpid()
        threads.started(self._run, THREAD, callback)
        if not patience.until(lambda: self._was_tried,
                              time.monotonic() + _START_LIMIT):
            LOG.warning('zmq: the bridge does not listen on %s for %s yet; '
                        'the service goes on without', self._other,
                        self._what)

    def begin_stop(self) -> None:
        """Ask it to take no new messages; does not wait."""
        self._is_stopping = True
        self._woken.put(None)

    def wait_until_stopped(self) -> None:
        """Wait until no callback follows, but not for ever."""
        if self._is_mine() and not self._other.patience.wait(
                lambda: self._has_stopped):
            LOG.warning('zmq: the listener of the bridge on %s for %s does '
                        'not stop; the service goes on without', self._other,
                        self._what)

    def begin_cleanup(self) -> None:
        """Ask it to close everything; does not wait."""
        self._is_stopping = self._is_closing = True
        self._woken.put(None)

    def wait_until_closed(self) -> None:
        """Wait until everything is closed, but not for ever."""
        if self._is_mine():
            self._other.patience.wait(lambda: self._has_closed)

    def _is_mine(self):
        """Not before start(), nor in a child of a fork."""
        return self._pid == os.getpid()

    # The thread

    def _run(self, callback):
        waits = backoff.Backoff(_FIRST_WAIT, _LAST_WAIT, jitter=_JITTER)
        try:
            while not self._is_stopping:
                why = self._try_to_listen(callback)
                if why:
                    self._wait_to_try_again(waits, why)
        finally:
            self._was_tried = self._has_stopped = self._has_closed = True

    def _try_to_listen(self, callback):
        """Listen until that is stopped and closed.

        :returns: why it was not begun; '' if it was, or was not to be
        """
        listener = None
        try:
            why = self._other.why_unreachable()
            if why:
                return why
            listener = self._make()
            if not self._is_stopping:
                listener.start(callback)
                self._use(listener)
                return ''
        except Exception as error:
            why = f'{type(error).__name__}: {error}'
        # Or what was made too late, or in vain, would stay.
        if listener is not None:
            self._try(listener.cleanup)
        return why

    def _wait_to_try_again(self, waits, why):
        seconds = waits.failed(time.monotonic())
        LOG.warning('zmq: the bridge cannot listen on %s for %s, trying '
                    'again in %.1f s: %s', self._other, self._what, seconds,
                    why)
        self._was_tried = True
        self._wait_for_word(seconds)

    def _use(self, listener):
        for step in (lambda: self._listen(listener), self._wait_for_closing,
                     listener.cleanup):
            self._try(step)

    def _try(self, step):
        try:
            step()
        except Exception as error:
            LOG.warning('zmq: the listener of the bridge on %s for %s ended '
                        'with an error: %s: %s', self._other, self._what,
                        type(error).__name__, error)

    def _listen(self, listener):
        try:
            self.listens = self._was_tried = True
            LOG.info('zmq: the bridge listens on %s for %s', self._other,
                     self._what)
            while not self._is_stopping:
                self._wait_for_word()
            listener.stop()
            prefetched.give_back(listener)
        finally:
            self.listens = False
            self._has_stopped = True

    def _wait_for_closing(self):
        while not self._is_closing:
            self._wait_for_word()
        time.sleep(_LAST_ACKNOWLEDGEMENTS)

    def _wait_for_word(self, seconds=None):
        try:
            self._woken.get(timeout=seconds)
        except queue.Empty:
            pass
