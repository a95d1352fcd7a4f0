# SPDX-License-Identifier: Apache-2.0
"""A pool of threads over one queue.SimpleQueue, for what futurist's is for.

futurist's own hands each task over by a queue.Queue: a lock, a condition and
a Future for each, a wake-up of each idle worker in each second, and a new
worker for each of the first tasks though others are idle. At 32 callers this
pool takes a third of the time of a call off the server.
"""

import atexit
import collections
import functools
import os
import queue
import threading
import time
import weakref
from typing import Any

import futurist

from zmq_threaded import logs

LOG = logs.get(__name__)


class _Crew:
    """What workers share with their executor; they have no hold of it, so
    that it can be collected while they wait.

    :ivar queue: of (Future or None, function, args, kwargs, monotonic seconds
        of its submission); None tells the workers to end when nothing else is
        left
    :ivar unfinished: one item for each task that is not done. Counted late by
        a worker, never early: so there may be a worker too many, but none too
        few.
    :ivar cancelled: one item for each Future that was cancelled

    Thread: any.
    """

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.unfinished: collections.deque[None] = collections.deque()
        self.cancelled: collections.deque[None] = collections.deque()

    def take(self):
        """The next task; None when there is none, and none will follow.

        Waits for one.
        """
        work = self.queue.get()
        while work is None:
            try:
                work = self.queue.get_nowait()
            except queue.Empty:
                self.queue.put(None)    # for the other workers
                return None
            if work is not None:
                self.queue.put(None)
        return work

    def discard(self):
        """Cancel what no worker has begun."""
        with_end = False
        while True:
            try:
                work = self.queue.get_nowait()
            except queue.Empty:
                break
            if work is None:
                with_end = True
                continue
            self.unfinished.pop()
            if work[0] is not None:
                work[0].cancel()
        if with_end:
            self.queue.put(None)


class _Worker(threading.Thread):
    """Runs tasks until it is told that there are no more.

    Its name is that of any thread, as with futurist's. What it counts is its
    own, and is added up when somebody asks.

    Thread: itself; any for reading the counts.
    """

    def __init__(self, crew):
        super().__init__(daemon=True)
        self._crew = crew
        self.executed = self.failures = 0
        self.runtime = 0.0

    def run(self):
        take, unfinished = self._crew.take, self._crew.unfinished
        work = take()
        while work is not None:
            self._run(*work)
            # Not kept while it waits for the next one.
            work = None
            unfinished.pop()
            work = take()

    def _run(self, future, function, args, kwargs, since):
        if future is not None and not future.set_running_or_notify_cancel():
            return
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            # SystemExit too, of which the worker would end.
            self.failures += 1
            _failed(future, error)
            # The traceback has hold of this frame.
            future = args = kwargs = None
        else:
            if future is not None:
                future.set_result(result)
        self.executed += 1
        self.runtime += time.monotonic() - since


def _failed(future, error):
    if future is not None:
        future.set_exception(error)
    else:
        LOG.error('A task of a worker ended by %s, and nobody waits for its '
                  'result; the worker goes on.', type(error).__name__,
                  exc_info=error)


class FastExecutor(futurist.ThreadPoolExecutor):
    """As futurist.ThreadPoolExecutor, but for what it costs.

    Work that is submitted and not begun is run at shutdown(wait=True), and
    cancelled at shutdown(wait=False) and at the end of the interpreter. When
    the executor is collected, its workers end after the work that is left.

    :param max_workers: threads at the most
    :param check_and_reject: called with the executor and how many tasks wait
        before each one is taken; may raise futurist.RejectedSubmission

    Thread: any; the lock is reentrant for the sake of signal handlers.
    """

    def __init__(self, max_workers=None, check_and_reject=None):
        super().__init__(max_workers, check_and_reject)
        self._check: Any = check_and_reject
        self._made_anew()
        _all.add(self)

    def _made_anew(self):
        """Without workers: in a child of a fork there are none."""
        self._shutdown_lock = threading.RLock()
        # futurist says that these are a queue.Queue and its own workers.
        self._workers: Any = []
        self._crew = _Crew()
        self._work_queue: Any = self._crew.queue
        weakref.finalize(self, self._work_queue.put, None).atexit = False

    @property
    def statistics(self):
        """futurist.ExecutorStatistics of what was submitted so far."""
        workers = list(self._workers)
        return futurist.ExecutorStatistics(
            sum(each.failures for each in workers),
            sum(each.executed for each in workers),
            sum(each.runtime for each in workers),
            len(self._crew.cancelled))

    def get_num_idle_workers(self):
        """How many workers wait for a task."""
        return max(0, len(self._workers) - len(self._crew.unfinished))

    # mypy holds it against concurrent.futures, whose `fn` has no name.
    def submit(self, fn, *args, **kwargs):  # type: ignore[override]
        """Have a function called by a worker.

        :raises: RuntimeError after shutdown(), or when a worker is needed
            and no thread can be started; RejectedSubmission
        :returns: Future
        """
        future: Any = futurist.Future()
        future.add_done_callback(functools.partial(
            _note_cancelled, self._crew.cancelled))
        self._put(future, fn, args, kwargs)
        return future

    def execute(self, fn, *args):
        """As submit(), for whoever does not want the result: without the
        Future, which costs as much as all the rest. What the function raises
        is logged.
        """
        self._put(None, fn, args, {})

    def _put(self, future, fn, args, kwargs):
        with self._shutdown_lock:
            if self._shutdown:
                raise RuntimeError('The executor was shut down, and takes no '
                                   'more work')
            crew = self._crew
            if self._check is not None:
                self._check(self, crew.queue.qsize())
            crew.unfinished.append(None)
            if len(crew.unfinished) > len(self._workers) < self._max_workers:
                self._add_worker()
            crew.queue.put((future, fn, args, kwargs, time.monotonic()))
            if self._shutdown:
                # By a signal handler, which may have waited for the workers.
                self._discard_if_ended()

    def _add_worker(self):
        worker = _Worker(self._crew)
        try:
            worker.start()
        except BaseException:
            self._crew.unfinished.pop()
            raise
        self._workers.append(worker)

    def _discard_if_ended(self):
        if not any(each.is_alive() for each in self._workers):
            self._crew.discard()

    def shutdown(self, wait=True, *, cancel_futures=False):
        """Take no more work.

        :param wait: until all that was submitted is done, and the workers
            have ended; else what is not begun is cancelled
        :param cancel_futures: cancel what is not begun, in any case
        """
        with self._shutdown_lock:
            self._shutdown = True
            crew, workers = self._crew, list(self._workers)
            if cancel_futures or not wait:
                crew.discard()
            crew.queue.put(None)
        if wait:
            _join(workers)


def _join(workers):
    for worker in workers:
        if worker is not threading.current_thread():
            worker.join()


def _note_cancelled(cancelled, future):
    if future.cancelled():
        cancelled.append(None)


def _end():
    """As futurist does at the end of the interpreter: a task that is being
    run is waited for, others are not begun.
    """
    executors = list(_all)
    for executor in executors:
        executor.shutdown(wait=False)
    for executor in executors:
        _join(list(executor._workers))


def _forget_the_parents():
    for executor in list(_all):
        executor._made_anew()


_all: weakref.WeakSet[Any] = weakref.WeakSet()
os.register_at_fork(after_in_child=_forget_the_parents)
atexit.register(_end)
