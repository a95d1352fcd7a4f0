# SPDX-License-Identifier: Apache-2.0
"""How a receiver ends: what it says, and when it may close.

From its word on it passes on no request, only answers. Each request gets the
word in place of that. A sender that has heard the word sends nothing more, so
soon nothing more comes: then nothing is under way that would be lost.
"""

import time

from zmq_threaded import timings


class Closing:
    """The end of one receiver.

    Thread: receiver for refused(); any for the rest.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        # When it may close, and when it closes at the latest.
        self._may_close = self._latest = 0.0
        self._refused_at = 0.0

    def begin(self, linger: float, last_moved: float) -> None:
        """From now on requests are refused.

        :param linger: seconds for which answers are passed on. The receiver
            does not know which calls are in progress: all get the time.
        :param last_moved: when it passed something on last, in monotonic
            seconds
        """
        now = time.monotonic()
        is_idle = now - last_moved >= linger
        self._may_close = now + max(timings.RECEIVER_QUIET,
                                    0.0 if is_idle else linger)
        self._latest = self._may_close + timings.RECEIVER_OVERTIME
        self._began = now

    @property
    def has_begun(self) -> bool:
        """Whether the word was given."""
        return self._began is not None

    def refused(self) -> float | None:
        """Note that a request was refused.

        :returns: seconds after which the receiver is closed at the latest;
            None unless it is closing
        """
        if self._began is None:
            return None
        self._refused_at = time.monotonic()
        return max(0.0, self._latest - self._refused_at)

    def wait(self) -> None:
        """Return when it is time to close."""
        while (left := self._left()) > 0:
            time.sleep(left)

    def _left(self) -> float:
        quiet_at = self._refused_at + timings.RECEIVER_QUIET
        return (min(max(self._may_close, quiet_at), self._latest)
                - time.monotonic())
