# SPDX-License-Identifier: Apache-2.0
"""service.failures: whatever an endpoint raises, name and text arrive."""

import asyncio
import json
import sys

import pytest
from oslo_messaging._drivers import common

from zmq_threaded import wire
from zmq_threaded.service import failures

LIMIT = failures._LIMIT


class BadText(Exception):
    def __str__(self):
        raise RuntimeError('no text')


class BadRepr:
    def __repr__(self):
        raise RuntimeError('no repr')


class BadArguments(Exception):
    @property
    def args(self):
        raise RuntimeError('no arguments')


class BadEverything(BadText):
    @property
    def args(self):
        raise KeyError('no arguments')


class BadKeywords(Exception):
    kwargs = {(1, 2): object()}


def deep():
    nested = []
    for _ in range(5000):
        nested = [nested]
    return nested


def loop():
    nested = []
    nested.append(nested)
    return nested


def encoded(error):
    try:
        raise error
    except BaseException:
        (part,), flags = failures.encode(sys.exc_info())
    assert flags == wire.FAILURE
    assert len(part) <= LIMIT
    return json.loads(part)


ODD = [ValueError(b'\xff\xfe'), ValueError(object(), {1, 2}, b'\xff'),
       ValueError('\ud800'), ValueError(deep()), ValueError(loop()),
       ValueError(BadRepr()), ValueError('x' * 20_000_000),
       ValueError(b'x' * 20_000_000), ValueError(['x' * 20_000_000]),
       ValueError(*map(str, range(100_000))), BadText(), BadArguments(),
       BadEverything(), BadKeywords('text'),
       UnicodeDecodeError('utf8', b'\xff', 0, 1, 'x'),
       ExceptionGroup('group', [ValueError(1), KeyError(2)]), MemoryError(),
       RecursionError('deep'), StopIteration(5), SystemExit(3),
       KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(),
       FileNotFoundError(2, 'gone', '/x')]


@pytest.mark.parametrize('error', ODD, ids=lambda error: type(error).__name__)
def test_any_exception_is_told(error):
    data = encoded(error)
    assert data['class'] == type(error).__name__
    assert data['module'] == type(error).__module__
    assert isinstance(data['message'], str) and isinstance(data['tb'], list)


def test_an_ordinary_exception_is_as_oslo_messaging_has_it():
    try:
        raise ValueError('why', 7)
    except ValueError:
        (part,), _ = failures.encode(sys.exc_info())
        assert part.decode() == common.serialize_remote_exception(
            sys.exc_info())


def test_what_is_long_is_cut_with_a_note():
    data = encoded(ValueError('x' * 20_000_000))
    assert 'cut by zmq_threaded: 20000000 characters' in data['message']
    assert data['args'][0].startswith('xxx')
    assert 'cut by' in data['args'][0]


def test_arguments_that_cannot_be_sent_arrive_as_text():
    data = encoded(ValueError('plain', 3, b'\xff', {1}))
    assert data['args'] == ['plain', 3, "b'\\xff'", '{1}']
    assert data['tb']


def test_an_exception_without_text_says_so():
    assert encoded(BadText())['message'] == (
        '<BadText: str() raised RuntimeError>')


def test_one_from_another_server_keeps_its_name():
    class Original(ValueError):
        pass
    Original.__name__, Original.__module__ = 'Original_Remote', 'far_Remote'
    data = encoded(Original(b'\xff'))
    assert (data['class'], data['module']) == ('Original', 'far')


def test_for_a_reply_without_memory_there_is_a_failure():
    frame = wire.encode(wire.REPLY, b'i' * 16, b'm' * 16, [b'x' * 1000])
    message = wire.decode(failures.in_place_of(frame))
    assert (message.kind, message.instance, message.id) == (
        wire.REPLY, b'i' * 16, b'm' * 16)
    assert message.flags == wire.FAILURE | wire.ENDING
    data = json.loads(message.body[0])
    assert data['class'] == 'MemoryError' and '1062' in data['message']
    heartbeat = wire.encode(wire.HEARTBEAT, b'i' * 16, b'm' * 16)
    assert failures.in_place_of(heartbeat) == b''
