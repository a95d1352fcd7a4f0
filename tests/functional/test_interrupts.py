# SPDX-License-Identifier: Apache-2.0
"""Exceptions that come at any line of cast(), call() and cleanup(), as
KeyboardInterrupt does: nothing stays counted, open or deaf.
"""

import contextlib
import ctypes
import itertools
import random
import signal
import sys
import threading
import time

import pytest

from tests.support import leaks
from tests.support import rpc
from tests.support import waiting
from zmq_threaded import exits
from zmq_threaded import runtime
from zmq_threaded import runtimes
from zmq_threaded import threads
from zmq_threaded.client import outbox

_SIGNALS, _THREADS = 400, 60


class Stop(BaseException):
    """An exception that nobody expects."""


@contextlib.contextmanager
def _interrupts():
    """Yields a function: call another one, and perhaps raise in it."""
    def raise_it(*_):
        raise Stop
    before = signal.signal(signal.SIGALRM, raise_it)

    def call(function, longest, *args, **kwargs):
        try:
            signal.setitimer(signal.ITIMER_REAL,
                             random.uniform(0.00002, longest))
            function(*args, **kwargs)
            signal.setitimer(signal.ITIMER_REAL, 0)
            return True
        except Stop:
            return False
        finally:
            with contextlib.suppress(Stop):
                signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield call
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _is_settled(transport, sockets=2):
    """Nothing waits, and the gauges say what there is."""
    driver = rpc.driver(transport)
    waiting.until(lambda: not driver._parts().outbox.pending(), 20)
    assert driver.unacknowledged(20) == {}
    counters = driver.counters()
    assert counters['unacknowledged'] == 0
    assert counters['sockets'] <= sockets


def _use(client):
    """What a first use opens is there; test_interrupted_first_uses interrupts
    that.
    """
    client.call({}, 'echo', value=0)
    client.cast({}, 'note', value=-1)


def test_interrupted_casts(node):
    server = node.server()
    transport = node.transport()
    client, sent = node.client(transport), []
    _use(client)
    with _interrupts() as call:
        for number in range(_SIGNALS):
            if call(client.cast, 0.0004, {}, 'note', value=number):
                sent.append(number)
    assert 0 < len(sent) < _SIGNALS
    _is_settled(transport)
    waiting.until(lambda: set(sent) <= set(server.endpoint.seen))
    assert len(server.endpoint.seen) == len(set(server.endpoint.seen))


def test_interrupted_casts_that_wait_for_room(node):
    process = node.process()
    transport = node.transport(rpc_zmq_outbox_limit=5, rpc_cast_timeout=20)
    client = node.client(transport)
    client.call({}, 'echo', value=1)
    process.pause()
    with _interrupts() as call:
        taken = sum(call(client.cast, 0.01, {}, 'note', value=number)
                    for number in range(100))
    # One that was interrupted may have been taken all the same.
    assert taken <= 6
    assert 5 <= transport._driver._parts().outbox.pending() <= 6
    process.resume()
    _is_settled(transport)


@pytest.mark.parametrize('monitored', [None, 10])
def test_interrupted_calls(node, monitored):
    node.server()
    transport = node.transport()
    client = node.client(transport, call_monitor_timeout=monitored)
    _use(client)
    with _interrupts() as call:
        answered = sum(call(client.call, 0.003, {}, 'echo', value=number)
                       for number in range(_SIGNALS))
    assert 0 < answered < _SIGNALS
    _is_settled(transport)
    assert [client.call({}, 'echo', value=number)
            for number in range(20)] == list(range(20))


@pytest.mark.parametrize('monitored', [None, 10])
def test_interrupted_calls_of_other_threads(node, monitored):
    node.server()
    transport = node.transport()
    client = node.client(transport, call_monitor_timeout=monitored)
    _use(client)
    wrong = []

    def work():
        with contextlib.suppress(Stop):
            for number in range(50):
                if client.call({}, 'echo', value=number) != number:
                    wrong.append(number)
                client.cast({}, 'note', value=number)
    for _ in range(_THREADS):
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(random.uniform(0, 0.02))
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(Stop))
        thread.join(20)
        assert not thread.is_alive()
    assert not wrong
    _is_settled(transport)


def test_interrupted_first_uses(node):
    server = node.server()
    sent, transports = 0, [node.transport() for _ in range(60)]
    for transport in transports:
        # An interrupted zmq.Context() of pyzmq leaves a descriptor.
        rpc.driver(transport).counters()
    with _interrupts() as call:
        for transport in transports:
            call(node.client(transport).cast, 0.004, {}, 'note', value=0)
    for transport in transports:
        # What an exception left half done is done by the next one.
        node.client(transport).cast({}, 'note', value=1)
        sent += 1
        _is_settled(transport)
    waiting.until(lambda: server.endpoint.seen.count(1) == sent)


# At each line


def _at_each_line(of, function):
    """Call a function again and again, and raise Stop at its first line, its
    second, and so on; yields after each call.

    :param of: modules whose lines these are
    """
    names, line = {module.__file__ for module in of}, itertools.count(1)
    for last in line:
        left = [last]

        def trace(frame, event, _, left=left):
            if frame.f_code.co_filename not in names:
                return None
            if event == 'line':
                left[0] -= 1
                if not left[0]:
                    raise Stop
            return trace
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with contextlib.suppress(Stop):
                function()
        finally:
            sys.settrace(before)
        yield
        if left[0] > 0:
            return


def test_a_thread_whose_start_is_interrupted_is_not_listed_for_ever():
    for _ in _at_each_line([threading, threads], lambda: threads.started(
            lambda: None, 'zmq-interrupted')):
        pass
    waiting.until(lambda: 'zmq-interrupted' not in leaks.threads())


def test_a_runtime_whose_making_is_interrupted_is_closed(node):
    before, made = set(exits._open), []

    def use():
        made.append(node.transport())
        rpc.driver(made[-1]).counters()
    for _ in _at_each_line([runtime, runtimes, exits, outbox], use):
        while made:
            made.pop().cleanup()
        assert exits._open <= before


def test_an_interrupted_cleanup_can_be_called_again(node):
    node.server()
    with _interrupts() as call:
        for _ in range(30):
            transport = node.transport()
            client = node.client(transport)
            client.call({}, 'echo', value=1)
            client.cast({}, 'note', value=1)
            parts = rpc.driver(transport)._parts()
            call(transport.cleanup, 0.02)
            closing = threading.Thread(target=transport.cleanup)
            closing.start()
            closing.join(20)
            assert not closing.is_alive() and parts.is_closed
            assert parts.snapshot()['sockets'] == 0
