# SPDX-License-Identifier: Apache-2.0
"""The fast executor: real threads, no sockets."""

import concurrent.futures
import gc
import os
import subprocess
import sys
import threading

import futurist
import pytest

from tests.support import waiting
from zmq_threaded.service import fast_executor

LIMIT = 20


@pytest.fixture
def make():
    made = []

    def new(*args, **kwargs):
        made.append(fast_executor.FastExecutor(*args, **kwargs))
        return made[-1]
    yield new
    for each in made:
        each.shutdown()


@pytest.fixture
def gate():
    event = threading.Event()
    yield event
    event.set()


def fail():
    raise ValueError('broken')


def test_is_one_of_futurist(make):
    executor = make(3)
    assert isinstance(executor, futurist.ThreadPoolExecutor)
    assert executor.submit(lambda x, y: x + y, 1, y=2).result(LIMIT) == 3
    assert executor.alive and executor.num_workers == 1
    with pytest.raises(ValueError, match='max_workers'):
        make(0)


def test_an_idle_worker_is_used_before_a_new_one_is_made(make):
    executor = make(8)
    for number in range(50):
        assert executor.submit(int, number).result(LIMIT) == number
        waiting.until(lambda: executor.get_num_idle_workers() == 1)
    assert executor.num_workers == 1


def test_no_task_waits_while_there_may_be_another_worker(make):
    """Each task waits for all others, so one worker less would be felt."""
    executor = make(16)
    for _ in range(20):
        barrier = threading.Barrier(16)
        futures = [executor.submit(barrier.wait, LIMIT) for _ in range(16)]
        assert sorted(each.result(LIMIT) for each in futures) == [*range(16)]
    assert executor.num_workers == 16


def test_no_more_workers_than_are_allowed(make, gate):
    executor = make(2)
    futures = [executor.submit(gate.wait, LIMIT) for _ in range(5)]
    waiting.until(lambda: executor.queue_size == 3)
    assert executor.num_workers == 2 and executor.get_num_idle_workers() == 0
    gate.set()
    assert all(each.result(LIMIT) for each in futures)


def test_many_threads_submit_and_each_task_runs_once(make):
    executor, done = make(8), []

    def submit(first):
        for number in range(first, first + 500):
            executor.execute(done.append, number)
    threads = [threading.Thread(target=submit, args=(500 * each,))
               for each in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(LIMIT)
    executor.shutdown()
    assert sorted(done) == [*range(4000)]
    assert executor.statistics.executed == 4000
    assert not executor._crew.unfinished


def test_statistics_are_those_of_futurist(make, gate):
    ours, theirs = make(1), futurist.ThreadPoolExecutor(1)
    for executor in ours, theirs:
        started = threading.Event()
        executor.submit(lambda: (started.set(), gate.wait(LIMIT)))
        assert started.wait(LIMIT)
        bad = executor.submit(fail)
        assert executor.submit(len, 'x').cancel()
        gate.set()
        with pytest.raises(ValueError, match='broken'):
            bad.result(LIMIT)
        waiting.until(lambda: executor.statistics.executed == 2)
        executor.shutdown()
    for name in 'executed', 'failures', 'cancelled':
        assert (getattr(ours.statistics, name)
                == getattr(theirs.statistics, name)), name
    assert ours.statistics.runtime > 0


@pytest.mark.parametrize('kind', [ValueError, SystemExit, KeyboardInterrupt])
def test_whatever_a_task_raises_its_worker_goes_on(make, kind, caplog):
    def end():
        raise kind('gone')
    executor = make(1)
    with pytest.raises(kind):
        executor.submit(end).result(LIMIT)
    executor.execute(end)
    assert executor.submit(len, 'xy').result(LIMIT) == 2
    assert executor.num_workers == 1
    assert [each.getMessage() for each in caplog.records] == [
        f'A task of a worker ended by {kind.__name__}, and nobody waits for '
        'its result; the worker goes on.']


def test_submission_is_rejected_by_the_check(make, gate):
    def check(executor, waiting_now):
        if waiting_now >= 1:
            raise futurist.RejectedSubmission()
    executor = make(1, check_and_reject=check)
    executor.submit(gate.wait, LIMIT)
    waiting.until(lambda: not executor.queue_size)
    executor.submit(len, '')
    for submit in executor.submit, executor.execute:
        with pytest.raises(futurist.RejectedSubmission):
            submit(len, '')
    assert len(executor._crew.unfinished) == 2


def test_a_thread_that_cannot_start_leaves_no_trace(make, monkeypatch):
    executor = make(2)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, 'start', lambda thread: fail())
        with pytest.raises(ValueError):
            executor.execute(len, '')
    assert not executor.num_workers and not executor._crew.unfinished
    assert executor.submit(len, 'x').result(LIMIT) == 1


def test_shutdown_waits_for_what_was_submitted(make):
    executor, done = make(2), []
    for number in range(200):
        executor.execute(done.append, number)
    executor.shutdown()
    executor.shutdown()
    assert len(done) == 200 and not executor.alive
    assert not any(each.is_alive() for each in executor._workers)
    with pytest.raises(RuntimeError, match='shut down'):
        executor.submit(len, '')


def test_shutdown_without_waiting_cancels_what_is_not_begun(make, gate):
    executor = make(1)
    running = executor.submit(gate.wait, LIMIT)
    waiting.until(running.running)
    left = executor.submit(len, '')
    executor.shutdown(wait=False)
    with pytest.raises(concurrent.futures.CancelledError):
        left.result(LIMIT)
    gate.set()
    assert running.result(LIMIT)
    waiting.until(lambda: not executor._workers[0].is_alive())


def test_a_worker_may_shut_its_executor_down(make):
    executor = make(2)
    assert executor.submit(executor.shutdown).result(LIMIT) is None
    assert not executor.alive


def test_workers_end_when_the_executor_is_collected(make):
    executor = fast_executor.FastExecutor(3)
    barrier = threading.Barrier(3)
    for each in [executor.submit(barrier.wait, LIMIT) for _ in range(3)]:
        each.result(LIMIT)
    workers = executor._workers
    del executor
    gc.collect()
    waiting.until(lambda: not any(each.is_alive() for each in workers))


def test_a_task_is_not_kept_by_an_idle_worker(make):
    class Task:
        def __call__(self):
            raise ValueError('its traceback has hold of it')

        def __del__(self):
            gone.set()
    gone, executor = threading.Event(), make(1)
    executor.submit(Task())
    waiting.until(gone.is_set)


def test_idle_workers_do_not_wake_up(make):
    executor = make(4)
    barrier = threading.Barrier(4)
    for each in [executor.submit(barrier.wait, LIMIT) for _ in range(4)]:
        each.result(LIMIT)
    waiting.until(lambda: executor.get_num_idle_workers() == 4)

    def switches():
        return [_switches(each.native_id) for each in executor._workers]
    before = switches()
    assert not threading.Event().wait(2.2)
    assert sum(switches()) - sum(before) <= 1


def _switches(native_id):
    with open(f'/proc/self/task/{native_id}/status') as status:
        return sum(int(line.split()[1]) for line in status
                   if line.startswith('voluntary'))


def test_a_forked_child_has_workers_of_its_own(make):
    executor = make(2)
    assert executor.submit(len, 'x').result(LIMIT) == 1
    pid = os.fork()
    if not pid:
        good = False
        try:
            good = executor.submit(len, 'xy').result(LIMIT) == 2
            executor.shutdown()
        finally:
            os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert executor.submit(len, 'x').result(LIMIT) == 1


def test_the_interpreter_ends_with_work_in_the_queue():
    done = subprocess.run([sys.executable, '-c', '''
import time
from zmq_threaded.service import fast_executor
executor = fast_executor.FastExecutor(1)
def task(number):
    print('begun', number, flush=True)
    time.sleep(0.5)
    print('done', number, flush=True)
for number in range(100):
    executor.execute(task, number)
time.sleep(0.2)
'''], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == 'begun 0\ndone 0\n', done.stderr


def test_a_signal_handler_shuts_it_down_between_two_lines():
    """Also while the thread that it interrupts submits."""
    done = subprocess.run([sys.executable, '-c', '''
import signal
from zmq_threaded.service import fast_executor
for number in range(200):
    executor = fast_executor.FastExecutor(2)
    signal.signal(signal.SIGALRM, lambda *args: executor.shutdown())
    signal.setitimer(signal.ITIMER_REAL, 0.0002 + number * 0.00001)
    try:
        while True:
            executor.execute(int)
    except RuntimeError:
        pass
    executor.shutdown()
    assert not any(each.is_alive() for each in executor._workers)
print('good')
'''], capture_output=True, text=True, timeout=100)
    assert done.stdout == 'good\n', done.stderr
