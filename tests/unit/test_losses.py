# SPDX-License-Identifier: Apache-2.0
"""What is given up is counted and reported, and no flood of lines."""

import collections
import logging

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tests.support import ids
from zmq_threaded import counters as counting
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import losses
from zmq_threaded.registry import record

TOPIC = topics.rpc('exchange', 'topic')
CAUSES = [losses.NOBODY_TOOK, losses.NO_ROOM, losses.CLOSED]
INSTANCE = record.Instance(b'i' * 16, ('ipc:///x',), host='node-7',
                               server='compute')


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(losses, 'time', made)
    return made


@pytest.fixture
def counters():
    return counting.Counters()


@pytest.fixture
def reports(clock, counters):
    return losses.Losses(counters)


def a_delivery(topic=TOPIC, kind=wire.CAST):
    return deliveries.Delivery(id=ids.new_id(), kind=kind, topic=topic,
                               body=[b'secret', b'secret'], flags=0,
                               expires=1e9)


def drop(reports, count=1, topic=TOPIC, cause=losses.NOBODY_TOOK):
    dropped = [a_delivery(topic) for _ in range(count)]
    for each in dropped:
        reports.dropped(each, cause, cause.why)
    return dropped


def warnings(caplog):
    return [record.getMessage() for record in caplog.records
            if record.levelno == logging.WARNING]


def test_the_first_is_a_warning_with_id_topic_cause_and_remedy(
        reports, caplog):
    one, = drop(reports)
    line, = warnings(caplog)
    for text in (f'CAST {one.id.hex()} for {TOPIC} was dropped',
                 losses.NOBODY_TOOK.why, losses.NOBODY_TOOK.remedy):
        assert text in line


def test_later_ones_are_summed_up_once_a_minute(reports, clock, caplog):
    drop(reports, 413)
    assert len(warnings(caplog)) == 1
    clock.now += 59
    reports.tick(clock.now)
    assert len(warnings(caplog)) == 1
    clock.now += 1
    reports.tick(clock.now)
    _, line = warnings(caplog)
    assert line.startswith(f'412 more messages for {TOPIC} were dropped in '
                           f'the last 60 s: {losses.NOBODY_TOOK.why}')
    drop(reports, 5)
    clock.now += 60
    reports.tick(clock.now)
    assert warnings(caplog)[2].startswith('5 more ')


def test_after_a_quiet_minute_the_next_is_a_first_again(
        reports, clock, caplog):
    drop(reports)
    clock.now += 60
    reports.tick(clock.now)
    assert len(warnings(caplog)) == 1
    one, = drop(reports)
    assert one.id.hex() in warnings(caplog)[1]


def test_each_id_is_in_the_log_once_at_level_debug(reports, caplog):
    caplog.set_level(logging.DEBUG)
    dropped = drop(reports, 30)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 30
    for each, line in zip(dropped, lines):
        assert line.startswith(
            f'CAST {each.id.hex()} for {TOPIC} was dropped: ')


def test_topics_and_causes_are_reported_apart(reports, clock, caplog):
    for cause in CAUSES:
        for name in 'ab':
            drop(reports, 3, topics.rpc('exchange', name), cause)
    assert len(warnings(caplog)) == 6
    clock.now += 60
    reports.tick(clock.now)
    assert len([line for line in warnings(caplog)
                if line.startswith('2 more ')]) == 6


def test_each_is_counted_and_by_its_cause(reports, counters):
    drop(reports, 3)
    drop(reports, 2, cause=losses.CLOSED)
    assert counters.snapshot() == {'dropped': 5, 'dropped_nobody_took': 3,
                                   'dropped_closed': 2}


def test_names_of_causes_differ():
    causes = [each for each in vars(losses).values()
              if isinstance(each, losses.Cause)]
    assert len({each.name for each in causes}) == len(causes) > 8
    assert all(each.why and each.remedy for each in causes)


def test_thousands_of_topics_neither_grow_the_table_nor_flood_the_log(
        reports, clock, caplog):
    for minute in range(3):
        for number in range(3000):
            for cause in CAUSES:
                drop(reports, 2, topics.rpc('exchange', f'host{number}'),
                     cause)
        assert len(reports._sums) <= losses._LIMIT + len(CAUSES)
        clock.now += 60
        reports.tick(clock.now)
        lines = warnings(caplog)
        # The first ones, then sums
        assert len(lines) <= (minute + 2) * (losses._LIMIT + len(CAUSES))
        assert any(f'for {losses._REST} were dropped' in line
                   for line in lines)
        assert len(caplog.records) == len(lines)


def test_what_is_left_is_written_at_the_end(reports, clock, caplog):
    drop(reports, 10, cause=losses.CLOSED)
    clock.now += 3
    reports.close()
    assert warnings(caplog)[1].startswith(
        f'9 more messages for {TOPIC} were dropped in the last 3 s: '
        'the driver was closed')
    reports.close()
    assert len(warnings(caplog)) == 2


def test_no_body_is_logged(reports, caplog):
    caplog.set_level(logging.DEBUG)
    drop(reports, 3)
    reports.close()
    assert 'secret' not in caplog.text


def test_copies_for_a_server_that_is_gone_are_no_loss(
        reports, counters, caplog):
    caplog.set_level(logging.DEBUG)
    for _ in range(80):
        reports.copy_for_gone(a_delivery(kind=wire.FANOUT), 'it is gone')
    reports.close()
    assert counters.snapshot() == {'copies_for_gone': 80}
    assert not warnings(caplog) and len(caplog.records) == 80


def test_who_was_known_is_named_once_a_minute(reports, clock, caplog):
    for _ in range(9):
        reports.nobody_there(a_delivery(kind=wire.FANOUT), 'reached nobody',
                             [(INSTANCE, 3.2)] * 5)
    line, = warnings(caplog)
    assert 'reached nobody' in line and '(3 s ago)' in line
    assert 'compute on node-7' in line and 'and 2 others' in line
    clock.now += 60
    reports.tick(clock.now)
    assert warnings(caplog)[1].startswith(
        f'8 more messages for {TOPIC} went to nobody')


steps = st.lists(st.one_of(
    st.tuples(st.just('drop'), st.integers(0, 60), st.sampled_from(CAUSES)),
    st.tuples(st.just('wait'), st.integers(0, 90), st.none())), max_size=80)


@given(steps)
@settings(deadline=None)
def test_the_lines_tell_of_each_loss_once(steps):
    """Those with an id are one each, sums are what they say."""
    clock, counters = Clock(), counting.Counters()
    told = collections.Counter()

    class Log:
        @staticmethod
        def warning(text, *args):
            told['sum' if text.startswith('%d more') else 'first'] += (
                args[0] if text.startswith('%d more') else 1)

        @staticmethod
        def debug(text, *args):
            pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, 'time', clock)
        patch.setattr(losses, 'LOG', Log)
        reports = losses.Losses(counters)
        for what, number, cause in steps:
            if what == 'drop':
                drop(reports, 1, topics.rpc('exchange', str(number)), cause)
            else:
                clock.now += number
                reports.tick(clock.now)
        reports.close()
    assert told['sum'] + told['first'] == counters.snapshot().get('dropped', 0)
