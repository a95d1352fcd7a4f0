# SPDX-License-Identifier: Apache-2.0
"""An accept gate: one IPC address, and how clients are let in.

libzmq 4.3.5 aborts the process when accept() on an IPC socket finds no free
descriptor (ipc_listener.cpp; its TCP listener bears that). The kernel takes
the descriptor before it looks for a connection, so the only help is that
libzmq does not call accept() while descriptors are short. Therefore clients
connect to a queue of ours::

    clients --> queue (a listening socket, bound to the address)
                  |  the thread zmq-accept: enough descriptors left?
                  v
    libzmq's descriptor, which normally is the placeholder: a listening
    socket to which only we can connect

To let clients in, the thread makes libzmq's descriptor a duplicate of the
queue (dup2), and connects a socket, the ring, to the placeholder. libzmq's
epoll watches the placeholder, so libzmq accepts until the queue is empty.
Then the thread makes libzmq's descriptor the placeholder again, and takes the
ring back. If descriptors are not plenty, the thread first binds a new queue to
the address, so that no more clients can enter the old queue. The old queue
holds no more clients than are sure to find descriptors, however fast they
come.

libzmq takes its descriptor out of its epoll when its socket is closed, and
aborts the process if the descriptor is another than libzmq put in. So the
address is unbound first; and whenever nobody is being let in, the descriptor
is what it was. If the file of the address is gone, a new queue makes the file
anew: neither libzmq nor the placeholder notices.
"""

import contextlib
import functools
import os
import select
import socket as system_socket
import time

from zmq_threaded import logs
from zmq_threaded import threads
from zmq_threaded.net import descriptors
from zmq_threaded.net import paths
from zmq_threaded.net import placeholder

LOG = logs.get(__name__)

_WATCHED_LIMIT = 5.0
# libzmq needs about 50 us for each; more if the machine is busy.
_LET_IN_LIMIT, _LET_IN_POLL = 0.1, 0.00005
# With so many left a queue needs not be sealed: libzmq could not accept as
# many in that time.
_PLENTY = 4096
_LATE = 0.01
_FOR_ALL = 0o770
# The name on the disk is of earlier releases, which clear such files away.
PLACEHOLDER, NEXT = '.bell', '.next'


class AcceptGate:
    """One IPC address.

    :param path: of the address
    :raises: OSError
    :ivar listener: the descriptor for libzmq, which owns and closes it once
        it was handed over

    Thread: any, one at a time.
    """

    def __init__(self, path):
        self._path = path
        placeholder_path, self._next_path = beside(path)
        self._queue: system_socket.socket | None = None
        self._former: system_socket.socket | None = None
        self._identity = None
        self._capacity = self._former_capacity = 0
        self._is_handed_over = False
        self._placeholder = placeholder.Placeholder(placeholder_path)
        try:
            self.listener = os.dup(self._placeholder.fileno())
        except OSError:
            self._placeholder.close()
            raise

    def open(self):
        """Let clients queue.

        :raises: OSError
        """
        capacity = descriptors.margin(descriptors.raise_limit()) // 2
        # The kernel lets one more in.
        queue = placeholder.listening(self._next_path, capacity - 1, _FOR_ALL)
        try:
            identity = paths.identity(self._next_path)
            os.rename(self._next_path, self._path)
        except OSError:
            placeholder.close(queue, self._next_path)
            raise
        self._queue, self._identity = queue, identity
        self._capacity = capacity

    def reopen(self):
        """Make the address anew; let those in who had found the old one.

        :raises: OSError; then everything is as before
        """
        queues = self._queues()
        self.open()
        self._former = None
        threads.do_all([functools.partial(self._finish, queue)
                        for queue in queues])

    def hand_over(self, bind):
        """Give libzmq its descriptor. Returns when libzmq, whose thread
        registers it a moment after it was told, watches it: before that it
        must not be another.

        :param bind: called with the descriptor
        :raises: OSError, and what bind() raises
        """
        with system_socket.socket(system_socket.AF_UNIX) as ring:
            ring.settimeout(_WATCHED_LIMIT)
            # Before, for it may fail: to libzmq nothing can be given twice.
            self._placeholder.ring(ring)
            bind(self.listener)
            self._is_handed_over = True
            # Its greeting.
            ring.recv(1)

    def fileno(self):
        """Of an open gate: readable when clients wait."""
        queue = self._former or self._queue
        assert queue is not None, f'{self._path} is not open'
        return queue.fileno()

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
        if self._former is None and self.is_intact():
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
        """Whether the address leads to the queue: it may have been removed,
        or somebody else may have bound it.
        """
        return (self._identity is not None
                and paths.identity(self._path) == self._identity)

    def _let_in(self, queue):
        with contextlib.ExitStack() as stack:
            if self._open_to_libzmq(queue, stack):
                _wait_until_empty(queue)

    def open_to_libzmq(self, stack: contextlib.ExitStack) -> bool:
        """Let clients in until a stack is closed. Only while there are
        descriptors in plenty; see is_plenty().

        :raises: OSError
        :returns: False if that has to be left to answer()
        """
        return self._former is None and self._open_to_libzmq(self._queue,
                                                             stack)

    def _open_to_libzmq(self, queue, stack):
        if not self._libzmq_listens():
            return False
        ring = stack.enter_context(
            system_socket.socket(system_socket.AF_UNIX))
        ring.setblocking(False)
        stack.callback(self._take_back, ring)
        stack.callback(os.dup2, self._placeholder.fileno(), self.listener,
                       inheritable=False)
        # In this order: from the placeholder libzmq would accept the ring.
        os.dup2(queue.fileno(), self.listener, inheritable=False)
        self._placeholder.ring(ring)
        return True

    def _libzmq_listens(self):
        """Whether its descriptor is still what libzmq was given."""
        return self._is_handed_over and _is_same(self.listener,
                                                 self._placeholder)

    def _take_back(self, ring):
        # First: so there is a descriptor for it.
        ring.close()
        with contextlib.suppress(OSError):
            self._placeholder.silence()

    def close(self):
        """Let the last ones in, and remove the address. libzmq's descriptor
        stays with it.
        """
        threads.do_all([
            self._remove_address,
            *(functools.partial(self._finish, queue)
              for queue in self._queues()),
            self._placeholder.close,
            self._close_listener])

    def _remove_address(self):
        if self.is_intact():
            paths.remove(self._path)

    def _finish(self, queue):
        with queue:
            if (has_visitors(queue)
                    and descriptors.left() >= 2 * self._capacity):
                with contextlib.suppress(OSError):
                    self._let_in(queue)

    def _close_listener(self):
        if not self._is_handed_over:
            os.close(self.listener)

    def _queues(self):
        return [queue for queue in (self._former, self._queue) if queue]

    def abandon(self):
        """The gate is the parent's, of which this process is a fork."""
        # Forked while clients were let in: they would queue here for ever,
        # for libzmq closes its descriptor in the parent only.
        if any(_is_same(self.listener, queue) for queue in self._queues()):
            os.dup2(self._placeholder.fileno(), self.listener,
                    inheritable=False)
        for queue in self._queues():
            queue.close()
        self._placeholder.abandon()


def is_plenty() -> bool:
    """Whether there are so many descriptors that no queue needs to be sealed,
    however many gates are open together.
    """
    return descriptors.left() >= 2 * (_PLENTY + descriptors.margin(
        descriptors.limit()))


def beside(path):
    """The paths of the placeholder and of the next queue of an address. They
    are as long as the path of a service, which may be as long as is allowed.
    """
    stem = os.path.splitext(path)[0]
    return stem + PLACEHOLDER, stem + NEXT


def _is_same(descriptor, listening):
    """Whether a number still is what it was: its owner may have closed it,
    and somebody else may have the number now.
    """
    try:
        return os.path.samestat(os.fstat(descriptor),
                                os.fstat(listening.fileno()))
    except OSError:
        return False


def has_visitors(queue):
    """Whether a client waits.

    :param queue: an AcceptGate, or a listening socket
    """
    poll = select.poll()
    poll.register(queue, select.POLLIN)
    return bool(poll.poll(0))


def _wait_until_empty(queue):
    deadline = time.monotonic() + _LET_IN_LIMIT
    while has_visitors(queue) and time.monotonic() < deadline:
        time.sleep(_LET_IN_POLL)
