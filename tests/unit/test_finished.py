# SPDX-License-Identifier: Apache-2.0
"""A sign that something has ended, for all who wait."""

import threading
import time

from tests.support import signals
from zmq_threaded import finished

DEADLINE = 20.0


def test_all_who_wait_are_woken_and_so_is_who_comes_later():
    sign, woken = finished.Finished(), []
    threads = [threading.Thread(target=lambda: woken.append(
        sign.wait(time.monotonic() + DEADLINE))) for _ in range(10)]
    for thread in threads:
        thread.start()
    assert not sign.is_set() and not woken
    sign.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert woken == [True] * 10
    assert sign.is_set() and sign.wait(time.monotonic())


def test_nobody_waits_longer_than_the_deadline():
    sign, began = finished.Finished(), time.monotonic()
    assert not sign.wait(began + 0.05)
    assert 0.04 <= time.monotonic() - began < DEADLINE / 2


def test_a_signal_handler_waits_while_its_own_thread_does():
    sign, found = finished.Finished(), []
    until = time.monotonic() + DEADLINE
    ending = threading.Timer(0.2, sign.set)
    ending.start()
    with signals.interrupting(lambda: time.sleep(0.05),
                              lambda: found.append(sign.wait(until))):
        found.append(sign.wait(until))
    ending.join(DEADLINE)
    assert found == [True, True]
    assert time.monotonic() < until
