# SPDX-License-Identifier: Apache-2.0
"""Percentiles of the load tool."""

import pytest
from load import latency


def test_percentiles_of_known_values():
    latencies = latency.Latencies()
    latencies.record(n / 1000 for n in range(1, 1001))
    summary = latencies.summary_ms()
    expected = {
        'p50': 500,
        'p90': 900,
        'p99': 990,
        'p99.9': 999,
        'max': 1000,
        'mean': 500.5,
    }
    assert summary == pytest.approx(expected, rel=0.002)
    assert len(latencies) == 1000


def test_microseconds_are_resolved():
    latencies = latency.Latencies()
    latencies.record([25.3e-6])
    assert latencies.summary_ms()['p50'] == pytest.approx(0.0253, rel=0.01)


def test_recording_adds_up():
    latencies = latency.Latencies()
    latencies.record([0.001] * 3)
    latencies.record([0.009])
    assert len(latencies) == 4
    assert latencies.summary_ms()['max'] == pytest.approx(9, rel=0.002)


def test_nothing_recorded():
    latencies = latency.Latencies()
    assert set(latencies.summary_ms().values()) == {None}
    assert latencies.curve() == []


def test_an_absurd_latency_is_kept_as_the_longest():
    latencies = latency.Latencies()
    latencies.record([1e6])
    assert len(latencies) == 1


def test_curve_rises_to_the_maximum():
    latencies = latency.Latencies()
    latencies.record(n / 1000 for n in range(1, 1001))
    levels, values = zip(*latencies.curve())
    assert list(levels) == sorted(levels)
    assert list(values) == sorted(values)
    assert values[-1] == pytest.approx(1000, rel=0.002)
