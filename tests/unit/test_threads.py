# SPDX-License-Identifier: Apache-2.0
"""Threads that start, stop and survive alike."""

import gc
import threading
import time
import weakref

import pytest

from tests.support import leaks
from tests.support import waiting
from zmq_threaded import counters
from zmq_threaded import threads
from zmq_threaded.net import descriptors

DEADLINE = 20.0


def later(seconds=DEADLINE):
    return time.monotonic() + seconds


class Turns:
    """A Loop whose turns a test lets happen one by one."""

    def __init__(self, name='zmq-test', trouble=None, finish_trouble=None):
        self.counters = counters.Counters()
        self.allowed = threading.Semaphore(0)
        self.turns, self.finished = [], []
        self._trouble, self._finish_trouble = trouble, finish_trouble
        self.loop = threads.Loop(name, self._turn, self.allowed.release,
                                 self.counters, finish=self._finish)

    def _turn(self):
        self.allowed.acquire()
        self.turns.append(threading.get_ident())
        if self._trouble:
            raise self._trouble

    def _finish(self):
        self.finished.append(threading.get_ident())
        if self._finish_trouble:
            raise self._finish_trouble

    def turn(self):
        """Let one turn happen and wait for it."""
        before = len(self.turns)
        self.allowed.release()
        waiting.until(lambda: len(self.turns) > before)

    def stop(self):
        self.loop.stop()
        assert self.loop.join(later())


@pytest.fixture
def turns(ipc_dir):
    with leaks.nothing_left(ipc_dir):
        made = Turns()
        yield made
        made.stop()


# The loop


def test_turns_are_repeated_by_one_named_daemon_thread(turns):
    turns.loop.start()
    for _ in range(3):
        turns.turn()
    assert len(set(turns.turns)) == 1
    thread, = (thread for thread in threading.enumerate()
               if thread.name == 'zmq-test')
    assert thread.daemon and thread.ident == turns.turns[0]


def test_finish_is_the_last_act_of_the_thread(turns):
    turns.loop.start()
    turns.turn()
    assert turns.finished == []
    turns.stop()
    assert turns.finished == turns.turns[:1]
    assert not turns.loop.is_alive()


def test_nothing_runs_before_start(turns):
    turns.allowed.release()
    assert not turns.loop.is_alive()
    assert turns.loop.join(later())
    assert turns.turns == []


def test_an_exception_is_counted_and_logged_and_the_loop_goes_on(caplog):
    turns = Turns(trouble=ValueError('on purpose'))
    turns.loop.start()
    for count in range(1, 4):
        turns.turn()
        waiting.until(lambda: turns.counters.snapshot() == {
            'loop_errors': count})
    assert turns.loop.is_alive()
    assert caplog.text.count('on purpose') == 3
    assert 'zmq-test' in caplog.text
    turns.stop()
    assert len(turns.finished) == 1


def test_an_exception_at_the_end_is_counted_and_the_thread_ends(caplog):
    turns = Turns(finish_trouble=OSError('at the end'))
    turns.loop.start()
    turns.stop()
    assert turns.counters.snapshot() == {'loop_errors': 1}
    assert 'at the end' in caplog.text
    assert len(turns.finished) == 1


def test_stop_before_start_finishes_here_and_once(turns):
    for _ in range(3):
        turns.loop.stop()
    turns.loop.start()
    assert turns.finished == [threading.get_ident()]
    assert not turns.loop.is_alive()
    assert turns.loop.join(later())
    assert turns.turns == []


def test_stop_twice_finishes_once(turns):
    turns.loop.start()
    turns.turn()
    for _ in range(3):
        turns.loop.stop()
    turns.stop()
    turns.stop()
    assert len(turns.finished) == 1


def test_start_after_the_end_does_nothing(turns):
    turns.loop.start()
    turns.stop()
    turns.loop.start()
    assert not turns.loop.is_alive()
    assert len(turns.finished) == 1


def at_once(functions):
    """Call functions by threads of their own, all at one time."""
    barrier = threading.Barrier(len(functions))
    raised = []

    def call(function):
        barrier.wait(DEADLINE)
        try:
            function()
        except Exception as error:
            raised.append(error)
    callers = [threading.Thread(target=call, args=(function,))
               for function in functions]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(DEADLINE)
    assert not raised


def test_start_by_many_threads_happens_once(eager_switching):
    for _ in range(20):
        turns = Turns()
        at_once([turns.loop.start] * 8)
        turns.turn()
        turns.stop()
        assert len(set(turns.turns)) == len(turns.finished) == 1


def test_start_and_stop_at_one_time_finish_once(eager_switching):
    for _ in range(50):
        turns = Turns()
        at_once([turns.loop.start, turns.loop.stop] * 4)
        waiting.until(lambda: turns.finished)
        waiting.until(lambda: not turns.loop.is_alive())
        assert len(turns.finished) == 1


def test_join_ends_at_its_deadline(caplog):
    turns = Turns()
    turns.loop.start()
    started = time.monotonic()
    assert not turns.loop.join(later(0.1))
    assert 0.1 <= time.monotonic() - started < DEADLINE / 2
    assert 'zmq-test did not end in time' in caplog.text
    assert not turns.loop.join(deadline=0.0)
    turns.stop()


def test_a_turn_may_stop_and_join_its_own_loop():
    outcomes = []

    def turn():
        loop.stop()
        outcomes.append((loop.is_current(), loop.join(later())))
    loop = threads.Loop('zmq-test', turn, None, counters.Counters())
    loop.start()
    assert loop.join(later())
    assert outcomes == [(True, True)]
    assert not loop.is_current()


def test_a_thread_may_end_while_it_is_being_stopped(turns):
    class WakesWhenLookedAt:
        """By the second look its thread has ended, and has dropped it."""

        def __bool__(self):
            turns.allowed.release()
            assert turns.loop.join(later())
            return True

        __call__ = __bool__

    turns.loop._wake = WakesWhenLookedAt()
    turns.loop.start()
    turns.loop.stop()
    assert len(turns.finished) == 1


def test_the_owner_of_an_ended_loop_goes_without_garbage_collection():
    gc.disable()
    try:
        turns = Turns()
        owner = weakref.ref(turns)
        turns.loop.start()
        turns.turn()
        turns.stop()
        del turns
        waiting.until(lambda: owner() is None)
    finally:
        gc.enable()


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize('moment', ['before', 'after'])
def test_a_start_that_is_interrupted_can_be_repeated(turns, monkeypatch,
                                                     moment):
    start = threading.Thread.start

    def interrupted(thread):
        if moment == 'after':
            start(thread)
        raise Interrupted
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, 'start', interrupted)
        with pytest.raises(Interrupted):
            turns.loop.start()
    turns.loop.start()
    for _ in range(3):
        turns.turn()
    assert len(set(turns.turns)) == 1
    waiting.until(lambda: sum(thread.name == 'zmq-test' for thread
                              in threading.enumerate()) == 1)


def test_without_a_thread_to_be_had_the_next_start_tries_again(turns,
                                                               monkeypatch):
    def fail(*args):
        raise RuntimeError("can't start new thread")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, 'start', fail)
        with pytest.raises(descriptors.Short, match='out of threads .*Tasks'):
            turns.loop.start()
    turns.loop.start()
    turns.turn()


def test_all_steps_are_done_though_some_raise():
    done = []
    with pytest.raises(ZeroDivisionError):
        threads.do_all([lambda: done.append(1), lambda: 1 / 0,
                        lambda: done.append(2)])
    assert done == [1, 2]
