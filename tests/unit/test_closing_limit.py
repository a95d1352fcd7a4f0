# SPDX-License-Identifier: Apache-2.0
"""Who waits for closing does not wait for ever."""

import threading
import time
import types

from zmq_threaded import closing


def test_a_handler_that_interrupted_who_has_a_lock_gets_on(monkeypatch):
    monkeypatch.setattr(closing, '_OTHER_LIMIT', 0.3)
    # Given a lock that closing needs, and that its caller has
    lock, done = threading.RLock(), threading.Event()

    def needs_the_lock():
        with lock:
            done.set()
    closes = closing.Closing(lambda deadline, is_exit: [needs_the_lock],
                             lambda: None)
    with lock:
        # When the caller closes, as in a signal handler
        closes.close(time.monotonic())
        # Then it gets on, and closing ends when the lock is free
        assert not done.is_set()
    assert done.wait(10)


def test_a_handler_that_interrupted_the_driver_closes_in_its_own_thread():
    closed_by = []
    closes = closing.Closing(
        lambda deadline, is_exit: [lambda: closed_by.append(
            threading.get_ident())], lambda: None)

    def handler():
        closes.close(time.monotonic())
    # Given a function of the driver that is interrupted where it has a lock
    interrupted = types.FunctionType(
        (lambda call: call()).__code__, {'__name__': 'zmq_threaded.mailbox'})
    interrupted(handler)
    assert closed_by == [threading.get_ident()]
    handler()
    assert closed_by[1:] != [threading.get_ident()]
