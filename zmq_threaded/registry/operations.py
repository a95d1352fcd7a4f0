# SPDX-License-Identifier: Apache-2.0
"""Operations of the registry, the back-off from one that fails, and what is
said about it.
"""

import math
import time
from collections.abc import Callable
from typing import Any

from zmq_threaded import backoff
from zmq_threaded import counters as counting
from zmq_threaded import logs

LOG = logs.get(__name__)

# Reading and writing fail apart. With a full disk, or with a copy of redis
# that takes no writes, nothing but the reading works.
READING, WRITING = 'reading', 'writing'
# The waits after failures double. They are multiples of the update period. At
# random a wait is shorter by up to a half, for thousands of processes see the
# registry come back.
_FIRST_WAIT, _LAST_WAIT, _JITTER = 0.05, 0.4, 0.5


class Operations:
    """Runs operations of the registry, and leaves a registry that has just
    failed alone for a growing time.

    :param update: seconds between refreshes of the topics in use
    :param explain: makes a text for the operator of an exception
    :param recovered: called when the registry answers again
    :ivar why: why the last operation failed; '' if the registry answers
    :ivar failed_at: when an operation failed last, in monotonic seconds
    :ivar is_closing: what fails from now on was interrupted by us

    Thread: registry; any for `why` and trouble().
    """

    def __init__(self, update: float, explain: Callable[[Exception], str],
                 counters: counting.Counters,
                 recovered: Callable[[], None] = lambda: None) -> None:
        self._explain = explain
        self._counters = counters
        self._recovered = recovered
        self._waits = {kind: backoff.Backoff(
            _FIRST_WAIT * update, _LAST_WAIT * update, jitter=_JITTER)
            for kind in (READING, WRITING)}
        self._may_warn = counting.Seldom()
        self._since = 0.0
        self.why = ''
        self.failed_at = -math.inf
        self.is_closing = False

    def trouble(self) -> tuple[float, str] | None:
        """Since when the registry fails, in monotonic seconds, and why; or
        None if it answers.
        """
        why = self.why
        return (self._since, why) if why else None

    def is_due(self, kind: str) -> bool:
        """Whether the wait after the last failure of this kind is over."""
        return not self._waits[kind].is_waiting(time.monotonic())

    def resumes_at(self, kind: str) -> float:
        """When the wait after the last failure of this kind ends, in
        monotonic seconds; a time in the past if nothing failed.
        """
        return self._waits[kind].until

    def run_if_due(self, kind: str, operation: Callable[..., Any],
                   *args: Any) -> bool:
        """Run an operation as run() does, unless it must still wait.

        :returns: whether the operation was run and succeeded
        """
        return self.is_due(kind) and self.run(kind, operation, *args)

    def run(self, kind: str, operation: Callable[..., Any], *args: Any,
            is_told: bool = False) -> bool:
        """Run an operation. The clients of the engines raise what they like.

        :param kind: READING or WRITING
        :param operation: returns False if it had nothing to ask the registry
        :param is_told: the caller warns of a failure itself
        :returns: whether the operation succeeded
        """
        try:
            was_asked = operation(*args) is not False
        except Exception as error:
            self._failed(kind, error, is_told)
            return False
        if was_asked:
            self._succeeded(kind)
        return True

    def _failed(self, kind: str, error: Exception, is_told: bool) -> None:
        self._counters.add('registry_errors')
        now = self.failed_at = time.monotonic()
        self._waits[kind].failed(now)
        if not self.why:
            self._since = now
        # As text: the error itself holds on to the connection.
        self.why = self._explain(error)
        if not (is_told or self.is_closing) and self._may_warn.allows():
            LOG.warning('The registry fails in %s, going on with what is '
                        'known: %s', kind, self.why)

    def _succeeded(self, kind: str) -> None:
        if not self._waits[kind].seconds:
            return
        self._waits[kind].succeeded()
        if any(wait.seconds for wait in self._waits.values()):
            return
        self.why = ''
        LOG.info('The registry answers again')
        self._recovered()
