# SPDX-License-Identifier: Apache-2.0
"""When a topic is looked up of which a notice tells (no registry)."""

import time

import pytest

from zmq_threaded.registry import cache as caches
from zmq_threaded.registry import look_ups
from zmq_threaded.registry import record

UPDATE, EXPIRE = 10, 30


@pytest.fixture
def due():
    """due(told, listed): the seconds until each of many processes looks."""
    def make(told, listed=0, count=300):
        waits = []
        for _ in range(count):
            cache = caches.Cache(EXPIRE, lambda key: None)
            looking = look_ups.LookUps(None, cache, None, UPDATE, EXPIRE)
            entry = cache.entry('key')
            entry.listed = tuple(
                record.Instance(number.to_bytes(16, 'big'), ('tcp://a:1',))
                for number in range(listed))
            looking.notice('key', told)
            waits.append(entry.next_lookup - time.monotonic())
        return waits
    return make


def test_few_look_at_once(due):
    assert max(due(1)) < 0.11 and max(due(0)) < 0.11


def test_thousands_are_spread(due):
    waits = due(10_000)
    assert 0.8 < max(waits) < 1.01 and min(waits) < 0.2


def test_a_large_topic_is_spread_more_but_no_longer_than_a_refresh(due):
    waits = due(10_000, listed=100, count=50)
    assert 5 < max(waits) < UPDATE + 0.1
    assert max(due(10_000, listed=2000, count=50)) < UPDATE + 0.1


def test_who_does_not_use_a_topic_does_not_look():
    cache = caches.Cache(EXPIRE, lambda key: None)
    looking = look_ups.LookUps(None, cache, None, UPDATE, EXPIRE)
    looking.notice('key', 1)
    assert looking.next_due() == float('inf')


def test_a_second_notice_does_not_put_off_the_first():
    cache = caches.Cache(EXPIRE, lambda key: None)
    looking = look_ups.LookUps(None, cache, None, UPDATE, EXPIRE)
    cache.entry('key')
    looking.notice('key', 1)
    for _ in range(100):
        before = cache.find('key').next_lookup
        looking.notice('key', 1_000_000)
        assert cache.find('key').next_lookup <= before
