# SPDX-License-Identifier: Apache-2.0
"""Threads that start, stop and survive alike.

Nothing here is created at import, and everything belongs to the process that
made it: a forked child drops the parent's objects without using them.
"""

import _thread
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

from zmq_threaded import logs
from zmq_threaded import once
from zmq_threaded.net import descriptors

LOG = logs.get(__name__)

_PAUSE_AFTER_ERROR = 0.1
# Seconds in which the kernel forgets threads that have ended.
_FORGOTTEN_WITHIN, _POLL = 1.0, 0.0001
# How long it is known that threads could be started: (pid, how many, until).
_TRIED_FOR = 1.0
_tried = 0, 0, 0.0
OUTBOX = 'zmq-outbox'
# The thread that owns the cache; and the one that may block in the client
# library of the registry.
REGISTRY, REGISTRY_ENGINE = 'zmq-registry', 'zmq-registry-engine'
# The thread that asks the services of this process whether they hear.
SELF_CHECK = 'zmq-self-check'
JOURNAL = 'zmq-journal'
_NEVER_WAIT = {OUTBOX, REGISTRY, REGISTRY_ENGINE, JOURNAL}


def may_wait() -> bool:
    """Whether this thread may wait for the outbox or the registry: not if it
    is one of them. They may run code of anybody, for the garbage collector
    does.
    """
    return threading.current_thread().name not in _NEVER_WAIT


def without_eventlet() -> None:
    """Have oslo.service run native threads. To be called before anything
    imports oslo_messaging, which imports eventlet otherwise; where another
    back end was chosen before, that stays.
    """
    from oslo_service import backend
    with contextlib.suppress(ImportError,
                             backend.exceptions.BackendAlreadySelected):
        backend.init_backend(backend.BackendType.THREADING)


def started(target: Callable[..., object], name: str,
            *args: Any) -> threading.Thread:
    """A daemon thread that runs a function.

    :raises: descriptors.Short when there is none to be had
    """
    thread = threading.Thread(target=target, args=args, name=name,
                              daemon=True)
    start(thread)
    return thread


def start(thread: threading.Thread) -> None:
    """Start a thread.

    :raises: descriptors.Short when there is none to be had
    """
    # An exception at any line of Thread.start() would leave threading one that
    # never runs: so it is run where none comes.
    outcome: queue.SimpleQueue = queue.SimpleQueue()
    try:
        _thread.start_new_thread(_start, (thread, outcome))
        error = outcome.get()
        if error is not None:
            raise error
    except RuntimeError as error:
        raise descriptors.Short(shortage(error)) from None


def _start(thread: threading.Thread, outcome: Any) -> None:
    error = None
    try:
        thread.start()
    except BaseException as raised:
        error = raised
    outcome.put(error)


def shortage(error: RuntimeError) -> str:
    """What to say of the RuntimeError of a thread that could not start."""
    return (f'out of threads ({error}): raise TasksMax of the unit of this '
            'process, the limit of processes (pids) of its container, or '
            'ulimit -u')


def demand(count: int) -> None:
    """See that so many threads can be started by libzmq, which aborts the
    process when they cannot. They could a moment ago if they did.

    :raises: descriptors.Short
    """
    global _tried
    if _tried[:2] == (os.getpid(), count) and time.monotonic() < _tried[2]:
        return
    _try(count)
    _tried = os.getpid(), count, time.monotonic() + _TRIED_FOR


def _try(count):
    # Bare ones, of which an exception at any line leaves nothing behind.
    gate = _thread.allocate_lock()
    native_ids: list[int] = []
    gate.acquire()
    try:
        for _ in range(count):
            _thread.start_new_thread(_pass_by, (gate, native_ids))
    except RuntimeError as error:
        raise descriptors.Short(shortage(error)) from None
    finally:
        gate.release()
    # Until the kernel has forgotten them they count, though they have ended.
    deadline = time.monotonic() + _FORGOTTEN_WITHIN
    while (len(native_ids) < count or any(map(_exists, native_ids))) and (
            time.monotonic() < deadline):
        time.sleep(_POLL)


def _pass_by(gate, native_ids):
    native_ids.append(threading.get_native_id())
    if gate.acquire(timeout=_FORGOTTEN_WITHIN):
        gate.release()


def _exists(native_id):
    return os.path.exists(f'/proc/self/task/{native_id}')


def do_all(steps: Iterable[Callable[[], object]]) -> None:
    """Call each in turn, though earlier ones raise whatever it be (a signal
    handler may); the last exception is raised at the end.
    """
    with contextlib.ExitStack() as stack:
        for step in reversed(list(steps)):
            stack.callback(step)


def wait_for_quiet(last_moved: Callable[[], float], quiet: float,
                   limit: float) -> None:
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

    def __init__(self, name: str, turn: Callable[[], object],
                 wake: Callable[[], object] | None, counters: Any,
                 finish: Callable[[], object] | None = None) -> None:
        self._turn: Any = turn
        self._wake: Any = wake
        # Whoever takes it out does it.
        self._finishes = [finish] if finish else []
        self._counters = counters
        self._name = name
        self._stopping = False
        # More than one only if a start() was interrupted; all but the first
        # to run end at once.
        self._threads: list[threading.Thread] = []
        self._starter, self._runner = once.Once(), once.Once()
        self._begun = False

    def start(self) -> None:
        """Start the thread; by any number of threads, it happens once, and
        not at all after stop(). If an exception interrupts it, or no thread
        can be made, the next caller starts it.

        :raises: descriptors.Short when there is no thread to be had
        """
        if self._begun or self._stopping:
            return
        me = object()
        try:
            if self._starter.claim(me):
                thread = threading.Thread(target=self._run, name=self._name,
                                          daemon=True)
                self._threads.append(thread)
                start(thread)
                self._begun = True
        except BaseException:
            self._starter.give_back(me)
            raise

    def stop(self) -> None:
        """Ask the thread to end; does not wait. Twice is fine. If it was
        never started, its last act is done here.
        """
        self._stopping = True
        # Read once: the thread may end, and drop it, at any time.
        wake = self._wake
        if self._runner.claim('stop'):
            self._end()
        elif wake:
            wake()

    def join(self, deadline: float) -> bool:
        """Wait for the end of a stopped thread.

        :param deadline: monotonic seconds
        :returns: False when it still runs
        """
        if self.is_current():
            return True
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        if self.is_alive():
            LOG.warning('Thread %s did not end in time', self._name)
        return not self.is_alive()

    def is_current(self) -> bool:
        """Whether the caller is this thread."""
        return threading.current_thread() in self._threads

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return any(thread.is_alive() for thread in self._threads)

    def _run(self):
        if not self._runner.claim(threading.get_ident()):
            return
        while not self._stopping:
            self._survive(self._turn)
        self._end()

    def _end(self):
        with contextlib.suppress(IndexError):
            self._finish(self._finishes.pop())
        # The owner and its Loop refer to each other; part them, so that
        # memory goes at once and not with the next garbage collection.
        self._turn = self._wake = None

    def _finish(self, step):
        try:
            self._survive(step)
        except BaseException:
            self._finishes.append(step)     # for the next stop()
            raise

    def _survive(self, step):
        try:
            step()
        except Exception:
            self._counters.add('loop_errors')
            LOG.exception('Thread %s goes on after an unexpected error',
                          self._name)
            time.sleep(_PAUSE_AFTER_ERROR)
