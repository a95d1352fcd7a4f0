# SPDX-License-Identifier: Apache-2.0
"""What only the first of many threads does."""

import signal
import threading

import pytest

from zmq_threaded import once


def test_it_belongs_to_the_first_who_claims_it():
    made = once.Once()
    assert not made.is_claimed()
    assert made.claim('first')
    assert made.is_claimed()
    assert not made.claim('second')
    assert made.claim('first')


def test_a_claim_without_a_name_equals_no_other():
    made = once.Once()
    assert made.claim()
    assert not made.claim()


def test_what_was_given_back_can_be_claimed_again():
    made = once.Once()
    assert made.claim('first')
    made.give_back('second')
    assert not made.claim('second')
    made.give_back('first')
    assert not made.is_claimed()
    assert made.claim('second')


def test_giving_back_what_nobody_has_does_nothing():
    made = once.Once()
    made.give_back('anybody')
    assert made.claim('anybody')


def test_of_many_threads_one_gets_it(eager_switching):
    for _ in range(100):
        made, barrier, got = once.Once(), threading.Barrier(8), []

        def claim():
            barrier.wait(20)
            if made.claim():
                got.append(1)
        threads = [threading.Thread(target=claim) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(got) == 1


def test_a_signal_handler_may_claim_what_it_interrupts():
    made, interrupted = once.Once(), []

    def handle(*_):
        interrupted.append(made.claim('handler'))
        made.give_back('handler')
    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while len(interrupted) < 200:
            if made.claim('thread'):
                assert not made.claim('other')
                made.give_back('thread')
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(interrupted) <= {True, False}


@pytest.mark.parametrize('who', [0, '', False])
def test_any_value_but_none_names_a_claimant(who):
    made = once.Once()
    assert made.claim(who)
    assert made.claim(who)
    assert not made.claim('other')
