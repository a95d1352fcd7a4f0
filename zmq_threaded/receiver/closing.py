# SPDX-License-Identifier: Apache-2.0
"""How a receiver ends: what it says, and when it may close.

From its word on it passes on no request, only answers. Each request gets the
word in place of that. A sender that has heard the word sends nothing more, so
soon nothing more comes: then nothing is under way that would be lost.
"""

import time
from collections.abc import Callable

from zmq_threaded import timings


class Closing:
    """The end of one receiver.

    :param last_moved: returns when it read or passed on something last, in
        monotonic seconds

    Thread: any.
    """

    def __init__(self, last_moved: Callable[[], float]) -> None:
        self._last_moved = last_moved
        self._began: float | None = None
        # When it may close, and when it closes at the latest.
        self._may_close = self._latest = 0.0

    def begin(self, linger: float) -> None:
        """From now on requests are refused.

        :param linger: seconds for which answers are passed on. The receiver
            does not know which calls are in progress: all get the time.
        """
        now = time.monotonic()
        longest = max(timings.RECEIVER_QUIET, linger)
        self._latest = now + longest + timings.RECEIVER_OVERTIME
        # Before the look at what moved last: a request that comes at the same
        # time is refused, or the answer to it gets its time.
        self._began = now
        is_idle = now - self._last_moved() >= linger
        self._may_close = now + (timings.RECEIVER_QUIET if is_idle
                                 else longest)
        self._latest = self._may_close + timings.RECEIVER_OVERTIME

    @property
    def has_begun(self) -> bool:
        """Whether the word was given."""
        return self._began is not None

    def closes_in(self) -> float | None:
        """
        :returns: seconds after which the receiver is closed at the latest;
            None unless it is closing
        """
        if self._began is None:
            return None
        return max(0.0, self._latest - time.monotonic())

    def wait(self) -> None:
        """Return when it is time to close."""
        while (left := self._left()) > 0:
            time.sleep(left)

    def _left(self) -> float:
        # The last answers, too: who has not read them when the connection
        # ends never will.
        quiet_at = self._last_moved() + timings.RECEIVER_QUIET
        return (min(max(self._may_close, quiet_at), self._latest)
                - time.monotonic())
