# SPDX-License-Identifier: Apache-2.0
"""Loggers whose handlers never hold up a thread of the driver.

A handler may do anything: write to a disk that hangs, or send a notification
over this very driver (oslo.messaging's LoggingNotificationHandler). Run in a
thread that messages wait for, it would stop them all, or wait for itself. So
what the driver's own threads log is formatted at once and given to a thread
that nothing waits for. Other threads log as usual.
"""

import atexit
import contextlib
import logging
import os
import queue
import sys
import threading
import time

# A thread of the driver has this before its name.
THREAD_PREFIX = 'zmq-'
_THREAD_NAME = f'{THREAD_PREFIX}log'
# Records that wait while a handler blocks; later ones are counted only.
_LIMIT = 10_000
# Seconds: the thread ends when there was nothing to write for so long; what
# is left at the exit of the process is waited for.
_IDLE, _EXIT_LIMIT = 1.0, 1.0
_POLL = 0.005


def get(name: str, is_deferred: bool = False) -> logging.LoggerAdapter:
    """The logger of this name, as logging.getLogger() gives it, but safe in
    the threads of the driver.

    :param is_deferred: no thread runs its handlers itself, for it may hold a
        lock
    """
    return _Logger(logging.getLogger(name), {'is_deferred': is_deferred})


class _Logger(logging.LoggerAdapter):
    """What get() returns.

    Thread: any.
    """

    def _is_deferred(self):
        return self.extra is not None and self.extra['is_deferred']

    def log(self, level, msg, *args, **kwargs):
        if not self.isEnabledFor(level):
            return
        if not (self._is_deferred() or _is_of_the_driver()):
            _writer.write_left()
            kwargs.setdefault('stacklevel', 1)
            kwargs['stacklevel'] += 1
            self.logger.log(level, msg, *args, **kwargs)
            return
        _writer.put(self.logger, _record(self.logger, level, msg, args,
                                         kwargs.get('exc_info')))


def _is_of_the_driver():
    return threading.current_thread().name.startswith(THREAD_PREFIX)


def _record(logger, level, msg, args, exc_info):
    if isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    elif exc_info and not isinstance(exc_info, tuple):
        exc_info = sys.exc_info()
    path, line, function, _ = logger.findCaller(stacklevel=3)
    record = logger.makeRecord(logger.name, level, path, line, msg, args,
                               None, function)
    # As text: arguments and tracebacks have hold of messages and sockets.
    record.msg, record.args = record.getMessage(), None
    if exc_info:
        record.exc_text = logging.Formatter().formatException(exc_info)
    return record


class _Writer:
    """Writes records in a thread of its own, which comes when there is one
    and goes when there was none for a while.

    Thread: any.
    """

    def __init__(self):
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        # Whoever takes the token out has to run the thread.
        self._token = [None]
        self._lock = threading.Lock()
        self._dropped = 0
        self._latest = None

    def put(self, logger, record):
        if self._queue.qsize() >= _LIMIT:
            with self._lock:
                self._dropped += 1
            return
        self._queue.put((logger, record))
        self._ensure_running()

    def write_left(self):
        """Write what was left for want of a thread."""
        if self._token and not self._queue.empty():
            self._ensure_running()

    def mark(self):
        """:returns: a queue, no longer empty when all that is there now has
            been written
        """
        passed: queue.SimpleQueue = queue.SimpleQueue()
        if self._queue.empty() and self._token:
            passed.put(True)        # nothing waits, and nobody writes
        else:
            self._queue.put((None, passed))
            self._ensure_running()
        return passed

    def _ensure_running(self):
        if self._claim():
            try:
                threading.Thread(target=self._run, name=_THREAD_NAME,
                                 daemon=True).start()
            except RuntimeError:
                # No new thread at the end of the interpreter, or out of them.
                # Handlers hold up no thread of ours all the same: the next
                # record, or another thread, takes care of these.
                if not _is_of_the_driver():
                    self._write_all()
                self._token.append(None)

    def _claim(self):
        try:
            self._token.pop()
        except IndexError:
            return False
        return True

    def _run(self):
        while True:
            self._write_all(_IDLE)
            self._token.append(None)
            # What came before the token was back has started no thread.
            if self._queue.empty() or not self._claim():
                return

    def _write_all(self, idle=0.0):
        while True:
            try:
                logger, record = self._queue.get(block=idle > 0,
                                                 timeout=idle or None)
            except queue.Empty:
                return
            if logger is None:
                with contextlib.suppress(Exception):
                    self._tell_of_dropped(self._latest)
                record.put(True)        # a mark
            else:
                self._write(logger, record)

    def _write(self, logger, record):
        self._latest = logger
        try:
            logger.handle(record)
            if self._queue.empty():
                self._tell_of_dropped(logger)
        except Exception:
            if logging.lastResort is not None:
                logging.lastResort.handleError(record)

    def _tell_of_dropped(self, logger):
        if not self._dropped:
            return
        with self._lock:
            count, self._dropped = self._dropped, 0
        logger.warning('%d log records were lost, for the handlers of '
                       'logging were too slow', count)


def flush(limit: float = _EXIT_LIMIT) -> None:
    """Wait until everything is written that was logged before this call.

    :param limit: seconds to wait at the most
    """
    deadline, passed = time.monotonic() + limit, _writer.mark()
    while passed.empty() and time.monotonic() < deadline:
        time.sleep(_POLL)


def _forget_the_parents():
    global _writer
    _writer = _Writer()


_writer = _Writer()
os.register_at_fork(after_in_child=_forget_the_parents)
# Runs last of ours: exit handlers run in the reverse order.
atexit.register(flush)
