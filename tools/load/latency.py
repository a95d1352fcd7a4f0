# SPDX-License-Identifier: Apache-2.0
"""Latency distributions on top of HdrHistogram."""

import collections

from hdrh.histogram import HdrHistogram

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_TICKS_PER_MS = 10_000
_LONGEST_TICKS = 3600 * 1000 * _TICKS_PER_MS


class Latencies:
    """Latencies of any number of operations, to three significant digits."""

    def __init__(self):
        self._histogram = HdrHistogram(1, _LONGEST_TICKS, 3)

    def record(self, seconds):
        """Add an iterable of latencies in seconds."""
        # The histogram is plain Python. Counting equal values first saves
        # most of its work.
        ticks = collections.Counter(
            max(1, round(value * 1000 * _TICKS_PER_MS)) for value in seconds)
        for value, count in ticks.items():
            self._histogram.record_value(min(value, _LONGEST_TICKS), count)

    def __len__(self):
        return self._histogram.get_total_count()

    def summary_ms(self):
        """Return a dict of latencies in milliseconds.

        The keys are 'p50', 'p90', 'p99', 'p99.9', 'max' and 'mean'. Every
        value is None if nothing was recorded.
        """
        names = [f'p{level:g}' for level in PERCENTILES]
        if not len(self):
            return dict.fromkeys([*names, 'max', 'mean'])
        values = self._histogram.get_percentile_to_value_dict(
            list(PERCENTILES)
        )
        ticks = [values[level] for level in PERCENTILES]
        ticks += [
            self._histogram.get_max_value(),
            self._histogram.get_mean_value(),
        ]
        return {name: round(value / _TICKS_PER_MS, 4)
                for name, value in zip([*names, 'max', 'mean'], ticks)}

    def curve(self, points_per_half=10):
        """Return [(percentile, milliseconds)], denser towards 100."""
        if not len(self):
            return []
        return [
            (
                item.percentile_level_iterated_to,
                item.value_iterated_to / _TICKS_PER_MS,
            )
            for item in self._histogram.get_percentile_iterator(
                points_per_half
            )
        ]
