# SPDX-License-Identifier: Apache-2.0
"""Who is chosen in turn, who is passed over, and what that costs."""

import collections
import time

import pytest

from tests.support import waiting
from zmq_threaded import topic as topics
from zmq_threaded.client import reasons
from zmq_threaded.registry import avoided
from zmq_threaded.registry import cache
from zmq_threaded.registry import record
from zmq_threaded.registry import unanswered

TOPIC = topics.rpc('e', 't')


def _instances(count, **kwargs):
    return tuple(record.Instance(
        number.to_bytes(16, 'big'), (f'tcp://10.0.0.1:{number + 1}',),
        server=f's{number}', **kwargs) for number in range(count))


def _cache(instances, topic=TOPIC):
    known = cache.Cache(30, lambda key: None)
    known.absorb(known.entry(topic.key), instances, lambda missing: ())
    return known


def _turns(known, count):
    return collections.Counter(known.choose(TOPIC) for _ in range(count))


def test_turns_are_even_and_stay_so_when_one_is_passed_over():
    instances = _instances(3)
    known = _cache(instances)
    assert set(_turns(known, 30).values()) == {10}
    known.unreachable(instances[1], 'why')
    turns = _turns(known, 30)
    assert turns.keys() == {instances[0], instances[2]}
    assert min(turns.values()) >= 14
    known.reached(instances[1])
    assert set(_turns(known, 30).values()) == {10}


def test_an_answer_of_the_poller_does_not_hide_unanswered_calls(monkeypatch):
    monkeypatch.setattr(unanswered, '_SECONDS', 0.0)
    instances = _instances(2)
    known = _cache(instances)
    for each in instances * 3:
        known.unanswered.timed_out(each)
    known.is_there(instances[0])
    known.reached(instances[1])
    assert [each for each, _, _ in known.unanswered.all()] == [instances[0]]
    known.avoid(instances[0], for_ever=True, why='it is stopping')
    assert not known.unanswered.all()


def test_who_is_passed_over_is_never_chosen_until_its_pause_ends():
    instances = _instances(100)
    known = _cache(instances)
    for instance in instances[:-1]:
        known.unreachable(instance, 'why')
        assert instance not in known.live(TOPIC)
    assert known.live(TOPIC) == instances[-1:]
    assert set(_turns(known, 20)) == {instances[-1]}
    known.avoid(instances[-1], for_ever=True, why='it is stopping')
    assert known.choose(TOPIC) is None

    def others():
        known.tidy()
        return len(known.live(TOPIC)) == 99
    waiting.until(others, 3)


def test_what_is_behind_one_receiver_is_passed_over_together():
    instances = tuple(
        record.Instance(bytes([number]) * 16, ('tcp://10.0.0.1:9501',),
                            receiver=True) for number in range(5))
    known = _cache(instances)
    known.unreachable(instances[0], 'tcp://10.0.0.1:9501: refused')
    assert known.choose(TOPIC) is None
    assert 'the receiver of its node: tcp' in known.explain(TOPIC)
    known.reached(instances[3])
    assert set(known.live(TOPIC)) == set(instances)


def test_thousands_that_are_unreachable_cost_no_list_each(monkeypatch):
    made = []
    real = avoided.Avoided.without
    monkeypatch.setattr(avoided.Avoided, 'without', lambda self, instances: (
        made.append(len(instances)), real(self, instances))[1])
    known = _cache(_instances(5000))
    for number in range(200):      # other topics
        known.absorb(known.entry(f'other {number}'), _instances(10),
                     lambda missing: ())
    made.clear()
    count = 0
    while (instance := known.choose(TOPIC)) is not None:
        known.unreachable(instance, 'why')
        count += 1
    assert count == 5000
    assert len(made) < 200 and sum(made) < 200 * 5000


def test_a_new_list_and_new_pauses_at_the_same_time():
    known = _cache(_instances(10))
    more = _instances(20)
    entry = known.entry(TOPIC.key)
    known.unreachable(more[3], 'why')
    known.absorb(entry, more, lambda missing: ())
    assert len(known.live(TOPIC)) == 19


def test_who_left_is_dropped_and_who_may_be_lost_stays():
    left, lost, expired, dead = instances = _instances(4)
    known = _cache(instances)
    known.avoid(dead, why='refused')
    known.absorb(known.entry(TOPIC.key), (),
                 lambda missing: tuple(each for each in missing
                                       if each == lost),
                 frozenset({expired.id, dead.id}))
    assert known.listed(TOPIC) == (lost, expired)


# Explanations

def test_nobody_and_nothing_known():
    trouble = []
    known = cache.Cache(30, lambda key: None,
                        lambda: trouble[0] if trouble else None)
    assert known.explain(TOPIC) == (
        'the registry has not answered yet; nobody was known before')
    known.entry(TOPIC.key).looked_up_at = time.monotonic()
    assert known.explain(TOPIC) == 'nobody is registered under it'
    trouble.append((time.monotonic() - 12, 'OSError: x'))
    assert known.explain(TOPIC) == (
        'the registry has not answered for 12 s (OSError: x); nobody was '
        'known before')


def test_an_explanation_is_bounded_and_begins_with_what_is_known():
    instances = _instances(1000, host='node-7')
    known = _cache(instances)
    known.entry(TOPIC.key).looked_up_at = time.monotonic()
    known.unreachable(instances[900], 'x' * 100000)
    text = known.explain(TOPIC)
    assert text.startswith('1000 registered: s900 on node-7')
    assert 'and 997 more' in text
    assert len(text) < 2000


@pytest.mark.parametrize('count, lines', [(1, 1), (3, 3), (1000, 5)])
def test_the_log_is_told_of_few(caplog, count, lines):
    told = reasons.Warnings()
    for _ in range(3):
        for instance in _instances(count):
            told.tell(instance, 'refused')
    assert len(caplog.records) == lines


def test_an_instance_is_told_of_only_when_it_fails_again(caplog):
    known = _cache(_instances(1))
    instance = known.choose(TOPIC)
    known.unreachable(instance, 'first')
    assert not caplog.records
    waiting.until(lambda: not known._avoided.holds(instance), 3)
    known.unreachable(instance, 'tcp://10.0.0.1:1: connection refused')
    assert 's0 (instance' in caplog.text
    assert 'connection refused' in caplog.text
