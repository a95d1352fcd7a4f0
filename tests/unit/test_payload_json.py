# SPDX-License-Identifier: Apache-2.0
"""JSON is what the json module and oslo.serialization make of it."""

import collections
import decimal
import ipaddress
import json
import math
import threading
import uuid

import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from oslo_serialization import jsonutils

from tests.support.payloads import circle
from tests.support.payloads import DictLike
from tests.support.payloads import Level
from tests.support.payloads import nested
from tests.support.payloads import Point
from tests.support.payloads import WHEN
from zmq_threaded import payload

# Decoding: the same value or the same error for every byte string


def outcome(decode, part):
    """What a decoder makes of the bytes: repr tells 1, 1.0 and -0.0 apart."""
    try:
        return repr(decode(part))
    except Exception as error:
        return type(error)


def by_module(part):
    try:
        return json.loads(part.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f'payload: {type(error).__name__}') from None


def load(part):
    return payload.load(part, 0)


def same(part):
    """True if payload.load() and the json module agree about the bytes."""
    expected, got = outcome(by_module, part), outcome(load, part)
    assert got == expected
    return True


@pytest.mark.parametrize('part', [
    # White space, the four characters and no others
    b' 1', b'\t\r\n 1 \n\r\t', b'1 ', b' ', b'', b'\x0b1', b'1\x0c',
    b'1\x00', b'1\x1c', '\u00a01'.encode(), '1\u2003'.encode(),
    b'\xef\xbb\xbf1', b' \xef\xbb\xbf1', b'1\xef\xbb\xbf',
    # Trailing data
    b'1 2', b'[]]', b'{}{}', b'1//x', b'[1,]', b'{"a":1,}', b'"a"b',
    # Numbers
    b'NaN', b'[Infinity,-Infinity]', b'nan', b'-NaN', b'+1', b'01', b'1.',
    b'.5', b'-', b'--1', b'1e', b'-0', b'-0.0', b'1e400', b'-1e400',
    b'1e-400', b'1E+5', b'1.0', b'4.9e-324', b'2.2250738585072011e-308',
    b'9007199254740993.0', b'0.' + b'1' * 800, b'1' * 400 + b'.5',
    b'18446744073709551615', b'18446744073709551616',
    b'-9223372036854775808', b'-9223372036854775809', b'1' * 4300,
    b'1' * 4301, b'1e99999999999999999999', b'0e99999999999999999999',
    # Keys
    b'{"a":1,"a":2,"b":3}', b'{"b":1,"a":2,"b":3}', b'{1:2}', b'{"\\u0000":1}',
    # Surrogates and other bad UTF-8
    b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"',
    b'"\xed\xa0\x80"', b'"\xff"', b'"\xc0\x80"', b'{"\xff":1}',
    b'"\xf4\x90\x80\x80"', '1'.encode('utf-16-le'), b'"\\u12"',
    b'"\\u 123"', b'"\\u0x12"', b'"\\x"',
    # Control characters
    b'"a\nb"', b'"a\x00b"', b'"\x1f"', b'"\x7f"', b'{"a":\x00}',
    # Deep nesting
    b'[' * 500 + b']' * 500, b'{"k":' * 500 + b'1' + b'}' * 500,
    b'[' * 100_000, b'[' * 100_000 + b']' * 100_000,
    b'{"k":' * 100_000 + b'1' + b'}' * 100_000,
    # Names and quotes
    b'nul', b'True', b"'a'", b'"abc', b'[1,2}', b'"\\/"'],
    ids=lambda part: repr(part[:24])[2:-1])
def test_unusual_bytes_are_what_the_json_module_makes_of_them(part):
    assert same(part)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_what_the_json_module_makes_of_them(part):
    assert same(part)


pieces = st.sampled_from([
    b'{', b'}', b'[', b']', b',', b':', b'"', b'\\', b'\\u', b'd800', b'dc00',
    b'0', b'1', b'-', b'+', b'.', b'e', b'E', b'9' * 20, b' ', b'\n', b'\r',
    b'\t', b'\x0b', b'\x00', b'\x1f', b'\x7f', b'\xef\xbb\xbf', b'\xff',
    b'\xed\xa0\x80', b'NaN', b'Infinity', b'true', b'false', b'null', b'"a"',
    b'"a":', b'nul', b'\xc3\xa4'])


@settings(deadline=None)
@given(st.lists(pieces, max_size=14).map(b''.join))
def test_pieces_of_json_are_what_the_json_module_makes_of_them(part):
    assert same(part)


plain = (st.none() | st.booleans() | st.integers() | st.floats() | st.text()
         | st.text(alphabet=st.characters(categories=['L', 'Cs', 'Cc'])))
documents = st.recursive(plain, lambda inner: (
    st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=12)


@st.composite
def damaged(draw):
    """JSON in which a few bytes were replaced, put in or left out."""
    part = bytearray(json.dumps(
        draw(documents), ensure_ascii=draw(st.booleans())).encode(
            errors='surrogatepass'))
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(part)))
        end = start + draw(st.integers(0, 1))
        part[start:end] = draw(pieces | st.binary(max_size=1))
    return bytes(part)


@settings(deadline=None)
@given(damaged())
def test_damaged_json_is_what_the_json_module_makes_of_it(part):
    assert same(part)


# Encoding: byte for byte what oslo.serialization has


class Text(str):
    """A str of its own."""


def bytes_or_error(encode, value):
    try:
        return encode(value)
    except Exception as error:
        return type(error), str(error)


def by_oslo(value):
    try:
        return jsonutils.dump_as_bytes(value)
    except RecursionError:
        raise ValueError('the message is nested too deeply') from None


def dump(value):
    (part,), _ = payload.dump((value,), 'json')
    return part


@pytest.mark.parametrize('value', [
    None, True, 0, -1, 2 ** 64, -2 ** 63 - 1, 1.5, -0.0, 1e16, 1e22, 5e-324,
    math.inf, -math.inf, math.nan, [math.nan], '', '\0\x1f\x7f"\\/\u2028',
    'ä\u2603\U0001f600\udcff', Text('ä'), (), (1, (2,)), {}, [], {1}, WHEN,
    WHEN.date(), uuid.UUID(int=1), Level.HIGH, Point(1, 2), b'bytes',
    collections.OrderedDict(b=1, a=2), DictLike({'a': {'b': (WHEN,)}}),
    {1: 'one', 1.5: 'x', None: 'n', Level.HIGH: 3, Text('k'): 0}, {True: 't'},
    decimal.Decimal('1.10'), ipaddress.ip_address('::1'), range(3),
    KeyError('k'), [DictLike({'n': DictLike({'m': [DictLike({})]})})],
    # What cannot be encoded
    object(), [object()], {'k': object()}, {object(): 1}, {(1, 2): 3},
    b'\xff', circle(), 10 ** 10_000, nested(100_000)],
    ids=lambda value: type(value).__name__)
def test_bytes_and_errors_are_those_of_oslo_serialization(value):
    assert bytes_or_error(dump, value) == bytes_or_error(by_oslo, value)


rich = st.recursive(
    plain | st.datetimes() | st.uuids() | st.decimals() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.floats()
                          | st.none() | st.booleans(), inner, max_size=4)
        | st.builds(DictLike,
                    st.dictionaries(st.text(), inner, max_size=4))),
    max_leaves=12)


@settings(deadline=None)
@given(rich)
@example([{}, {}])
def test_any_value_is_byte_for_byte_what_oslo_serialization_has(value):
    assert bytes_or_error(dump, value) == bytes_or_error(by_oslo, value)


def test_threads_may_encode_the_same_object():
    # A memory of containers that threads share takes a sibling for a circle.
    inner = [1]

    class Meeting:
        """An object whose items() waits for the other thread."""

        def __init__(self):
            self._both = threading.Barrier(2, timeout=20)

        def items(self):
            self._both.wait()
            return {'in': 1}.items()

    shared = [inner, Meeting(), inner]
    made = []
    threads = [threading.Thread(target=lambda: made.append(
        bytes_or_error(dump, shared))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert made == [b'[[1], {"in": 1}, [1]]'] * 2
