# SPDX-License-Identifier: Apache-2.0
"""Publishes the facts of a process: a file of the node's directory, and in
the registry if several machines share that.
"""

import os
import random
import time
from collections.abc import Callable
from typing import Any

from zmq_threaded import backoff
from zmq_threaded import counters
from zmq_threaded import logs
from zmq_threaded.registry import stamps
from zmq_threaded.status import fact_files
from zmq_threaded.status import facts
from zmq_threaded.status import findings
from zmq_threaded.status import unwritten

LOG = logs.get(__name__)

# Seconds between two documents at the most; before the first one of a process
# that listens to nothing, for many of these end soon; and between two looks
# for files of the dead.
_LONGEST, _FIRST, _SWEEP = 10.0, 1.0, 60.0
# Seconds before a document is due at which other threads are asked.
_ASK_BEFORE = 1.0
# The registry that does not take the facts is left alone for so long; as
# multiples of the time between two documents.
_FIRST_WAIT, _LAST_WAIT = 1.0, 6.0
# Seconds between two warnings of facts that cannot be published at all.
_SELDOM = 600.0


def interval(update: float) -> float:
    """Seconds between two documents.

    :param update: zmq_target_update
    """
    return min(float(update), _LONGEST)


class Publisher:
    """Publishes a document when it is due. Nobody waits for it, and nothing
    depends on it: what fails is tried again.

    :param update: zmq_target_update
    :param collect: returns the document
    :param state: returns something; when it changes, a document is due
    :param ask: asks for what collect() will need soon
    :param tell: tells the registry the document, compressed; returns the
        time by the clock of its server, or None
    :param may_tell: whether the registry answers
    :param found: the findings of this process, None if it has none

    Thread: registry; receiver for that of a receiver; any for close().
    """

    def __init__(self, ipc_dir: str, update: float,
                 collect: Callable[[], dict[str, Any]],
                 state: Callable[[], object] = lambda: None,
                 ask: Callable[[], object] = lambda: None,
                 tell: Callable[[bytes], float | None] = lambda packed: None,
                 may_tell: Callable[[], bool] = lambda: True,
                 found: findings.Findings | None = None) -> None:
        self._ipc_dir = ipc_dir
        self._every = interval(update)
        self._collect, self._ask, self._state = collect, ask, state
        self._published_state = state()
        self._tell, self._may_tell = tell, may_tell
        self._id = os.urandom(8).hex()
        self._file = fact_files.File(ipc_dir, f'{os.getpid()}-{self._id[:8]}')
        self._unwritten = unwritten.Telling(self._file.folder, found)
        self._seq = 0
        self._due = self._next_sweep = time.monotonic() + _FIRST
        self._has_asked = self._is_closed = False
        self._warnings = counters.Seldom(_SELDOM)
        # Of the server: its time, and when it told it.
        self._server: tuple[float, float] | None = None
        self._waits = backoff.Backoff(_FIRST_WAIT * self._every,
                                      _LAST_WAIT * self._every)

    def turn(self) -> None:
        """To be called about once a second."""
        now = time.monotonic()
        if self._is_closed:
            return
        if now >= self._due - _ASK_BEFORE and not self._has_asked:
            self._has_asked = True
            self._ask()
        state = self._state()
        if now >= self._due or state != self._published_state:
            self._published_state, self._has_asked = state, False
            self._due = now + self._every * random.uniform(0.9, 1.0)
            self._publish(now)
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP
            fact_files.sweep(self._ipc_dir)

    def close(self) -> None:
        """Take the file away; publish no more."""
        self._is_closed = True
        self._file.remove()

    def _publish(self, now: float) -> None:
        try:
            self._file.give_sign()
        except OSError as error:
            LOG.debug('Nobody sees by a lock whether this process lives: %s',
                      error)
        packed = self._packed(now)
        if packed is not None:
            self._write(packed)
        if self._is_closed:
            self._file.remove()     # closed meanwhile, by another thread
        elif (packed is not None and self._may_tell()
                and not self._waits.is_waiting(now)):
            self._tell_registry(packed, now)

    def _packed(self, now: float) -> bytes | None:
        try:
            packed = facts.encode(self._document(now))
        except facts.Malformed as problem:
            if self._warnings.allows():
                LOG.warning('The facts of this process are not published: %s',
                            problem)
            return None
        self._seq += 1
        return packed

    def _write(self, packed: bytes) -> None:
        try:
            self._file.write(packed)
        except OSError as error:
            self._unwritten.failed(error)
        else:
            self._unwritten.succeeded()

    def _document(self, now: float) -> dict[str, Any]:
        server_at = None
        if self._server is not None:
            told, at = self._server
            server_at = round(told + now - at, 3)
        return {'format': facts.FORMAT, 'id': self._id, 'seq': self._seq,
                'every': self._every, 'at': round(time.time(), 3),
                'stamp': stamps.now().hex(), 'server_at': server_at,
                **self._collect()}

    def _tell_registry(self, packed: bytes, now: float) -> None:
        # The client libraries of the engines raise what they like.
        try:
            told = self._tell(facts.compress(packed))
        except Exception as error:
            self._waits.failed(time.monotonic())
            LOG.debug('The registry did not take the facts of this process: '
                      '%s', type(error).__name__)
            return
        self._waits.succeeded()
        self._server = None if told is None else (told, time.monotonic())
