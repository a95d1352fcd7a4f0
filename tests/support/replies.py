# SPDX-License-Identifier: Apache-2.0
"""Replies of a broken or hostile service: (body, flags of the REPLY)."""

import json

import msgpack

from zmq_threaded import wire

_END = wire.ENDING
_PACKED = wire.ENDING | wire.MSGPACK
_FAILED = wire.ENDING | wire.FAILURE


def failure(**fields):
    """A remote exception, but for these fields."""
    return json.dumps({'class': 'ValueError', 'module': 'builtins',
                       'message': 'm', 'tb': [], 'args': ['x'], 'kwargs': {},
                       **fields}).encode(), _FAILED


def _of_class(name, /, *args, **kwargs):
    return failure(**{'class': name, 'args': list(args), 'kwargs': kwargs})


# Nothing of these can be a result or a remote exception.
UNREADABLE = {
    'no JSON': (b'{', _END), 'no UTF-8': (b'\xff\xfe', _END),
    'deep': (b'[' * 200_000, _END),
    'deep and whole': (b'[' * 100_000 + b']' * 100_000, _END),
    'a number that is too long': (b'9' * 100_000, _END),
    'deep msgpack': (b'\x91' * 100_000 + b'\xc0', _PACKED),
    'no time of msgpack': (b'\xc7\x05\xff12345', _PACKED),
    'a huge array': (b'\xdd\xff\xff\xff\xff', _PACKED),
    'a huge map': (b'\xdf\xff\xff\xff\xff', _PACKED),
    'a huge text': (b'\xdb\xff\xff\xff\xff', _PACKED),
    'a key that has no hash': (b'\x81\x90\xc0', _PACKED),
    'no UTF-8 in msgpack': (b'\xa2\xff\xff', _PACKED),
    'a failure that is no JSON': (b'{', _FAILED),
    'a failure that is no UTF-8': (b'\xff', _FAILED),
    'a deep failure': (b'[' * 100_000, _FAILED),
    'a deep argument': (failure()[0].replace(
        b'["x"]', b'[' * 50_000 + b']' * 50_000), _FAILED),
    'a failure with a number that is too long': (failure()[0].replace(
        b'["x"]', b'[' + b'9' * 10_000 + b']'), _FAILED),
    **{f'a failure that is {text}': (text.encode(), _FAILED)
       for text in ('[]', '"x"', '5', 'null', 'true', 'NaN', '[{}]', '{}')},
    'class is missing': (b'{"module": "builtins"}', _FAILED),
    'module is missing': (b'{"class": "ValueError"}', _FAILED),
    **{f'{field} is {value!r}': failure(**{field: value})
       for field, values in {
           'class': (5, None, ['ValueError'], {}),
           'module': (['builtins'], {}, None, 0),
           'message': (5, None, [], {'a': 1}),
           'tb': (5, None, [1, 2], [None], {'a': 1}, 'text'),
           'args': (5, None, {'a': 1}, 'text')}.items()
       for value in values},
}
# These may be; what they are called is not what they would do.
ODD = {
    'SystemExit': _of_class('SystemExit'),
    'KeyboardInterrupt': _of_class('KeyboardInterrupt'),
    'eval': _of_class('eval', '1/0'), 'open': _of_class('open', '/x', 'w'),
    'exec': _of_class('exec', 'raise SystemExit'), 'quit': _of_class('quit'),
    'input': _of_class('input'), 'print': _of_class('print', 'x'),
    '__import__': _of_class('__import__', 'antigravity'),
    'another module': failure(module='os', **{'class': 'error'}),
    'a path': failure(module='nova.exception.../x'),
    'no name of a module': failure(module=''),
    'UnicodeDecodeError': _of_class('UnicodeDecodeError', 'a', 'b', 1, 2, 'c'),
    'UnicodeEncodeError': _of_class('UnicodeEncodeError', 'a', 'b', 1 << 40,
                                    -1 << 40, 'c'),
    'OSError': _of_class('OSError', 2, 'x', 'y'),
    'an empty group': _of_class('ExceptionGroup', 'x', []),
    'a base group': _of_class('BaseExceptionGroup', 'x', []),
    'StopIteration': _of_class('StopIteration'),
    'MemoryError': _of_class('MemoryError'),
    'RecursionError': _of_class('RecursionError'),
    'BlockingIOError': _of_class('BlockingIOError', 1, 'x', -1),
    'SyntaxError': _of_class('SyntaxError', 'x', [1, 2, 3, 4]),
    'ImportError': _of_class('ImportError', name='x', path='/x'),
    'unknown keyword': _of_class('ValueError', unknown=1),
    'kwargs are a list': failure(kwargs=[1]),
    'lone surrogates': failure(**{'class': '\ud800', 'tb': ['\ud800'],
                                  'message': '\ud800'}),
    'a dotted name': _of_class('Exception.__class__'),
    'a special name': _of_class('__loader__'),
}
# Results, if strange ones.
RESULTS = {
    'a number': (b'1', _END), 'NaN': (b'NaN', _END),
    'a key twice': (b'{"a":1,"a":2}', _END),
    'an extension': (msgpack.packb(msgpack.ExtType(5, b'abc')), _PACKED),
    'a time': (msgpack.packb(msgpack.Timestamp(1, 2)), _PACKED),
}
