# SPDX-License-Identifier: Apache-2.0
"""Names of hosts, resolved in threads of our own.

libzmq resolves inside its I/O thread: one name for which no DNS server answers
would hold up all messages of the process. So libzmq gets numbers only.
"""

import collections
import contextlib
import math
import queue
import socket
import threading
import time

from zmq_threaded import logs
from zmq_threaded import mailbox
from zmq_threaded import threads
from zmq_threaded.net import descriptors

LOG = logs.get(__name__)

# In seconds. A name that is older than _FRESH is resolved again while its old
# addresses are used; one older than _OLD, or in doubt, is waited for.
_FRESH, _OLD, _FAILURE = 30.0, 300.0, 3.0
# A name that is not resolved by then is no longer waited for; and may use only
# some of the threads the next time.
PATIENCE = 1.0
_MAY_DOUBT_AFTER = 1.0
_THREADS, _THREADS_FOR_SLOW = 8, 4
_KEPT, _QUEUED = 8192, 4096
_ADDRESSES = 8


class Unresolved(Exception):
    """A name leads nowhere; the text says why."""


class _Name:
    """What is known of one name, in monotonic seconds.

    :ivar began: when the attempt that is under way was asked for, or None

    Thread: any, under the lock of Names.
    """

    __slots__ = ('addresses', 'resolved_at', 'problem', 'failed_at', 'began',
                 'is_doubted', 'is_slow', 'waiting')

    def __init__(self):
        self.addresses = ()
        self.resolved_at = self.failed_at = -math.inf
        self.problem = ''
        self.began = None
        self.is_doubted = self.is_slow = False
        self.waiting = []

    def must_be_renewed(self, now):
        return (self.began is None and now - self.failed_at > _FAILURE
                and (self.is_doubted or now - self.resolved_at > _FRESH))

    def is_worth_waiting(self, now):
        return (self.began is not None and now - self.began < PATIENCE
                and (self.is_doubted or now - self.resolved_at > _OLD))


class Resolver:
    """Resolves names, each once at a time, and remembers them.

    :param resolve: called with a name; returns a list of addresses, the
        preferred first, or raises whatever it likes

    Thread: any. The lock is reentrant for the sake of signal handlers.
    """

    def __init__(self, resolve=None):
        self._resolve = resolve or _system
        self._lock = threading.RLock()
        self._names: collections.OrderedDict[str, _Name] = (
            collections.OrderedDict())
        self._queue: collections.deque[str] = collections.deque()
        self._threads = self._slow_threads = 0

    def look(self, name, done=None):
        """The addresses of a name; waits for nothing.

        :param done: called without arguments by a thread of ours, once the
            name is known, if None is returned
        :returns: tuple of str, the preferred first; None while the name is
            being resolved
        :raises: Unresolved
        """
        with self._lock:
            entry, now = self._entry(name), time.monotonic()
            if entry.must_be_renewed(now):
                self._begin(name, entry, now)
            if entry.is_worth_waiting(now):
                if done is not None:
                    entry.waiting.append(done)
                return None
            if entry.addresses:
                return entry.addresses
            raise Unresolved(f'the name {name} {self._why(entry, now)}')

    def wait(self, name, deadline):
        """As look(), but wait for the addresses until a deadline.

        :param deadline: monotonic seconds; at most PATIENCE is waited
        :raises: Unresolved
        """
        answered = mailbox.Answers()
        addresses = self.look(name, lambda: answered.put(True))
        if addresses is None:
            with contextlib.suppress(queue.Empty):
                answered.get(min(deadline, time.monotonic() + PATIENCE))
            addresses = self._now(name)
        return addresses

    def doubt(self, name):
        """The addresses of a name lead nowhere: ask for them anew soon."""
        with self._lock:
            entry = self._names.get(name)
            if entry and (time.monotonic() - entry.resolved_at
                          > _MAY_DOUBT_AFTER):
                entry.is_doubted = True

    def _now(self, name):
        with self._lock:
            entry = self._entry(name)
            if entry.addresses:
                return entry.addresses
            raise Unresolved(f'the name {name} '
                             f'{self._why(entry, time.monotonic())}')

    @staticmethod
    def _why(entry, now):
        if entry.began is None:
            return f'cannot be resolved: {entry.problem}'
        return f'has not been resolved for {now - entry.began:.1f} s'

    def _entry(self, name):
        entry = self._names.get(name)
        if entry is None:
            if len(self._names) >= _KEPT:
                self._forget_one()
            entry = self._names[name] = _Name()
        self._names.move_to_end(name)
        return entry

    def _forget_one(self):
        for name, entry in self._names.items():
            if entry.began is None:
                del self._names[name]
                return

    # The threads

    def _begin(self, name, entry, now):
        if len(self._queue) >= _QUEUED:
            entry.problem, entry.failed_at = 'too many names to resolve', now
            return
        entry.began = now
        self._queue.append(name)
        if self._threads < _THREADS:
            self._start_thread(entry, now)

    def _start_thread(self, entry, now):
        self._threads += 1
        try:
            threads.started(self._run, 'zmq-resolver')
        except descriptors.Short as error:
            self._threads -= 1
            if not self._threads:
                self._queue.clear()
                entry.began = None
                entry.problem, entry.failed_at = str(error), now

    def _run(self):
        while True:
            job = self._next()
            if job is None:
                return
            name, entry = job
            addresses, problem = self._try(name)
            for done in self._end(entry, addresses, problem):
                done()

    def _next(self):
        """Take a name from the queue; the thread ends when there is none."""
        with self._lock:
            for name in self._queue:
                entry = self._names[name]
                if (not entry.is_slow
                        or self._slow_threads < _THREADS_FOR_SLOW):
                    self._queue.remove(name)
                    self._slow_threads += entry.is_slow
                    return name, entry
            self._threads -= 1
            return None

    def _try(self, name):
        try:
            addresses = tuple(dict.fromkeys(self._resolve(name)))[:_ADDRESSES]
            return addresses, '' if addresses else 'it has no address'
        except Exception as error:
            # UnicodeError and ValueError too: the registry may hold anything.
            return (), getattr(error, 'strerror', None) or str(error)

    def _end(self, entry, addresses, problem):
        """:returns: list of callables, of those who wait"""
        with self._lock:
            now = time.monotonic()
            self._slow_threads -= entry.is_slow
            entry.is_slow = now - entry.began > PATIENCE
            entry.began, entry.is_doubted = None, False
            entry.problem = problem
            if addresses:
                entry.addresses, entry.resolved_at = addresses, now
            else:
                entry.failed_at = now
            waiting, entry.waiting = entry.waiting, []
            return waiting


def _system(name):
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [_with_scope(address) for _, _, _, _, address in found]


def _with_scope(address):
    host = address[0]
    scope = address[3] if len(address) > 3 else 0
    return f'{host}%{scope}' if scope and '%' not in host else host
