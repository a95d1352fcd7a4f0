# SPDX-License-Identifier: Apache-2.0
"""Whether this process stood still: then what lies unread or unbegun in it
may have been given to others.
"""

import math
import time

# A sender gives up a service that shows no life for longer than this, in
# seconds (client/link.py, receiver/backend.py).
_GIVEN_AWAY_AFTER = 3.0
# How long what was sent to it meanwhile may take to come out of the kernel.
_WAKING = 1.0


class Pauses:
    """The pauses of this process, as one thread sees them that never waits
    for anything else.

    :cvar TICK: seconds within which it has to call tick() again

    Thread: reply for tick(); any for the rest.
    """

    TICK = 1.0

    def __init__(self):
        self._count = 0
        self._ticked_at = math.inf      # until its thread is started
        self._awake_at = 0.0

    def tick(self):
        now = time.monotonic()
        if now - self._ticked_at > _GIVEN_AWAY_AFTER:
            # In this order: who looks in between sees one of them.
            self._awake_at = now + _WAKING
            self._count += 1
        self._ticked_at = now

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
        now = time.monotonic()
        return now < self._awake_at or self._stood_still(now)

    def _stood_still(self, now):
        return now - self._ticked_at > _GIVEN_AWAY_AFTER
