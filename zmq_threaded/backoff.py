# SPDX-License-Identifier: Apache-2.0
"""Waits that grow with each failure, until something succeeds."""

import random


class Backoff:
    """One wait after another, each longer than the one before.

    The caller says what time it is, in monotonic seconds, and decides what a
    failure and what a success is.

    :param first: seconds of the first wait
    :param last: seconds of the longest wait
    :param growth: how many times as long as the one before a wait is
    :param jitter: the part of a wait that is left out at random at the most;
        many processes that saw the same failure then come back one by one
    :ivar seconds: of the latest wait, before the jitter; 0.0 when there was
        none since the last success
    :ivar until: when the latest wait ends, in monotonic seconds; 0.0 when
        there was none since the last success

    Thread: any, one at a time.
    """

    __slots__ = ('_first', '_last', '_growth', '_jitter', 'seconds', 'until')

    def __init__(self, first: float, last: float, growth: float = 2.0,
                 jitter: float = 0.0) -> None:
        self._first, self._last = first, last
        self._growth, self._jitter = growth, jitter
        self.seconds = self.until = 0.0

    def failed(self, now: float) -> float:
        """Begin the next wait.

        :returns: the seconds of this wait
        """
        self.seconds = min(max(self._growth * self.seconds, self._first),
                           self._last)
        wait = self.seconds
        if self._jitter:
            wait *= random.uniform(1.0 - self._jitter, 1.0)
        self.until = now + wait
        return wait

    def succeeded(self) -> None:
        """End the wait; the next one is as short as the first."""
        self.seconds = self.until = 0.0

    def is_waiting(self, now: float) -> bool:
        """Whether the latest wait has not ended yet."""
        return now < self.until
