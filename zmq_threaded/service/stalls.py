# SPDX-License-Identifier: Apache-2.0
"""Whether this process stood still: stopped, starved, or frozen with its
machine. Then what lies unread or unbegun in it may have been given to others.
"""

import math
import time

from zmq_threaded import timings

# A process that is starved by its own threads uses this part of the time, and
# its I/O threads still show life: nobody gives it up.
_USED = 0.5
# A tick so many seconds after the last one says nothing new; to ask the system
# what was used would be a part of each reply's cost.
_TICK_AT_LEAST = 0.1


class Stalls:
    """The stalls of this process: a thread that never waits for anything else
    sees them, for it calls tick() too late.

    :ivar ticked_at: when tick() was called last, in monotonic seconds; inf
        before the first time

    Thread: reply for tick(), poller for drained(); any for the rest.
    """

    def __init__(self) -> None:
        self._count = 0
        self.ticked_at = math.inf       # until its thread is started
        self._used = 0.0
        self._awake_at = 0.0
        self._waking = False

    def tick(self) -> None:
        """To be called again within timings.STALL_TICK."""
        now = time.monotonic()
        if self.ticked_at <= now < self.ticked_at + _TICK_AT_LEAST:
            return
        if self._stood_still(now):
            self._awake_at = now + timings.WAKING
            self._waking = True
            self._count += 1
        # Last, for who looks in between still finds that it stood still.
        self.ticked_at, self._used = now, time.process_time()

    def drained(self) -> None:
        """All that had arrived was read."""
        if self._waking and time.monotonic() >= self._awake_at:
            self._waking = False

    def now(self) -> int:
        """What to ask was_given_away() with, later."""
        return self._count

    def was_given_away(self, came: int) -> bool:
        """Whether senders may have given up what came then.

        :param came: what now() said
        """
        return came != self._count or self._stood_still(time.monotonic())

    def is_waking(self) -> bool:
        """Whether what is read now may have come during a stall."""
        return self._waking or self._stood_still(time.monotonic())

    def _stood_still(self, now):
        gap = now - self.ticked_at
        return (gap > timings.GIVEN_AWAY_AFTER
                and time.process_time() - self._used < _USED * gap)
