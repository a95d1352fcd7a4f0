# SPDX-License-Identifier: Apache-2.0
"""A door: one IPC address, and how clients are let in.

libzmq 4.3.5 aborts the process when accept() on an IPC socket finds no free
descriptor (ipc_listener.cpp; its TCP listener bears that). The kernel takes
the descriptor before it looks for a connection, so the only help is that
libzmq does not call accept() while they are short. Therefore clients connect
to a queue of ours::

    clients --> queue (a listening socket, bound to the address)
                  |  the thread zmq-doors: enough descriptors left?
                  v
    libzmq's descriptor, which normally is the bell: a listening socket to
    which only we connect

To let clients in, the thread makes libzmq's descriptor a duplicate of the
queue (dup2), and rings the bell. The bell is what libzmq's epoll watches, so
libzmq accepts until the queue is empty. Then its descriptor becomes the bell
again, and the thread takes its ring back. If descriptors are not plenty, the
thread binds a new queue to the address before, so that no more can enter the
old one: it holds no more clients than are sure to find descriptors, however
fast they come.

libzmq takes its descriptor out of its epoll when its socket is closed, and
aborts the process if it is another than it put in. So the address is unbound
first; and whenever nobody is being let in, the descriptor is what it was.
"""

import contextlib
import os
import select
import socket as sockets
import time

from zmq_threaded import descriptors
from zmq_threaded import logs

LOG = logs.get(__name__)

_WATCHED_LIMIT = 5.0
# libzmq needs about 50 us for each; more if the machine is busy.
_LET_IN_LIMIT, _LET_IN_POLL = 0.1, 0.00005
# With so many left a queue needs not be sealed: libzmq could not accept as
# many in that time.
_PLENTY = 4096
_LATE = 0.01
_FOR_ALL, _FOR_US = 0o770, 0o600
BELL, NEXT = '.bell', '.next'


class Door:
    """One IPC address.

    :param path: of the address
    :raises: OSError
    :ivar listener: the descriptor for libzmq, which owns and closes it

    Thread: any, one at a time.
    """

    def __init__(self, path):
        self._path = path
        self._bell_path, self._next_path = beside(path)
        self._queue = self._former = self._identity = None
        self._capacity = self._former_capacity = 0
        self._bell = _listening(self._bell_path, 1, _FOR_US)
        try:
            self._bell_identity = _identity(self._bell_path)
            self.listener = os.dup(self._bell.fileno())
        except OSError:
            self._close_bell()
            raise

    def open(self):
        """Let clients queue.

        :raises: OSError
        """
        capacity = descriptors.margin(descriptors.raise_limit()) // 2
        # The kernel lets one more in.
        queue = _listening(self._next_path, capacity - 1, _FOR_ALL)
        try:
            identity = _identity(self._next_path)
            os.rename(self._next_path, self._path)
        except OSError:
            _close(queue, self._next_path)
            raise
        self._queue, self._identity = queue, identity
        self._capacity = capacity

    def wait_until_watched(self):
        """Return when libzmq, whose thread registers it a moment after it was
        told, watches the descriptor: before that it must not be another.

        :raises: OSError
        """
        with sockets.socket(sockets.AF_UNIX) as ring:
            ring.settimeout(_WATCHED_LIMIT)
            ring.connect(self._bell_path)
            # Its greeting.
            ring.recv(1)

    def fileno(self):
        """Readable when clients wait."""
        return (self._former or self._queue).fileno()

    def answer(self):
        """Let those in who wait.

        :returns: False when that has to wait for descriptors
        """
        left = descriptors.left()
        if left < descriptors.margin(descriptors.limit()):
            return False
        if left < _PLENTY + self._capacity and self._seal():
            return self._let_in_former()
        if left < 4 * self._capacity:
            return False
        self._let_in(self._queue)
        return True

    def _seal(self):
        """Put a new queue in the place of this one, so that nobody can enter
        this one any more.

        :returns: False when there can be no new one: the disk may be full
        """
        if self._former is None and self._is_ours():
            former, capacity = self._queue, self._capacity
            try:
                self.open()
            except OSError as error:
                LOG.debug('%s: no new queue: %s', self._path, error)
                return False
            self._former, self._former_capacity = former, capacity
        return True

    def _let_in_former(self):
        former, capacity = self._queue, self._capacity
        if self._former is not None:
            former, capacity = self._former, self._former_capacity
        # Who looked the address up before it was another's is still to come.
        time.sleep(_LATE)
        # Looked at last: others in this process open files as well.
        if descriptors.left() >= 2 * capacity:
            self._let_in(former)
            if has_visitors(former):
                return False
        # Else it was made when there was more room: who waits connects anew.
        if self._former is not None:
            self._former.close()
            self._former = None
        return True

    def is_intact(self):
        """Whether the files of this door are there, and are its own."""
        return (self._is_ours()
                and _identity_at(self._bell_path) == self._bell_identity)

    def _is_ours(self):
        """Whether the address leads to the queue: it may have been removed,
        or somebody else may have bound it.
        """
        return _identity_at(self._path) == self._identity

    def _let_in(self, queue):
        if not self._libzmq_listens():
            return
        with contextlib.ExitStack() as stack:
            ring = stack.enter_context(sockets.socket(sockets.AF_UNIX))
            ring.setblocking(False)
            stack.callback(self._take_back, ring)
            stack.callback(os.dup2, self._bell.fileno(), self.listener,
                           inheritable=False)
            # In this order: with the bell libzmq would accept the ring.
            os.dup2(queue.fileno(), self.listener, inheritable=False)
            ring.connect(self._bell_path)
            _wait_until_empty(queue)

    def _libzmq_listens(self):
        """Whether its descriptor is still what libzmq was given; it may have
        closed it, and somebody else may have the number now.
        """
        try:
            return os.path.samestat(os.fstat(self.listener),
                                    os.fstat(self._bell.fileno()))
        except OSError:
            return False

    def _take_back(self, ring):
        # First: so there is a descriptor for it.
        ring.close()
        with contextlib.suppress(OSError):
            self._bell.accept()[0].close()

    def close(self):
        """Let the last ones in, and remove the address. libzmq's descriptor
        stays with it.
        """
        if self._is_ours():
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        for queue in self._queues():
            if (has_visitors(queue)
                    and descriptors.left() >= 2 * self._capacity):
                with contextlib.suppress(OSError):
                    self._let_in(queue)
            queue.close()
        self._close_bell()

    def _queues(self):
        return [queue for queue in (self._former, self._queue) if queue]

    def _close_bell(self):
        _close(self._bell, self._bell_path)

    def abandon(self):
        """The door is the parent's, of which this process is a fork."""
        for each in (self._bell, *self._queues()):
            each.close()


def beside(path):
    """The paths of the bell and of the next queue of an address: as long as
    that of a service, which may be as long as is allowed.
    """
    stem = os.path.splitext(path)[0]
    return stem + BELL, stem + NEXT


def _listening(path, backlog, mode):
    """:raises: OSError"""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listening = sockets.socket(sockets.AF_UNIX)
    try:
        listening.setblocking(False)
        listening.bind(path)
        os.chmod(path, mode)
        listening.listen(backlog)
    except OSError:
        _close(listening, path)
        raise
    return listening


def _close(listening, path):
    listening.close()
    with contextlib.suppress(OSError):
        os.unlink(path)


def _identity(path):
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _identity_at(path):
    try:
        return _identity(path)
    except OSError:
        return None


def has_visitors(queue):
    """:param queue: a Door, or a listening socket"""
    poll = select.poll()
    poll.register(queue, select.POLLIN)
    return bool(poll.poll(0))


def _wait_until_empty(queue):
    deadline = time.monotonic() + _LET_IN_LIMIT
    while has_visitors(queue) and time.monotonic() < deadline:
        time.sleep(_LET_IN_POLL)
