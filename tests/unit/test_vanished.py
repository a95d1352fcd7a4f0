# SPDX-License-Identifier: Apache-2.0
"""Who was registered a moment ago, as the view of a directory knows it."""

import pytest

from zmq_threaded import topic as topics
from zmq_threaded.registry import cache
from zmq_threaded.registry import record
from zmq_threaded.registry import vanished

TOPIC = topics.rpc('exchange', 'topic')
A, B, C = (record.Instance(name * 16, ('tcp://127.0.0.1:1',))
           for name in (b'a', b'b', b'c'))


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(vanished, 'time', made)
    return made


@pytest.fixture
def known(clock):
    made = cache.Cache(30.0, lambda key: None)

    def found(*instances, doubtful=False):
        made.absorb(made.entry(TOPIC.key), instances,
                    lambda missing: missing if doubtful else ())
    made.found = found
    return made


def of(known):
    return [(instance, round(ago)) for instance, ago in known.vanished(TOPIC)]


def test_nobody_vanishes_who_never_was_or_still_is(known):
    assert of(known) == []
    known.found()
    known.found(A, B)
    known.found(B, A)
    assert of(known) == []


def test_who_went_is_known_for_the_life_of_a_record(known, clock):
    known.found(A, B, C)
    known.found(B, C)
    clock.now += 20
    known.found(C)
    assert of(known) == [(B, 0), (A, 20)]
    clock.now += 10
    assert of(known) == [(B, 10)]
    clock.now += 20
    assert of(known) == []
    known.found(C)
    assert not known._vanished._by_key


def test_who_is_back_has_not_vanished(known):
    known.found(A, B)
    known.found(A)
    known.found(A, B)
    assert of(known) == []


def test_who_is_missing_while_the_registry_is_doubted_is_still_listed(known):
    known.found(A)
    known.found(doubtful=True)
    assert known.listed(TOPIC) and of(known) == []
    known.found()
    assert of(known) == [(A, 0)]


def test_who_has_said_that_it_is_gone_has_not_vanished(known):
    known.found(A, B)
    known.avoid(A, for_ever=True)
    known.avoid(B)
    known.found()
    assert of(known) == [(B, 0)]
