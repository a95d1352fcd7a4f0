# SPDX-License-Identifier: Apache-2.0
"""Contexts, messages and results to bytes and back."""

import collections
import datetime
import math
import uuid

import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tests.support.payloads import circle
from tests.support.payloads import DictLike
from tests.support.payloads import Level
from tests.support.payloads import nested
from tests.support.payloads import Point
from tests.support.payloads import WHEN
from zmq_threaded import payload
from zmq_threaded import wire

ENCODINGS = ['json', 'msgpack']
FLAGS = [0, wire.MSGPACK]


@pytest.fixture(params=ENCODINGS)
def encoding(request):
    return request.param


def through(value, encoding):
    """The value as it arrives."""
    (part,), flags = payload.dump((value,), encoding)
    return payload.load(part, flags)


NAME = uuid.UUID('12345678123456781234567812345678')


@pytest.mark.parametrize('value, arrives', [
    (None, None), (True, True), (0, 0), (-1, -1), (1.5, 1.5), ('', ''),
    ('\0ä\u2603\U0001f600', '\0ä\u2603\U0001f600'),
    ((), []), ((1, (2,)), [1, [2]]), ({}, {}), ({1, }, [1]),
    (WHEN, '2026-11-21T01:02:03.000004'),
    (WHEN.replace(tzinfo=datetime.UTC),
     '2026-11-21T01:02:03.000004'),
    (NAME, str(NAME)), (Level.HIGH, 3), (Point(1, 2), [1, 2]),
    (collections.OrderedDict(b=1, a=2), {'b': 1, 'a': 2}),
    (DictLike({'a': {'b': (NAME, WHEN)}}),
     {'a': {'b': [str(NAME), '2026-11-21T01:02:03.000004']}}),
    ({'deep': [{'er': DictLike({'n': None})}]},
     {'deep': [{'er': {'n': None}}]}),
    (math.inf, math.inf),
])
def test_what_arrives(value, arrives, encoding):
    arrived = through(value, encoding)
    assert arrived == arrives
    assert type(arrived) is type(arrives)


def test_nan_arrives(encoding):
    assert math.isnan(through(math.nan, encoding))


plain = (st.none() | st.booleans() | st.integers()
         | st.floats(allow_nan=False) | st.text() | st.datetimes()
         | st.uuids())
values = st.recursive(plain, lambda inner: (
    st.lists(inner, max_size=4) | st.tuples(inner, inner)
    | st.dictionaries(st.text(), inner, max_size=4)
    | st.builds(DictLike, st.dictionaries(st.text(), inner, max_size=4))),
    max_leaves=12)


@settings(deadline=None)
@given(values)
@example(2 ** 64 - 1)
@example(-2 ** 63)
@example([2 ** 64, {'n': -2 ** 63 - 1}])
def test_both_encodings_make_the_same(value):
    assert through(value, 'json') == through(value, 'msgpack')


@settings(deadline=None)
@given(st.text(alphabet=st.characters(categories=['L', 'Cs'])))
@example('\udcff')
def test_both_encodings_take_lone_surrogates(text):
    # File names that are no UTF-8 have them (PEP 383).
    assert through(text, 'json') == through(text, 'msgpack') == text


@pytest.mark.parametrize('depth', [10, 500, 600])
def test_both_encodings_take_the_same_depth(depth):
    assert through(nested(depth), 'json') == through(nested(depth), 'msgpack')


def test_only_msgpack_keeps_bytes_and_keys_that_are_no_strings():
    value = {1: b'\xff', 'tuple': (b'', )}
    assert through(value, 'msgpack') == {1: b'\xff', 'tuple': [b'']}
    assert through({1: 'one'}, 'json') == {'1': 'one'}


# Parts and flags


@pytest.mark.parametrize('encoding, flags', list(zip(ENCODINGS, FLAGS)))
def test_each_object_is_a_part_of_its_own(encoding, flags):
    parts, said = payload.dump(({'c': 1}, ['m'], None), encoding)
    assert said == flags
    assert all(type(part) is bytes for part in parts)
    assert [payload.load(part, said) for part in parts] == [
        {'c': 1}, ['m'], None]


@pytest.mark.parametrize('big', [2 ** 64, -2 ** 63 - 1, 2 ** 1000])
def test_msgpack_leaves_integers_over_64_bits_to_json(big):
    parts, flags = payload.dump(({'small': 1}, {'n': [big]}), 'msgpack')
    assert not flags & wire.MSGPACK
    assert [payload.load(part, flags) for part in parts] == [
        {'small': 1}, {'n': [big]}]


@pytest.mark.parametrize('near', [2 ** 64 - 1, -2 ** 63])
def test_msgpack_keeps_integers_of_64_bits(near):
    parts, flags = payload.dump((near,), 'msgpack')
    assert flags == wire.MSGPACK
    assert payload.load(parts[0], flags) == near


def test_other_flags_do_not_matter_to_reading():
    for encoding in ENCODINGS:
        (part,), flags = payload.dump(('x',), encoding)
        assert payload.load(part, flags | 0xfff0 | wire.CONFIRM) == 'x'


# What cannot be encoded


@pytest.mark.parametrize('value', [
    object(), [object()], {'k': object()}, {object(): 1}, circle(),
    10 ** 10_000, nested(100_000)],
    ids=['object', 'in list', 'in dict', 'as key', 'circle', 'huge integer',
         'too deep'])
def test_what_cannot_be_encoded_is_a_type_or_value_error(value, encoding):
    with pytest.raises((TypeError, ValueError)):
        payload.dump((value,), encoding)


# What cannot be decoded


@pytest.mark.parametrize('flags', FLAGS)
@settings(deadline=None)
@given(part=st.binary(max_size=200))
@example(part=b'')
@example(part=b'\x80\x81')
@example(part=b'\x81\x90\x01')                            # a list as a key
@example(part=b'\x81\x81\x01\x02\x03')                    # a dict as a key
@example(part=b'\xdd\xff\xff\xff\xff')                    # a huge array
@example(part=b'\xdb\xff\xff\xff\xff')                    # a huge string
@example(part=b'\xc7\x0c\xff' + b'\xff' * 12)             # a bad time stamp
@example(part=b'\xd6\xff\xff\xff\xff\xff')                # a time stamp
@example(part=b'\xa1\xff')                                # no UTF-8
@example(part=b'"\\ud800"')
@example(part=b'1' * 5000)
@example(part=b'\xef\xbb\xbf1')
def test_arbitrary_bytes_are_a_value_error(flags, part):
    try:
        payload.load(part, flags)
    except ValueError:
        pass


@pytest.mark.parametrize('part', [b'', b'{', b'nope', b'\xff', b'1 2'])
def test_broken_json_is_a_value_error(part):
    with pytest.raises(ValueError, match='payload'):
        payload.load(part, 0)


@pytest.mark.parametrize('part', [b'', b'\xc1', b'\x91', b'\x01\x02',
                                  b'\x81\x90\x01', b'\xa1\xff'])
def test_broken_msgpack_is_a_value_error(part):
    with pytest.raises(ValueError, match='payload'):
        payload.load(part, wire.MSGPACK)


@pytest.mark.parametrize('part, flags', [
    (b'[' * 1_000_000, 0), (b'{"k":' * 1_000_000, 0),
    (b'[' * 1_000_000 + b']' * 1_000_000, 0),
    (b'\x91' * 1_000_000, wire.MSGPACK),
    (b'\x81\x01' * 1_000_000, wire.MSGPACK)],
    ids=['lists', 'dicts', 'closed lists', 'arrays', 'maps'])
def test_deep_nesting_does_not_kill(part, flags):
    with pytest.raises(ValueError, match='payload'):
        payload.load(part, flags)
