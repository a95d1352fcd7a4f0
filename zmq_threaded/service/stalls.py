# SPDX-License-Identifier: Apache-2.0
"""Whether this process stood still: then what lies unread or unbegun in it
may have been given to others.
"""

import math
import time

# A sender gives up a service that shows no life for longer than this, in
# seconds (client/link.py, receiver/backend.py).
_GIVEN_AWAY_AFTER = 3.0
# How long at least what was sent to it meanwhile may take to come out of the
# kernel.
_WAKING = 1.0
# One that is starved by its own threads uses its time, and its I/O threads
# still show life.
_USED = 0.5


class Stalls:
    """The pauses of this process, as one thread sees them that never waits
    for anything else.

    :cvar TICK: seconds within which it has to call tick() again

    Thread: reply for tick(), poller for drained(); any for the rest.
    """

    TICK = 1.0

    def __init__(self):
        self._count = 0
        self._ticked_at = math.inf      # until its thread is started
        self._used = 0.0
        self._awake_at = 0.0
        self._waking = False

    def tick(self):
        now = time.monotonic()
        if self._stood_still(now):
            self._awake_at = now + _WAKING
            self._waking = True
            self._count += 1
        # Last, for who looks in between still finds that it stood still.
        self._ticked_at, self._used = now, time.process_time()

    def drained(self):
        """All that had arrived was read."""
        if self._waking and time.monotonic() >= self._awake_at:
            self._waking = False

    def now(self):
        """What to ask was_given_away() with, later."""
        return self._count

    def was_given_away(self, came):
        """Whether senders may have given up what came then.

        :param came: what now() said
        """
        return came != self._count or self._stood_still(time.monotonic())

    def is_waking(self):
        """Whether what is read now may have come in a pause."""
        return self._waking or self._stood_still(time.monotonic())

    def _stood_still(self, now):
        gap = now - self._ticked_at
        return (gap > _GIVEN_AWAY_AFTER
                and time.process_time() - self._used < _USED * gap)
