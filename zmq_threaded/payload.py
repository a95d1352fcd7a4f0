# SPDX-License-Identifier: Apache-2.0
"""Contexts, messages and results to bytes and back, without I/O.

JSON is what oslo.serialization makes of an object, so that datetime, UUID
and dict-like objects arrive as they do with the rabbit driver. msgpack
makes the same of them; it differs only where JSON cannot hold a value
(bytes stay bytes, keys that are no strings stay what they are).
"""

import json
from collections.abc import Iterable
from typing import Any

import msgpack
from oslo_serialization import jsonutils

from zmq_threaded import wire

# What json takes for white space: str.strip() alone would take more.
_SPACE = ' \t\n\r'

# jsonutils.dumps() builds an encoder for each call; this one is the same.
_encode_json = json.JSONEncoder(default=jsonutils.to_primitive).encode
# json.loads() looks for white space with a regular expression, twice.
_decode_json_start = json.JSONDecoder().raw_decode


def dump(objects: Iterable[Any],
         serialization: str) -> tuple[list[bytes], int]:
    """Encode each object into a part of its own.

    :param serialization: 'json' or 'msgpack'
    :raises: TypeError or ValueError when an object cannot be encoded
    :returns: (the parts, wire flags)
    """
    try:
        if serialization == 'msgpack':
            try:
                return [msgpack.packb(item, default=jsonutils.to_primitive)
                        for item in objects], wire.MSGPACK
            except (OverflowError, UnicodeEncodeError):
                # Integers over 64 bits and lone surrogates: JSON has them.
                pass
        return [_encode_json(item).encode() for item in objects], 0
    except RecursionError:
        raise ValueError('the message is nested too deeply') from None


def load(part: bytes, flags: int) -> Any:
    """Decode one part.

    :param flags: wire flags of the message
    :raises: ValueError when the part is not what the flags say
    """
    try:
        if flags & wire.MSGPACK:
            return msgpack.unpackb(part, strict_map_key=False)
        return _decode_json(part.decode())
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException,
            ) as error:
        raise ValueError(f'payload: {type(error).__name__}') from None


def _decode_json(text: str) -> Any:
    text = text.strip(_SPACE)
    value, end = _decode_json_start(text)
    if end != len(text):
        raise json.JSONDecodeError('Extra data', text, end)
    return value
