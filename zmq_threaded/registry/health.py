# SPDX-License-Identifier: Apache-2.0
"""Whether the registry answers, and what is said about it when it does not."""

import random
import time

from zmq_threaded import counters as counting
from zmq_threaded import logs

LOG = logs.get(__name__)

# Reading and writing fail apart: of a full disk, or of a copy of redis that
# takes no writes, nothing but the reading works.
READING, WRITING = 'reading', 'writing'
# Pauses of a registry that fails, doubling, in update periods; at random up to
# a half shorter, for thousands of processes see it come back.
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 0.4


class Health:
    """Which kinds of operations fail, why, and when to try again.

    :param update: seconds between refreshes of the topics in use
    :param explain: makes text for the operator of an exception

    Thread: directory; any for `why`.
    """

    def __init__(self, update, explain, counters):
        self._update = update
        self._explain = explain
        self._counters = counters
        self._stalls = {}
        self._may_warn = counting.Seldom()
        #: why the last operation failed; '' if the registry answers
        self.why = ''
        self._since = 0.0

    def trouble(self):
        """:returns: (since when it fails, in monotonic seconds, why), or None
        if it answers
        """
        why = self.why
        return (self._since, why) if why else None

    def may_try(self, kind):
        """One that has just failed is left alone."""
        return time.monotonic() >= self.paused_until(kind)

    def paused_until(self, kind):
        """In monotonic seconds."""
        return self._stalls.get(kind, (0.0, 0.0))[1]

    def failed(self, kind, error, is_told=False):
        """:param is_told: its caller warns of it, with `why`"""
        self._counters.add('registry_errors')
        pause = min(max(2 * self._stalls.get(kind, (0.0, 0.0))[0],
                        _FIRST_PAUSE * self._update),
                    _LAST_PAUSE * self._update)
        self._stalls[kind] = pause, (time.monotonic()
                                     + pause * random.uniform(0.5, 1.0))
        if not self.why:
            self._since = time.monotonic()
        # As text: the error itself has hold of the connection.
        self.why = self._explain(error)
        if not is_told and self._may_warn.allows():
            LOG.warning('The registry fails in %s, going on with what is '
                        'known: %s', kind, self.why)

    def succeeded(self, kind):
        """:returns: whether all is well that was not"""
        if self._stalls.pop(kind, None) is None or self._stalls:
            return False
        self.why = ''
        LOG.info('The registry answers again')
        return True
