# SPDX-License-Identifier: Apache-2.0
"""How a Runtime closes: once, by a thread of its own, and within a time.

Exceptions such as KeyboardInterrupt come at any line of the thread that asked
for it. So that one only waits, and what was begun is done.
"""

import inspect
import math
import threading
import time
from collections.abc import Callable
from typing import Any

from zmq_threaded import errors
from zmq_threaded import logs
from zmq_threaded import once
from zmq_threaded import threads
from zmq_threaded.client import flushes
from zmq_threaded.client import outbox as outboxes
from zmq_threaded.net import descriptors

LOG = logs.get(__name__)

# Seconds after which a flush says what it waits for, and for how many topics.
_SILENCE, _TOPICS_TOLD = 0.3, 5
_SURVEY_LIMIT = 0.5
# How long closing is waited for after its time for the flush. A signal handler
# may have interrupted its thread where that has a lock which closing needs:
# then closing goes on when the handler has returned.
_OTHER_LIMIT = 20.0
_POLL = 0.002
_PACKAGE = 'zmq_threaded.'


class Closing:
    """Does all that has to be done at the end of a Runtime.

    :param steps: called with the time for the flush, in monotonic seconds,
        and whether the process is ending; returns a list of what is to be
        done. What an exception has ended is done by the next close().
    :param hurry: called when the thread that waits was interrupted

    Thread: any.
    """

    def __init__(self, steps: Callable[[float, bool], list[Callable]],
                 hurry: Callable[[], None]) -> None:
        self._steps = steps
        self._hurry = hurry
        # The thread that does it, and those that wait for it.
        self._runner = once.Once()
        self._waiting: set[int] = set()

    def close(self, flush_deadline: float, is_exit: bool = False) -> None:
        """Do it, or wait until another thread has done it.

        :param flush_deadline: monotonic seconds until which acknowledgements
            are waited for
        :raises: what a step has raised
        """
        if not threads.may_wait():
            # The garbage collector runs code of anybody in our threads.
            return self.begin(flush_deadline, is_exit)
        me = threading.get_ident()
        if me in self._waiting:
            return      # a signal handler; what it interrupted goes on
        try:
            self._waiting.add(me)
            self._do(flush_deadline, is_exit)
        except BaseException:
            self._hurry()
            self._do(time.monotonic(), is_exit)
            raise
        finally:
            self._waiting.discard(me)

    def begin(self, flush_deadline: float, is_exit: bool = False) -> None:
        """Have it done by a thread of its own, and do not wait."""
        if not self._runner.is_claimed():
            try:
                self._started(flush_deadline, is_exit, [])
            except descriptors.Short as error:
                LOG.debug('zmq: a driver is closed later: %s', error)

    def _do(self, flush_deadline, is_exit):
        limit = max(flush_deadline, time.monotonic()) + _OTHER_LIMIT
        raised: list[BaseException] = []
        if _is_over_the_driver():
            return self._run_here(flush_deadline, is_exit, raised)
        try:
            thread = self._started(flush_deadline, is_exit, raised)
        except descriptors.Short:
            # None to be had, or not at the end of the interpreter.
            return self._run_here(flush_deadline, is_exit, raised)
        self._wait(thread, limit)
        if raised:
            raise raised[0]

    def _run_here(self, flush_deadline, is_exit, raised):
        self._run(flush_deadline, is_exit, raised)
        if raised:
            raise raised[0]

    def _started(self, *args):
        return threads.started(self._run, 'zmq-closing', *args)

    def _wait(self, thread, limit):
        while ((thread.is_alive() or self._runner.is_claimed())
               and time.monotonic() < limit):
            time.sleep(_POLL)

    def _run(self, flush_deadline, is_exit, raised):
        me = threading.get_ident()
        try:
            if self._runner.claim(me):
                threads.do_all(self._steps(flush_deadline, is_exit))
        except BaseException as error:
            raised.append(error)
        finally:
            self._runner.give_back(me)


def _is_over_the_driver():
    """Whether a signal handler asks that has interrupted the driver. What it
    interrupted may have locks, which are reentrant: only the same thread gets
    on.
    """
    frame, has_left = inspect.currentframe(), False
    while frame is not None:
        is_ours = frame.f_globals.get('__name__', '').startswith(_PACKAGE)
        if is_ours and has_left:
            return True
        has_left = has_left or not is_ours
        frame = frame.f_back
    return False


class Flushing:
    """Waits until what is in the custody of an outbox has left it.

    :param exit_timeout: seconds that the exit of the process may wait

    Thread: any.
    """

    def __init__(self, outbox: outboxes.Outbox, exit_timeout: float) -> None:
        self._outbox = outbox
        self.exit_timeout = exit_timeout
        self._latest: flushes.Flush | None = None
        self._has_told = False
        self.is_hurried = False

    def for_exit(self) -> None:
        """Wait as the exit of the process does, but close nothing."""
        now = time.monotonic()
        self.wait(now + self.exit_timeout, True, now)

    def hurry(self) -> None:
        """End the wait: whoever closes was interrupted."""
        self.is_hurried = True
        if self._latest is not None:
            self._latest.end()

    def wait(self, deadline: float, is_exit: bool, until: float = math.inf,
             in_all: float | None = None) -> None:
        """Wait, and say for what if it takes long.

        :param deadline: monotonic seconds
        :param until: only for what was posted before, in monotonic seconds
        :param in_all: when the last flush ends, for the log
        """
        flush = self._latest = self._outbox.begin_flush(deadline, until)
        if not flush.wait(min(deadline, time.monotonic() + _SILENCE)):
            self._tell(in_all or deadline, is_exit)
            flush.wait(deadline)

    def _tell(self, deadline, is_exit):
        left = deadline - time.monotonic()
        if self._has_told or left <= 0:
            return
        self._has_told = True
        try:
            waiting: Any = self._outbox.survey(min(left, _SURVEY_LIMIT))
        except errors.MessagingTimeout as error:
            waiting = str(error)
        LOG.warning('zmq: %s waits up to %.1f s (%s) for messages to be '
                    'acknowledged: %s',
                    'the exit of this process' if is_exit else 'cleanup()',
                    left, 'rpc_zmq_exit_timeout' if is_exit
                    else 'rpc_cast_timeout', _by_topic(waiting))


def _by_topic(waiting):
    """What Outbox.survey() returns, in words."""
    if not isinstance(waiting, dict):
        return waiting
    told = sorted(waiting.items(), key=lambda each: -each[1]['count'])
    text = ', '.join(f'{each["count"]} for topic {topic}'
                     for topic, each in told[:_TOPICS_TOLD])
    return text + (f', and for {len(told) - _TOPICS_TOLD} more topics'
                   if len(told) > _TOPICS_TOLD else '')
