# SPDX-License-Identifier: Apache-2.0
"""Exceptions of endpoints to bytes, whatever they hold. Without I/O.

oslo.messaging's own form fails for arguments that are no UTF-8, that refer to
themselves or are nested deeply, and for a __str__() that raises. The caller
then gets less, step by step: first the arguments as text, in the end only the
name of the exception. The name always arrives.
"""

import json
import traceback
from typing import Any

from oslo_messaging._drivers import common

from zmq_threaded import wire

# Characters: of one text, and of a whole failure in the form of
# oslo.messaging, which holds the text three times.
_TEXT_LIMIT = 64 * 1024
_LIMIT = 8 * _TEXT_LIMIT
_REMOTE = '_Remote'


def encode(failure: Any) -> tuple[list[bytes], int]:
    """The result of a call that failed.

    :param failure: sys.exc_info() of the exception
    :returns: (parts of a REPLY, wire flags)
    """
    for form in _whole, _as_text, _trace_only:
        try:
            text = form(failure)
            if len(text) <= _LIMIT:
                return [text.encode()], wire.FAILURE
        except Exception:
            continue    # the next form needs less of it
    return [_name_only(failure).encode()], wire.FAILURE


def named(name: str, text: str) -> tuple[list[bytes], int]:
    """The result of a call that failed without an exception.

    :param name: for the caller, in place of the name of an exception
    """
    return [_dump(name, __name__, text).encode()], wire.FAILURE


def in_place_of(frame: bytes) -> bytes:
    """The frame of a failure for that of a reply which there is no memory to
    send; b'' for any other message.
    """
    kind, message_id, (instance_id,) = wire.address(frame)
    if kind != wire.REPLY:
        return b''
    body, flags = named('MemoryError', f'the server has not enough memory to '
                        f'send its reply of {len(frame)} bytes')
    return wire.encode_reply(instance_id, message_id, body,
                             flags | wire.ENDING)


def _whole(failure):
    if _is_huge(failure[1]):
        raise ValueError('cut')
    return common.serialize_remote_exception(failure)


def _is_huge(error):
    # Before a text of megabytes is copied and escaped several times.
    return any(isinstance(each, (str, bytes)) and len(each) > _TEXT_LIMIT
               for each in error.args)


def _as_text(failure):
    error = failure[1]
    return _dump(*_name(error), _text(error), _trace(failure),
                 [_argument(each) for each in error.args])


def _trace_only(failure):
    return _dump(*_name(failure[1]), _text(failure[1]), _trace(failure))


def _name_only(failure):
    return _dump(*_name(failure[1]), 'the exception cannot be told in more '
                 'detail')


def _dump(name, module, text, trace=(), args=None):
    return json.dumps({'class': name, 'module': module, 'message': text,
                       'tb': list(trace),
                       'args': [text] if args is None else args,
                       'kwargs': {}})


def _name(error: Any) -> tuple[str, str]:
    """Name and module; of an exception that came from another server, those
    of the original.
    """
    name, module = type(error).__name__, str(type(error).__module__)
    if name.endswith(_REMOTE) and module.endswith(_REMOTE):
        name, module = name[:-len(_REMOTE)], module[:-len(_REMOTE)]
    return name, module


def _argument(value):
    if isinstance(value, str):
        return _cut(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (bytes, bytearray)):
        value = value[:_TEXT_LIMIT]
    return _safe(repr, value)


def _text(error):
    # Of a long one str() would make a copy, and it may be of a KeyError.
    if (len(error.args) == 1 and isinstance(error.args[0], str)
            and len(error.args[0]) > _TEXT_LIMIT):
        return _cut(error.args[0])
    return _safe(str, error)


def _safe(function, value):
    try:
        return _cut(function(value))
    except Exception as problem:
        return (f'<{type(value).__name__}: {function.__name__}() raised '
                f'{type(problem).__name__}>')


def _trace(failure):
    return [_cut(line) for line in traceback.format_tb(failure[2])]


def _cut(text):
    if len(text) <= _TEXT_LIMIT:
        return text
    return (f'{text[:_TEXT_LIMIT]}... (cut by zmq_threaded: '
            f'{len(text)} characters)')
