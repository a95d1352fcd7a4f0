# SPDX-License-Identifier: Apache-2.0
"""Durations, counted in buckets whose bounds double from 100 us.

A count is made on the path of each message, so that it must cost next to
nothing: one item of a list is raised by one. CPython changes threads at calls
and at the ends of loops, and not between the steps of that, so that no lock
is needed. (Where the GIL is off, a count may get lost now and then.)
"""

import bisect
from collections.abc import Iterable
from collections.abc import Sequence

# Seconds: the upper bounds of the buckets. One more bucket has the rest.
BOUNDS = tuple(0.0001 * 2 ** exponent for exponent in range(21))
SIZE = len(BOUNDS) + 1
_find = bisect.bisect_left


class Histogram:
    """How often something took how long.

    :ivar counts: of each bucket
    :ivar sum: seconds, of all durations

    Thread: any.
    """

    __slots__ = ('counts', 'sum')

    def __init__(self) -> None:
        self.counts = [0] * SIZE
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[_find(BOUNDS, seconds)] += 1
        self.sum += seconds

    def document(self) -> dict[str, object]:
        """What is published: the counts as a list without its last zeros,
        and the sum.
        """
        counts = list(self.counts)
        while counts and not counts[-1]:
            counts.pop()
        return {'counts': counts, 'sum': round(self.sum, 4)}


def total(counts: Sequence[int]) -> int:
    """How many durations were counted."""
    return sum(counts)


def added(several: Iterable[Sequence[int]]) -> list[int]:
    """The counts of several histograms in one."""
    found = [0] * SIZE
    for counts in several:
        for bucket, count in enumerate(counts[:SIZE]):
            found[bucket] += count
    return found


def percentile(counts: Sequence[int], part: float) -> float | None:
    """The duration below which a part of all durations lies, as well as the
    buckets can tell: within a bucket by the geometric mean.

    :param part: from 0 to 1
    :returns: seconds; None if nothing was counted; the last bound for what
        took longer
    """
    wanted = part * sum(counts)
    if not wanted:
        return None
    below = 0
    for bucket, count in enumerate(counts):
        if count and below + count >= wanted:
            if bucket >= len(BOUNDS):
                return BOUNDS[-1]
            return float(BOUNDS[bucket] / 2 ** (1 - (wanted - below) / count))
        below += count
    return BOUNDS[-1]
