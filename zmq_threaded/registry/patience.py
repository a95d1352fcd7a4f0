# SPDX-License-Identifier: Apache-2.0
"""Waiting only so long for what may block. The client libraries of registry
engines block for half a minute and more, whatever timeouts they are given.
"""

import queue
import time
from collections.abc import Callable
from typing import Any

from zmq_threaded import threads
from zmq_threaded.registry import troubles

# Seconds. Once something is known to be wrong, one only looks whether there is
# an answer yet.
_LITTLE_PATIENCE = 0.25
_END_LIMIT = 2.0
# Of an operation: its result, and what it raised.
_Outcome = queue.SimpleQueue[tuple[Any, Exception | None]]


class Patient:
    """Runs one operation at a time in a thread of its own.

    :param name: of the thread
    :param patience: seconds to wait for an answer, while nothing is known to
        be wrong; a large group takes seconds
    :param stuck_after: seconds after which an operation is given up for lost

    Thread: registry; any for hurry().
    """

    def __init__(self, name: str, patience: float,
                 stuck_after: float) -> None:
        self._name = name
        self._patience = patience
        self._stuck_after = stuck_after
        self._worker: _Worker | None = None
        self._hurried = False

    def run(self, operation: Callable[[], Any]) -> Any:
        """Run an operation and wait for its end.

        :raises: Unanswered; or what the operation raises
        """
        if self._worker is None:
            self._worker = _Worker(self._name)
        return self._worker.run(operation, self._time_to_wait(self._worker))

    def gave_up(self, release: Callable[[], None]) -> bool:
        """Whether the thread has been stuck in its operation for too long,
        and was left to it; the next operation has a thread of its own.

        :param release: called then, in yet another thread, for it may block
            as well; what it lets go may free the stuck one
        """
        if (self._worker is None
                or self._worker.busy_for() < self._stuck_after):
            return False
        # First: when there is no thread to be had, this is tried again.
        threads.started(release, self._name)
        self._worker.end()
        self._worker = None
        return True

    def hurry(self) -> None:
        """Wait for nothing any more, not even for what is waited for now."""
        self._hurried = True
        worker = self._worker
        if worker is not None:
            worker.interrupt()

    def finish(self, operation: Callable[[], Any]) -> None:
        """Run a last operation, and end the thread: after the operation that
        it is in, if that ever ends. Waits for a moment. Later operations are
        welcome; they have a new thread.
        """
        worker, self._worker, self._hurried = self._worker, None, False
        if worker is not None:
            worker.end(operation)

    def _time_to_wait(self, worker: '_Worker') -> float:
        if self._hurried or not worker.answers:
            return _LITTLE_PATIENCE
        return self._patience


class _Worker:
    """The thread that may block.

    :ivar answers: whether the last operation ended well

    Thread: registry; any for interrupt().
    """

    def __init__(self, name: str) -> None:
        self.answers = True
        self._late = ''
        self._busy_since: float | None = None
        self._outcome: _Outcome = queue.SimpleQueue()
        self._tasks: queue.SimpleQueue[
            tuple[Callable[[], Any], _Outcome] | None] = queue.SimpleQueue()
        self._thread = threads.started(self._work, name)

    def run(self, operation: Callable[[], Any], patience: float) -> Any:
        if self._busy_since is not None:
            raise troubles.Unanswered(
                f'no answer for {self.busy_for():.1f} s', self._late)
        # Of its own: the outcome of an earlier one may come any time.
        outcome: _Outcome = queue.SimpleQueue()
        self._outcome = outcome
        self._busy_since = time.monotonic()
        self._tasks.put((operation, outcome))
        try:
            result, error = outcome.get(timeout=patience)
        except queue.Empty:
            self.answers = False
            raise troubles.Unanswered(
                f'no answer within {patience} s', self._late) from None
        try:
            if error is not None:
                raise error
            return result
        finally:
            del error       # and its traceback refer to each other

    def busy_for(self) -> float:
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def interrupt(self) -> None:
        self._outcome.put((None, troubles.Unanswered('interrupted')))

    def end(self, operation: Callable[[], Any] = lambda: None) -> None:
        self._tasks.put((operation, queue.SimpleQueue()))
        self._tasks.put(None)
        self._thread.join(_LITTLE_PATIENCE if self._busy_since
                          else _END_LIMIT)

    def _work(self) -> None:
        for operation, outcome in iter(self._tasks.get, None):
            result = error = None
            try:
                result = operation()
            except Exception as raised:
                error = raised
            self.answers = error is None
            # As text: the error itself has hold of the connection.
            self._late = troubles.text(error) if error else ''
            self._busy_since = None
            outcome.put((result, error))
            # Not to be kept while waiting for the next.
            del operation, outcome, result, error
