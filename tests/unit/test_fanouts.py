# SPDX-License-Identifier: Apache-2.0
"""Which fanouts reached nobody."""

import pytest

from tests.support import ids
from zmq_threaded.client import fanouts


class Copy:
    def __init__(self, message_id, instance):
        self.id, self.instance = message_id, instance


@pytest.fixture
def known():
    return fanouts.Fanouts()


def spread(known, count):
    message_id = ids.new_id()
    known.spread(message_id, count)
    return [Copy(message_id, number) for number in range(count)]


def test_one_whose_servers_are_all_gone_reached_nobody(known):
    copies = spread(known, 3)
    assert [known.ended(each, True) for each in copies] == [[], [], [0, 1, 2]]
    assert not len(known)


@pytest.mark.parametrize('other', range(3))
def test_one_that_somebody_had_or_may_have_had_did_not(known, other):
    copies = spread(known, 3)
    assert not any(known.ended(each, each.instance != other)
                   for each in copies)
    assert not len(known)


def test_fanouts_are_told_apart(known):
    (one,), (first, second) = spread(known, 1), spread(known, 2)
    assert known.ended(first, True) == []
    assert known.ended(one, True) == [0]
    assert known.ended(second, False) == []


def test_what_is_not_known_is_nothing(known):
    spread(known, 0)
    assert not len(known)
    assert known.ended(Copy(ids.new_id(), 1), True) == []
