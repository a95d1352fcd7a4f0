# SPDX-License-Identifier: Apache-2.0
"""How often a peer may ask for what costs more than the question."""

import collections
import time
from collections.abc import Hashable

from zmq_threaded import timings

_PERIOD = 1.0
# Further peers of the same period have to ask again.
_MOST_PEERS = 10_000


class Quota:
    """Counts what each peer asks in a second.

    :param limit: questions of one peer in a second

    Thread: one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: collections.Counter[Hashable] = collections.Counter()
        self._next = 0.0

    def allows(self, peer: Hashable) -> bool:
        """Whether this peer may ask once more, for now.

        :param peer: whatever names it
        """
        now = time.monotonic()
        if now >= self._next:
            self._counts.clear()
            self._next = now + _PERIOD
        if peer not in self._counts and len(self._counts) >= _MOST_PEERS:
            return False
        self._counts[peer] += 1
        return self._counts[peer] <= self._limit


# A sender asks an instance about once a second, in one or two messages. A
# question that is not answered is asked again.
QUERIES = timings.QUERIES
