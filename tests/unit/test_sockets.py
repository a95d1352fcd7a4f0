# SPDX-License-Identifier: Apache-2.0
"""Sockets makes sockets and knows which are open, whatever interrupts."""

import gc
import itertools
import sys

import pytest
from oslo_config import cfg

from zmq_threaded import endpoints
from zmq_threaded import options
from zmq_threaded import sockets
from zmq_threaded.client import requests
from zmq_threaded.registry import record

NOBODY = 'tcp://127.0.0.1:1'


class Stop(BaseException):
    """What a signal handler raises."""


@pytest.fixture
def made(no_leaks):
    settings = options.read(cfg.CONF, {})
    context = sockets.new_context(settings)
    yield sockets.Sockets(context, settings)
    gc.collect()    # what was only forgotten is closed too
    context.term()


def _interrupted(line, function, *args):
    """Call a function, and raise Stop in place of a line of sockets.py.

    :returns: whether it has as many lines
    """
    lines = itertools.count()

    def trace(frame, event, _):
        if frame.f_code.co_filename != sockets.__file__:
            return None
        if event == 'line' and next(lines) == line:
            raise Stop
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*args)
    except Stop:
        return True
    finally:
        sys.settrace(before)
    return False


def _connection(made):
    return requests._Connection(
        record.Instance(bytes(16), (NOBODY,)), NOBODY, made.request(NOBODY),
        made, None, 0)


@pytest.mark.parametrize('kind', ['request', 'dealer', 'backend'])
def test_open_ones_are_counted(made, kind):
    opened = [getattr(made, kind)(NOBODY) for _ in range(3)]
    assert made.count() == 3
    for socket in opened:
        made.close(socket)
        made.close(socket)
    assert made.count() == 0


def test_bound_ones_are_counted(made):
    opened = made.router(), made.service()
    assert made.count() == 2
    for socket in opened:
        made.close(socket, linger=0)
    assert made.count() == 0


def test_one_that_nobody_holds_is_closed_and_not_counted(made):
    made.request(NOBODY)
    gc.collect()
    assert made.count() == 0


def test_one_that_cannot_connect_is_not_counted(made):
    with pytest.raises(endpoints.BadEndpoint):
        made.request('tcp://')
    assert made.count() == 0


def test_an_interrupted_close_can_be_called_again(made):
    for line in itertools.count():
        socket = made.request(NOBODY)
        was_interrupted = _interrupted(line, made.close, socket)
        made.close(socket)
        assert made.count() == 0 and socket.closed
        if not was_interrupted:
            break
    assert line >= 2


def test_an_interrupted_close_of_a_callers_connection(made):
    for line in itertools.count():
        connection = _connection(made)
        was_interrupted = _interrupted(line, connection.close)
        connection.close()
        assert made.count() == 0 and connection.socket.closed
        if not was_interrupted:
            break
    assert line >= 2


def test_an_interrupted_start_leaves_nothing_open(made):
    for line in itertools.count():
        if not _interrupted(line, made.request, NOBODY):
            break
        gc.collect()
        assert made.count() == 0
    assert line > 20
