# SPDX-License-Identifier: Apache-2.0
"""How a thread gets what other threads want of it, and how it is woken.

A thread that waits for nothing else has a :class:`Mailbox`. A thread that
also waits for sockets has a :class:`PolledMailbox`, whose wake-up is one more
descriptor of its epoll. Both may be written to by signal handlers, at any
line of the program: what they use is one step under the GIL, or guarded by a
reentrant lock.
"""

import _thread
import collections
import contextlib
import io
import os
import queue
import select
import threading
import time
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

_NOTHING = object()
_CLOSED = -1
_Ready = Iterable[tuple[int, int]]


class Wakeup:
    """An eventfd that interrupts an epoll; any number of set() is one event.

    :ivar fd: its descriptor, which is readable after set(); -1 after close()

    Thread: any for set(), which is safe in a signal handler; the rest belongs
    to the thread that waits.
    """

    def __init__(self) -> None:
        # In one step for exceptions that come at any line, and owned by an
        # object from the beginning: a bare number is never closed.
        self._file = next(map(io.FileIO, map(os.eventfd, (0,), (
            os.EFD_NONBLOCK | os.EFD_CLOEXEC,)), ('r+',)))
        self.fd = self._file.fileno()
        self._signalled = False
        # Reentrant: a signal handler may interrupt its own thread in set().
        self._lock = threading.RLock()

    def set(self) -> None:
        """Make the epoll return."""
        if not self._signalled:
            with self._lock:
                if self.fd != _CLOSED:
                    self._signalled = True
                    os.eventfd_write(self.fd, 1)

    def clear_if(self, ready: _Ready) -> None:
        """Take back what was set. To be called before the thread looks for
        work, never after.

        :param ready: what epoll returned
        """
        for fd, _ in ready:
            if fd == self.fd:
                os.eventfd_read(fd)
        # Only after the read: a set() in between has its work in place and
        # may stay silent; the other order would leave the flag set for ever.
        # And always: a set() that an exception ended before it wrote would
        # silence all later ones.
        self._signalled = False

    def close(self) -> None:
        """Later calls of set() do nothing; without the lock they could write
        to whatever got this number next.
        """
        with self._lock:
            self.fd = _CLOSED
        self._file.close()

    def abandon(self) -> None:
        """As close(), in a child of a fork: a thread of the parent may have
        held the lock.
        """
        self.fd = _CLOSED
        self._file.close()


class Mailbox:
    """The items for a thread that waits for nothing else.

    Thread: any for put(), wake() and len(), which are safe in a signal
    handler; take() belongs to the thread that waits.
    """

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __len__(self) -> int:
        """How many items wait, wake-ups included."""
        return self._items.qsize()

    def put(self, item: Any) -> None:
        """Add an item behind all others, and wake the thread."""
        self._items.put(item)

    def wake(self) -> None:
        """Make take() return, though there be no item."""
        self._items.put(_NOTHING)

    def take(self, wait: float | None, most: int = 1) -> list[Any]:
        """The oldest items, which are then no longer in the mailbox.

        :param wait: seconds to wait for the first item, None for ever
        :param most: how many items and wake-ups to take
        :returns: list of items; empty when none came in time, or when the
            thread was only woken
        """
        items: list[Any] = []
        # Plainly written: each reply comes by here twice.
        try:
            items.append(self._items.get(timeout=wait))
            while len(items) < most and self._items.qsize():
                items.append(self._items.get(block=False))
        except queue.Empty:
            pass
        if _NOTHING in items:
            items = [item for item in items if item is not _NOTHING]
        return items


class Answers:
    """What other threads tell those who wait for it until a deadline.

    Not a queue: SimpleQueue.get(timeout) of CPython 3.11 waits for ever when a
    signal handler takes longer than what was left, and a handler may stop a
    server and wait for it. A lock looks at the clock again.

    Thread: any for put(), which is safe in a signal handler; caller for get().
    """

    __slots__ = ('_items', '_gate')

    def __init__(self) -> None:
        self._items: collections.deque[Any] = collections.deque()
        self._gate = _thread.allocate_lock()
        self._gate.acquire()

    def put(self, item: Any) -> None:
        """Add an item behind all others, and wake the thread that waits."""
        self._items.append(item)
        self._open()

    def get(self, deadline: float) -> Any:
        """The oldest item, which is then no longer there.

        :param deadline: monotonic seconds
        :raises: queue.Empty when none came until then
        """
        while True:
            is_over = not (self._items or self._gate.acquire(
                timeout=max(0.0, deadline - time.monotonic())))
            with contextlib.suppress(IndexError):
                item = self._items.popleft()
                if self._items:
                    # Two items that came at once have opened it once.
                    self._open()
                return item
            if is_over:
                raise queue.Empty

    def _open(self) -> None:
        # Open already: whoever waits is about to look.
        with contextlib.suppress(RuntimeError):
            self._gate.release()


class PolledMailbox:
    """The items for a thread that waits for descriptors as well.

    :ivar items: deque of the items that wait. Any thread may look at it; only
        the owner takes from it, and that from its left.

    Thread: any for put(), wake() and len(), which are safe in a signal
    handler; the rest belongs to the thread that waits.
    """

    def __init__(self) -> None:
        self.items: collections.deque[Any] = collections.deque()
        with contextlib.ExitStack() as undo:
            self._wakeup = Wakeup()
            undo.callback(self._wakeup.close)
            self._epoll = select.epoll()
            undo.callback(self._epoll.close)
            self.watch(self._wakeup.fd)
            undo.pop_all()

    def __len__(self) -> int:
        """How many items wait."""
        return len(self.items)

    def put(self, item: Any) -> None:
        """Add an item behind all others, and wake the thread."""
        self.items.append(item)
        self._wakeup.set()

    def wake(self) -> None:
        """Make wait() return, though there be no item."""
        self._wakeup.set()

    def watch(self, fd: int) -> None:
        """Let wait() return when this descriptor is readable."""
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """Undo watch()."""
        self._epoll.unregister(fd)

    def wait(self, seconds: float) -> list[tuple[int, int]]:
        """Wait until an item is put, a descriptor is readable, or somebody
        calls wake(). The items are to be looked at afterwards.

        :returns: list of (descriptor, events) as epoll has it, the
            mailbox's own among them
        """
        ready = self._epoll.poll(seconds)
        self._wakeup.clear_if(ready)
        return ready

    def close(self) -> None:
        """Later items wake nobody. To be called by the owner at its end, or
        when it was never started.
        """
        self._epoll.close()
        self._wakeup.close()


def ask(put: Callable[[Any], object], question: Callable[[], Any],
        limit: float, default: Any = None) -> Any:
    """Have another thread call a function, and wait for what it returns.

    Safe in a signal handler, for the answer is its own.

    :param put: that of a mailbox whose items are called by its thread
    :param question: called there without arguments
    :param limit: seconds to wait
    :param default: what is returned when there was no answer in time
    """
    answers = Answers()
    put(lambda: answers.put(question()))
    try:
        return answers.get(time.monotonic() + limit)
    except queue.Empty:
        return default
