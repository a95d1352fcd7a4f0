# SPDX-License-Identifier: Apache-2.0
"""Whatever a service answers, its caller has a result, what the endpoint
raised, or one of oslo.messaging's exceptions; and nothing else happens.
"""

import builtins
import importlib
import json
import logging
import sys

import msgpack
import oslo_messaging
import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st
from oslo_messaging._drivers import common

from tests.support import replies
from zmq_threaded import errors
from zmq_threaded import wire
from zmq_threaded.client import results

ALLOWED = [__name__, 'oslo_messaging.exceptions']


class Plain(Exception):
    pass


class Picky(Exception):
    """Cannot be built of what it keeps."""

    def __init__(self, kind):
        if kind not in self.errors:
            super().__init__('kept', kind)
        elif self.errors[kind] is not None:
            raise self.errors[kind]

    errors = {each.__name__: each('of the constructor') for each in (
        ValueError, KeyError, TypeError, AttributeError, RuntimeError,
        MemoryError, RecursionError, SystemExit, GeneratorExit, StopIteration,
        UnicodeError, ZeroDivisionError)}


class Keywords(Exception):
    def __init__(self, *args, **kwargs):
        super().__init__(*args)
        self.kwargs = kwargs


class NotWhatItSays(Exception):
    def __new__(cls, *args):
        return 'no exception'


class NoHeirs(Exception):
    def __init_subclass__(cls, **kwargs):
        raise RuntimeError('no class may be made of this one')


class Mute(Exception):
    def __str__(self):
        raise RuntimeError('no text')


class Base(BaseException):
    pass


no_exception = 'a name of this module'


def reply(part, flags=wire.ENDING):
    return wire.decode(wire.encode(wire.REPLY, b'i' * 16, b'm' * 16, (part,),
                                   flags))


def failed(fields, allowed=ALLOWED):
    """What the caller of an endpoint gets that failed in this way."""
    part = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    with pytest.raises(Exception) as caught:
        results.result(reply(part, wire.FAILURE | wire.ENDING), allowed)
    str(caught.value), repr(caught.value)   # neither raises
    return caught.value


def raised(error, allowed=ALLOWED):
    """What the caller gets of this exception of an endpoint."""
    return failed(_serialized(error).encode(), allowed)


def _serialized(error):
    try:
        raise error
    except BaseException:
        return common.serialize_remote_exception(sys.exc_info())


# Results

@pytest.mark.parametrize('value', [None, 1, 'text', [1, {'a': None}], 0.5])
def test_results(value):
    assert results.result(reply(json.dumps(value).encode()), []) == value
    assert results.result(reply(msgpack.packb(value), wire.MSGPACK),
                          []) == value


# Failures as oslo.messaging sends them

@pytest.mark.parametrize('error', [
    ValueError('text'), ValueError('a', 1), KeyError('key'), TypeError(),
    FileNotFoundError(2, 'gone', '/x'), StopIteration(5), MemoryError(),
    RecursionError('deep'), AttributeError('no such thing'), Plain('ours', 2),
    Keywords('ours', more=1), NameError('x'), ImportError('y'),
    OSError(99, 'odd'), ZeroDivisionError('zero'),
    oslo_messaging.MessagingTimeout('late'),
    oslo_messaging.InvalidTarget('bad', oslo_messaging.Target(topic='x'))])
@pytest.mark.parametrize('allowed', [ALLOWED, []])
def test_an_exception_is_the_same_as_with_the_rabbit_driver(error, allowed):
    text = _serialized(error)
    ours = failed(text.encode(), allowed)
    theirs = common.deserialize_remote_exception(text, allowed)
    assert type(ours).__name__ == type(theirs).__name__
    assert type(ours).__module__ == type(theirs).__module__
    assert type(ours).__bases__ == type(theirs).__bases__
    assert (str(ours), ours.args) == (str(theirs), theirs.args)
    assert vars(ours) == vars(theirs)


def test_an_exception_that_comes_by_a_third_service_keeps_its_class():
    first = raised(Plain('ours'))
    assert isinstance(raised(first), Plain)


@pytest.mark.parametrize('kind', Picky.errors)
def test_a_constructor_that_raises_leaves_name_and_text(kind):
    error = failed({'class': 'Picky', 'module': __name__, 'message': 'text',
                    'tb': ['trace'], 'args': [kind], 'kwargs': {}})
    assert type(error) is oslo_messaging.RemoteError
    assert (error.exc_type, error.value, error.traceback) == (
        'Picky', 'text', ['trace'])


@pytest.mark.parametrize('error, name', [
    (Base('text'), 'Base'), (SystemExit(3), 'SystemExit'),
    (KeyboardInterrupt('text'), 'KeyboardInterrupt'),
    (GeneratorExit('text'), 'GeneratorExit'),
    (NoHeirs('text'), 'NoHeirs'),
    (UnicodeEncodeError('utf8', 'text', 0, 1, 'why'), 'UnicodeEncodeError'),
    (ExceptionGroup('text', [ValueError(1)]), 'ExceptionGroup')])
def test_what_cannot_or_must_not_be_raised_arrives_as_name_and_text(
        error, name):
    fields = json.loads(_serialized(error)) if name != 'UnicodeEncodeError' \
        else {'class': name, 'module': 'builtins', 'message': str(error),
              'tb': [], 'args': ['utf8', 'x', 0], 'kwargs': {}}
    if name == 'NoHeirs':
        assert fields['class'] == name
    caught = failed(fields)
    assert type(caught) is oslo_messaging.RemoteError
    assert caught.exc_type == name and caught.value == str(error)


@pytest.mark.parametrize('name', ['NotWhatItSays', 'no_exception', 'Plain.x',
                                  'sys', 'failed', '__doc__', '', 'missing'])
def test_what_is_no_exception_of_its_module_arrives_as_name_and_text(name):
    error = failed({'class': name, 'module': __name__, 'message': 'text'})
    assert type(error) is oslo_messaging.RemoteError
    assert (error.exc_type, error.value) == (name, 'text')


def test_an_exception_without_a_text_has_that_of_the_service():
    error = failed({'class': 'Mute', 'module': __name__, 'message': 'text'})
    assert isinstance(error, Mute) and str(error) == 'text\n'


def test_kwargs_may_be_anything_that_an_exception_has_under_that_name():
    for kwargs in (None, [1], 'x', {'a': 1}):
        error = failed({'class': 'Plain', 'module': __name__,
                        'message': 'text', 'kwargs': kwargs})
        assert type(error) is oslo_messaging.RemoteError
        assert error.value == 'text'


# Failures that are none

def test_only_modules_that_are_allowed_are_imported(tmp_path, monkeypatch):
    (tmp_path / 'hostile_module.py').write_text('class X(Exception): pass\n')
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    fields = {'class': 'X', 'module': 'hostile_module', 'message': 'text'}
    assert type(failed(fields)) is oslo_messaging.RemoteError
    assert 'hostile_module' not in sys.modules
    error = failed(fields, ['hostile_module'])
    assert type(error).__bases__ == (sys.modules.pop('hostile_module').X,)


@pytest.mark.parametrize('name', replies.UNREADABLE)
def test_what_cannot_be_read_is_refused(name):
    with pytest.raises(errors.Refused, match='^The reply cannot be read: '):
        results.result(reply(*replies.UNREADABLE[name]), ALLOWED)


@pytest.mark.parametrize('name', replies.ODD)
def test_odd_failures_end_as_some_exception_at_once(name):
    error = failed(replies.ODD[name][0])
    assert isinstance(error, (Exception, oslo_messaging.RemoteError))
    assert not isinstance(error, errors.Refused)


def test_memory_that_runs_out_is_refused(monkeypatch):
    def no_memory(*args):
        raise MemoryError()
    monkeypatch.setattr(results.payload, 'load', no_memory)
    with pytest.raises(errors.Refused, match='MemoryError'):
        results.result(reply(b'1'), [])


# Their texts

EVIL = 'x\n2026 CRITICAL root pwned \x1b[2J\ud800'


def test_lines_of_an_endpoint_stay_lines_and_nothing_else():
    error = failed({'class': 'Plain', 'module': __name__, 'message': EVIL,
                    'tb': ['a\n  b\x1b\n']})
    assert str(error) == ('x\n2026 CRITICAL root pwned \\x1b[2J\\ud800\n'
                          'a\n  b\\x1b\n')


def test_names_of_a_stranger_are_cut_and_escaped(caplog):
    caplog.set_level(logging.DEBUG)
    for module in ('strange', __name__, 'builtins'):
        error = failed({'class': EVIL + 'A' * 100_000, 'module': module,
                        'message': 'm', 'kwargs': {EVIL: 1}})
        assert error.exc_type.startswith('x\\n2026')
        assert len(error.exc_type) < 1100
    assert caplog.records and not any('\n' in record.getMessage()
                                      for record in caplog.records)


@pytest.mark.parametrize('name', ['Plain', 'Picky', 'missing', 'OSError',
                                  'ValueError'])
def test_texts_are_bounded(name):
    module = __name__ if hasattr(sys.modules[__name__], name) else 'builtins'
    error = failed({'class': name, 'module': module,
                    'message': 'A' * 3_000_000,
                    'tb': ['line\n' * 10_000] * 100,
                    'args': [2, 'B' * 3_000_000, 'x'][:1 + 2 * (
                        name == 'OSError')]})
    assert len(str(error)) < 400_000


def test_of_a_long_traceback_the_end_is_kept():
    error = failed({'class': 'Plain', 'module': __name__, 'message': 'm',
                    'tb': ['first'] + ['x' * 90] * 2000 + ['last']})
    assert str(error).endswith('last') and 'first' not in str(error)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(
        st.characters()) | st.sampled_from(
        ['ValueError', 'builtins', 'Plain', __name__, 'eval', 'OSError']),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.text(), inner, max_size=4), max_leaves=12)
fields_of_a_failure = st.fixed_dictionaries({}, optional={
    'class': st.sampled_from([*dir(builtins), 'Plain', 'Keywords'])
    | anything,
    'module': st.sampled_from(['builtins', 'exceptions', __name__])
    | anything,
    'message': st.text() | anything, 'tb': st.lists(st.text()) | anything,
    'args': st.lists(anything) | anything,
    'kwargs': st.dictionaries(st.text(), anything) | anything})


@given(st.one_of(fields_of_a_failure, anything))
@example({'class': 'exit', 'module': 'builtins'})
@example({'class': 'breakpoint', 'module': 'builtins'})
def test_any_json_ends_as_an_exception(fields):
    failed(fields)


@given(st.binary(max_size=100), st.integers(0, 63))
def test_any_bytes_are_a_result_or_refused(part, flags):
    try:
        results.result(reply(part, flags), ALLOWED)
    except errors.Refused:
        pass
    except Exception as error:
        assert flags & wire.FAILURE, error
