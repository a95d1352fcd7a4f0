# SPDX-License-Identifier: Apache-2.0
"""What a sender knows of receivers that have said that they are closing."""

import time

import pytest

from zmq_threaded import timings
from zmq_threaded import wire
from zmq_threaded.client import answers
from zmq_threaded.receiver import closing as closes
from zmq_threaded.registry import avoided
from zmq_threaded.registry import closings
from zmq_threaded.registry import record

WAY = ('ipc:///x', 'tcp://h:1')


@pytest.fixture
def words(monkeypatch):
    """The words of receivers, at a time that the test sets."""
    made = closings.Closings()
    made.at = lambda now: monkeypatch.setattr(time, 'monotonic', lambda: now)
    made.at(100.0)
    return made


def test_one_that_closes_is_held_until_it_is_closed(words):
    assert not words.holds(WAY) and not words
    words.heard(WAY, 1.5)
    assert words.holds(WAY) and words.all() == {WAY} and words
    assert not words.holds('another')
    words.at(101.6)
    assert not words.holds(WAY) and not words.all()


def test_one_that_closes_is_expected_back_for_a_while(words):
    words.heard(WAY, 1.0)
    words.at(103.0)
    assert words.is_expected(WAY)
    words.at(107.0)
    assert not words.is_expected(WAY)


def test_connections_from_before_the_word_are_old(words):
    words.heard(WAY, 1.0)
    assert words.is_old(WAY, 99.0) and not words.is_old(WAY, 100.5)
    assert not words.is_old('another', 99.0)
    words.at(110.0)
    assert words.is_old(WAY, 99.0)


@pytest.mark.parametrize('opened, sent, is_certain', [
    (90.0, 100.1, True), (90.0, 100.49, True),
    # Before the word; it may have been passed on
    (90.0, 99.9, False),
    # So late that libzmq may have connected to the successor
    (90.0, 100.0 + timings.RECONNECT, False),
    # Opened after the word: perhaps to the successor
    (100.05, 100.1, False)])
def test_what_was_sent_after_the_word_was_not_taken(words, opened, sent,
                                                    is_certain):
    words.heard(WAY, 1.0)
    assert words.took_nothing(WAY, opened, sent) == is_certain
    assert not words.took_nothing('another', opened, sent)


def test_the_first_word_counts_and_the_last(words):
    words.heard(WAY, 2.0)
    words.at(101.0)
    words.heard(WAY, 1.0)
    assert words.took_nothing(WAY, 100.5, 100.2)
    assert words.took_nothing(WAY, 100.5, 101.4)
    assert not words.took_nothing(WAY, 101.1, 101.4)


def test_the_word_of_a_successor_is_another_one(words):
    words.heard(WAY, 1.0)
    words.at(103.0)
    words.heard(WAY, 1.0)
    # Between the two words it may have been taken by the successor.
    assert not words.took_nothing(WAY, 102.0, 102.5)
    assert words.took_nothing(WAY, 102.0, 103.1)


def test_words_are_forgotten_when_all_must_be_back(words):
    words.heard(WAY, 1.0)
    words.tidy()
    assert words
    words.at(200.0)
    words.tidy()
    assert not words


def test_all_behind_a_closing_receiver_are_passed_over(words):
    passed, one, other, direct = avoided.Avoided(), *(
        record.Instance(bytes((number,)) * 16, WAY, receiver=True)
        for number in (1, 2)), record.Instance(b'3' * 16, WAY)
    assert not passed and not passed.holds(one)
    changes = passed.changes
    passed.closes(one, 1.0)
    assert passed and passed.changes > changes
    assert passed.holds(one) and passed.holds(other)
    assert not passed.holds(direct)
    assert passed.without((one, other, direct)) == (direct,)
    assert 'closing' in passed.why(other)
    # A reply that the receiver still passes on changes nothing
    passed.remove(one)
    assert passed.holds(one)


# On the wire


def nack(**fields):
    return wire.decode(wire.encode_nack(b'i' * 16, b'm' * 16,
                                        wire.UNREACHABLE, 'why', **fields))


def test_a_refusal_says_when_its_receiver_is_closed():
    assert wire.closes_in(nack()) is None
    assert wire.closes_in(nack(closes_in=1.25)) == 1.25
    assert wire.closes_in(nack(closes_in=0.0)) == 0.0
    # Nobody is passed over for ever on the word of a stranger
    assert wire.closes_in(nack(closes_in=float('inf'))) <= 60
    assert wire.nack_reason(nack(closes_in=1.25)) == (wire.UNREACHABLE, 'why')


def test_only_a_receiver_says_that_it_is_closing():
    word = nack(closes_in=1.0)
    assert answers.read(word, True).closes_in == 1.0
    assert answers.read(word, False).closes_in is None


# The receiver's end of it


@pytest.fixture
def end(monkeypatch):
    """A receiver's Closing, whose wait() takes no time: it returns at once
    how long it would have taken.
    """
    now = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    moved = [0.0]
    made = closes.Closing(lambda: moved[0])
    comes = []      # when requests come

    def sleep(seconds):
        due = [at for at in comes if now[0] < at <= now[0] + seconds]
        now[0] = due[0] if due else now[0] + seconds
        if due:
            moved[0] = now[0]
            assert made.closes_in() is not None
    monkeypatch.setattr(time, 'sleep', sleep)

    def wait(*requests, linger=1.0, last_moved=99.9):
        comes.extend(100.0 + each for each in requests)
        moved[0] = last_moved
        made.begin(linger)
        made.wait()
        return now[0] - 100.0
    made.after = wait
    return made


def test_one_that_is_not_closing_says_nothing(end):
    assert not end.has_begun and end.closes_in() is None


def test_answers_get_the_time_of_zmq_linger(end):
    assert end.after() == pytest.approx(1.0)
    assert end.has_begun


def test_one_that_is_idle_waits_for_a_quiet_time_alone(end):
    assert end.after(last_moved=90.0) == pytest.approx(timings.RECEIVER_QUIET)


def test_without_linger_there_is_a_quiet_time(end):
    assert end.after(linger=0.0) == pytest.approx(timings.RECEIVER_QUIET)


def test_it_closes_when_nothing_has_come_for_the_quiet_time(end):
    assert end.after(0.3, 0.95, 1.0) == pytest.approx(
        1.0 + timings.RECEIVER_QUIET)


def test_it_closes_at_the_latest_when_it_said(end):
    assert end.after(*(each / 20 for each in range(100))) == pytest.approx(
        1.0 + timings.RECEIVER_OVERTIME)
    assert end.closes_in() == 0.0


def test_it_refuses_before_it_looks_whether_it_is_idle():
    # Else what is passed on in between would get no time for its answer
    seen = []
    made = closes.Closing(lambda: seen.append(made.closes_in()) or 0.0)
    made.begin(1.0)
    assert seen[0] >= made.closes_in() > 0
