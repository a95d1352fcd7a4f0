# SPDX-License-Identifier: Apache-2.0
"""The IPC addresses of this process, and the thread that lets clients in."""

import functools
import os
import select
import threading
import time

from zmq_threaded import counters
from zmq_threaded import logs
from zmq_threaded import mailbox
from zmq_threaded import threads
from zmq_threaded.net import accept_gate
from zmq_threaded.net import accept_rush
from zmq_threaded.net import descriptors

LOG = logs.get(__name__)

_RETRY = 0.2
_JOIN_LIMIT = 5.0


class AcceptGates:
    """The accept gates of this process, and the thread zmq-accept, which lets
    clients in.

    Thread: any; the lock is reentrant for the sake of signal handlers.
    """

    def __init__(self):
        self._lock = threading.RLock()
        self._gates = {}
        self._is_short = False
        self._may_warn = counters.Seldom()
        self._wakeup: mailbox.Wakeup | None = None
        self._loop: threads.Loop | None = None

    def bind(self, path, bind):
        """Bind a ZeroMQ socket to an IPC address.

        :param bind: called with the descriptor on which libzmq is to listen
        :raises: OSError, descriptors.Short, and what bind() raises
        """
        with self._lock:
            gate = accept_gate.AcceptGate(path)
            try:
                # First what may fail: libzmq keeps what it was given.
                gate.open()
                self._start()
                gate.hand_over(bind)
            except BaseException:
                gate.close()
                self._stop_if_unused()
                raise
            former, self._gates[path] = self._gates.get(path), gate
            if former is not None:
                former.abandon()
            self._wake()

    def reopen(self, path):
        """Make the file of an address anew.

        :returns: False when it was never bound, or not by now
        :raises: OSError
        """
        with self._lock:
            gate = self._gates.get(path)
            if gate is None:
                return False
            gate.reopen()
            self._wake()
        return True

    def holds(self, path):
        """Whether clients can come in by an address that was bound here: its
        files may have been removed, or be another one's by now.
        """
        with self._lock:
            gate = self._gates.get(path)
            return gate is not None and gate.is_intact()

    def unbind(self, path):
        """Nobody comes in any more; to be called before the socket of libzmq
        is closed. Twice is fine, and so is a path that was never bound.
        """
        with self._lock:
            gate = self._gates.get(path)
            if gate is None:
                return
            try:
                gate.close()
            finally:
                # An exception of a signal handler may be passing by.
                self._gates.pop(path, None)
                loop = self._stop_if_unused()
        if loop is not None:
            loop.join(time.monotonic() + _JOIN_LIMIT)

    def _wake(self):
        if self._wakeup is not None:
            self._wakeup.set()

    def _start(self):
        """:raises: OSError, descriptors.Short"""
        if self._loop is not None:
            return
        wakeup = mailbox.Wakeup()
        loop = threads.Loop(
            'zmq-accept', functools.partial(self._turn, wakeup), wakeup.set,
            counters.Counters(), finish=wakeup.close)
        try:
            loop.start()
        except descriptors.Short:
            loop.stop()
            raise
        self._wakeup, self._loop = wakeup, loop

    def _stop_if_unused(self):
        """:returns: the Loop to join, None if there is none"""
        if self._gates or self._loop is None:
            return None
        loop, self._loop, self._wakeup = self._loop, None, None
        loop.stop()
        return loop

    def _turn(self, wakeup):
        poll = select.poll()
        poll.register(wakeup.fd, select.POLLIN)
        if not self._is_short:
            self._register(poll)
        ready = poll.poll(_RETRY * 1000 if self._is_short else None)
        wakeup.clear_if(ready)
        waiting = None if self._is_short else {fd for fd, _ in ready}
        with self._lock:
            self._answer_all([
                gate for gate in self._gates.values()
                if waiting is None or gate.fileno() in waiting])

    def _register(self, poll):
        with self._lock:
            for gate in self._gates.values():
                poll.register(gate, select.POLLIN)

    def _answer_all(self, gates):
        was_short, self._is_short = self._is_short, False
        if len(gates) > 1 and accept_gate.is_plenty():
            accept_rush.let_in(gates)
        for gate in gates:
            if accept_gate.has_visitors(gate) and not self._answer(gate):
                self._is_short = True
        if was_short and not self._is_short:
            LOG.info('Clients that waited for descriptors of this process '
                     'have come in; %d are left', descriptors.left())

    def _answer(self, gate):
        try:
            if gate.answer():
                return True
        except OSError as error:
            LOG.debug('Nobody could be let in: %s', error)
        if self._may_warn.allows():
            LOG.warning(
                'New clients have to wait, for this process is short of file '
                'descriptors: %d are left of %d (RLIMIT_NOFILE); raise '
                'LimitNOFILE of its unit', descriptors.left(),
                descriptors.limit())
        return False

    def abandon(self):
        """All is the parent's, of which this process is a fork."""
        for gate in list(self._gates.values()):
            gate.abandon()
        if self._wakeup is not None:
            self._wakeup.abandon()


def _forget_the_parents():
    global _gates
    parents, _gates = _gates, AcceptGates()
    parents.abandon()


_gates = AcceptGates()
os.register_at_fork(after_in_child=_forget_the_parents)


def bind(path, bind):
    """See AcceptGates.bind()."""
    _gates.bind(path, bind)


def reopen(path):
    """See AcceptGates.reopen()."""
    return _gates.reopen(path)


def holds(path):
    """See AcceptGates.holds()."""
    return _gates.holds(path)


def unbind(path):
    """See AcceptGates.unbind()."""
    _gates.unbind(path)
