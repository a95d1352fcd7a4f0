# SPDX-License-Identifier: Apache-2.0
"""The client threads of the load tool."""

import threading
import time

import pytest
from load import rounds
from load import worker

POOL = ['a', 'bb', 'ccc']
DEADLINE = 20


def send(operation, **phase):
    """Run one phase in a worker and return the worker."""
    thread = worker.Worker(2, operation, POOL)
    thread.start()
    thread.begin(worker.Phase(threading.Event(), timed=True, **phase))
    assert thread.idle.wait(DEADLINE)
    thread.end()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    return thread


def test_limit_is_exact_and_every_operation_is_new():
    idents = []
    thread = send(lambda ident, text: idents.append(ident) or True, limit=5)
    assert len(set(idents)) == 5
    assert (thread.sequence, len(thread.latencies), thread.wrong) == (5, 5, 0)


def test_deadline_in_the_past_sends_nothing():
    assert (
        send(lambda ident, text: True, deadline=time.perf_counter()).sequence
        == 0
    )


def test_stop_ends_a_phase_without_limits():
    stop = threading.Event()
    thread = worker.Worker(0, lambda ident, text: stop.set() or True, POOL)
    thread.start()
    thread.begin(worker.Phase(stop))
    assert thread.idle.wait(DEADLINE)
    assert len(thread.latencies) == 0
    thread.end()


def test_sequence_goes_on_over_phases():
    idents = []
    thread = worker.Worker(
        0, lambda ident, text: idents.append(ident) or True, POOL
    )
    thread.start()
    for _ in range(2):
        thread.begin(worker.Phase(threading.Event(), limit=3))
        assert thread.idle.wait(DEADLINE)
    thread.end()
    assert idents == list(range(6))


def test_wrong_replies_are_counted():
    assert send(lambda ident, text: ident % 2 == 0, limit=4).wrong == 2


def test_exceptions_are_failures_by_class_without_latency():
    def operation(ident, text):
        if ident % 2:
            raise ValueError(f'no {ident & 0xff}')
        return True
    thread = send(operation, limit=4)
    failures = thread.failures['ValueError']
    assert (failures.count, failures.example) == (2, 'ValueError: no 1')
    assert len(thread.latencies) == 2
    assert thread.sent().failed.to_int() == 0b1010


def test_latency_is_the_time_of_the_operation():
    pause = threading.Event()
    thread = send(lambda ident, text: not pause.wait(0.05), limit=1)
    assert thread.latencies[0] >= 0.05


@pytest.mark.parametrize(
    'count, threads, shares', [(10, 3, [4, 3, 3]), (2, 4, [1, 1, 0, 0])]
)
def test_count_is_shared_out(count, threads, shares):
    assert rounds.share(count, threads) == shares
