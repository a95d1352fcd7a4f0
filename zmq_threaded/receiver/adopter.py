# SPDX-License-Identifier: Apache-2.0
"""Takes over the journals of a node on which nobody else does.

A receiver sends no messages of its own. But on its node it may be the last
process of ours: so it makes a driver's parts when a journal has been without
an owner for a while, and closes them when there is nothing left to send.
"""

import contextlib
import threading
import time
from typing import Any

from zmq_threaded import logs
from zmq_threaded import options
from zmq_threaded import threads
from zmq_threaded.journal import guard
from zmq_threaded.journal import locks
from zmq_threaded.journal import place as places

LOG = logs.get(__name__)

# Seconds between two looks. A service looks every second, so it comes first.
_EVERY = 2.0
# Looks without anything to do until the parts are closed; seconds until it is
# tried again to make them; and of the end.
_IDLE, _AGAIN, _JOIN_LIMIT = 5, 60.0, 10.0


class Adopter:
    """Looks for journals that nobody adopts, and has them sent.

    :param settings: of the receiver; only the journals of its registry count

    Thread: any for start() and stop(), which are called once; one of its own
    (zmq-adopter) for the rest.
    """

    def __init__(self, settings: options.Settings, ipc_dir: str) -> None:
        self._settings = settings
        self._place = places.of(settings, ipc_dir)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        # Those that had no owner at the last look.
        self._left: set[str] = set()
        # A runtime.Runtime, while there is something to adopt.
        self._parts: Any = None
        self._idle, self._next_try = 0, 0.0

    def start(self) -> None:
        """Start the thread.

        :raises: descriptors.Short
        """
        self._thread = threads.started(self._run, 'zmq-adopter')

    def stop(self) -> None:
        """End the thread and what it has made, within seconds. What was not
        delivered stays in its journal.
        """
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_JOIN_LIMIT)

    def _run(self) -> None:
        while not self._ended.wait(_EVERY):
            try:
                self._look()
            except Exception as error:
                self._next_try = time.monotonic() + _AGAIN
                LOG.error('The journals in %s that have no owner are not '
                          'adopted by this receiver: %s. It tries again in '
                          '%.0f s', self._place.path, error, _AGAIN,
                          exc_info=not isinstance(error,
                                                  options.InvalidOption))
        self._close()

    def _look(self) -> None:
        if time.monotonic() < self._next_try:
            return
        left = set(filter(_has_no_owner, self._place.journals()))
        lasting, self._left = left & self._left, left
        if self._parts is None:
            if not lasting:
                return
            self._parts = _parts(self._settings)
            LOG.info('zmq: nobody else adopts %d journals in %s; this '
                     'receiver does', len(lasting), self._place.path)
        outbox = self._parts.outbox
        outbox.journals.look_around(outbox.start)
        self._idle = (0 if left or outbox.journals.is_adopting()
                      or outbox.pending() else self._idle + 1)
        if self._idle >= _IDLE:
            LOG.info('zmq: nothing is left in the journals in %s that this '
                     'receiver adopted', self._place.path)
            self._close()

    def _close(self) -> None:
        parts, self._parts, self._idle = self._parts, None, 0
        if parts is not None:
            parts.close(time.monotonic())


def _has_no_owner(journal: str) -> bool:
    # Whoever may not open it may not adopt it.
    with contextlib.suppress(OSError):
        return (not guard.is_inherited(journal)
                and locks.owner(places.lock_of(journal)) is None)
    return False


def _parts(settings: options.Settings) -> Any:
    """The parts of a driver.

    :raises: options.InvalidOption, descriptors.Short
    """
    # Only now: a receiver does without what they need.
    threads.without_eventlet()
    from zmq_threaded import runtime
    return runtime.Runtime(settings)
