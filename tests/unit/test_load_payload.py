# SPDX-License-Identifier: Apache-2.0
"""Payloads of the load tool."""

import statistics

import pytest
from load import payload


def test_real_sizes_have_the_promised_distribution():
    sizes = payload.real_sizes(1024)
    deciles = statistics.quantiles(sizes, n=10)
    assert deciles[4] == pytest.approx(payload.REAL_MEDIAN_BYTES, rel=0.01)
    assert deciles[8] == pytest.approx(payload.REAL_P90_BYTES, rel=0.01)


def test_pool_of_real_sizes_holds_these_sizes_in_another_order():
    lengths = [len(text) for text in payload.make_pool(payload.REAL)]
    assert sorted(lengths) == payload.real_sizes(len(lengths))
    assert lengths != sorted(lengths)


@pytest.mark.parametrize('size', [0, 1, 64, 70_000, 20 << 20])
def test_fixed_size_is_exact_and_ascii(size):
    pool = payload.make_pool(size)
    assert {len(text.encode('ascii')) for text in pool} == {size}


def test_big_payloads_do_not_fill_memory():
    assert sum(map(len, payload.make_pool(1 << 20))) <= 8 << 20


def test_same_seed_same_pool():
    assert payload.make_pool(100, seed=3) == payload.make_pool(100, seed=3)
    assert payload.make_pool(100, seed=3) != payload.make_pool(100, seed=4)


def test_pool_index_walks_the_whole_pool_from_different_places():
    walks = [
        [payload.pool_index(thread, n, 10) for n in range(10)]
        for thread in range(2)
    ]
    assert sorted(walks[0]) == sorted(walks[1]) == list(range(10))
    assert walks[0] != walks[1]
