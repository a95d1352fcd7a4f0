# SPDX-License-Identifier: Apache-2.0
"""The frame that every message is: its header and its parts."""

import dataclasses
import itertools
import math
import os
import struct
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

Buffer = bytes | memoryview

MAJOR = 1
MINOR = 0

CALL, CAST, FANOUT, NOTIFY = 1, 2, 3, 4
REPLY, HEARTBEAT, ACK, NACK, QUERY, STATUS = 5, 6, 7, 8, 9, 10
KIND_NAMES = {
    CALL: 'CALL', CAST: 'CAST', FANOUT: 'FANOUT', NOTIFY: 'NOTIFY',
    REPLY: 'REPLY', HEARTBEAT: 'HEARTBEAT', ACK: 'ACK', NACK: 'NACK',
    QUERY: 'QUERY', STATUS: 'STATUS'}
REQUESTS = frozenset((CALL, CAST, FANOUT, NOTIFY))

# Flags
MSGPACK = 1     # the body is msgpack, else JSON
FAILURE = 2     # REPLY: the body is a remote exception
ENDING = 4      # REPLY: the last message of its call
CONFIRM = 8     # request: the poller answers STATUS as soon as it has read it
DEADLINE = 16   # request: the expiry is a time of CLOCK_MONOTONIC
OBSERVE = 32    # QUERY: the answers still go to where the request came from
CLOSING = 64    # NACK: the receiver is closing, and closed after the expiry

# NACK reasons
(GONE, STOPPING, BUSY, VERSION, EXPIRED, REQUEUED, MALFORMED,
 UNREACHABLE) = range(1, 9)
REASON_NAMES = {GONE: 'gone', STOPPING: 'stopping', BUSY: 'busy',
                VERSION: 'version', EXPIRED: 'expired', REQUEUED: 'requeued',
                MALFORMED: 'malformed', UNREACHABLE: 'unreachable'}

# STATUS states
UNKNOWN, KNOWN, ACKNOWLEDGED = 0, 1, 2

# What a client may want as its client timeout, in seconds: ten years.
LONGEST_TIMEOUT = 10 * 365 * 86400.0

# A client asks for so many at once; the answer has as many.
MOST_IDS_OF_A_QUERY = 1000

ID_SIZE = 16
NO_ID = bytes(ID_SIZE)
NO_RESULT = b''     # the part of a REPLY that only has ENDING
NEVER = math.inf

# A few routing ids, of 255 bytes each at most.
_LONGEST_ENVELOPE = 1024

_MAGIC = b'ZMQT'
_FIXED = struct.Struct('!4sBBBBHd16s16s')
_HEADER = struct.Struct('!4sBBBBHd16s16sd')
_LENGTHS = [struct.Struct(f'!{parts}I') for parts in range(256)]
_LEAST_PARTS = {CALL: 2, CAST: 2, FANOUT: 2, NOTIFY: 2, REPLY: 1,
                HEARTBEAT: 0, ACK: 1, NACK: 2, QUERY: 1, STATUS: 2}


class Malformed(ValueError):
    """These frames are no message of this protocol."""


class WrongVersion(ValueError):
    """A message of another version that cannot be understood; its fixed part
    could be read.

    :ivar header: Message without a body
    """

    def __init__(self, header: 'Message', what: str) -> None:
        self.header = header
        super().__init__(
            f'{what} of protocol {header.major}.{header.minor} is not '
            f'understood here, this side speaks {MAJOR}.{MINOR}')


@dataclasses.dataclass(slots=True)
class Message:
    """A decoded message. Its fields are those of the table in
    :mod:`zmq_threaded.wire`.
    """

    major: int
    minor: int
    kind: int
    flags: int
    expiry: float
    instance: bytes
    id: bytes
    client_timeout: float
    body: list[bytes]


def id_maker() -> Callable[[], bytes]:
    """A function that makes message ids: 8 bytes of this maker, 8 of a
    counter.

    Asking the system for random bytes every time would give up the GIL.
    """
    own, count = os.urandom(8), itertools.count().__next__
    return lambda: own + count().to_bytes(8, 'big')


def maker(message_id: bytes) -> bytes:
    """Which id_maker() made an id."""
    return message_id[:8]


def encode(kind: int, instance: bytes, message_id: bytes,
           body: Sequence[bytes] = (), flags: int = 0, expiry: float = NEVER,
           client_timeout: float = 0.0) -> bytes:
    """The frame of a message, without its envelope.

    :param body: its parts, bytes each
    :param expiry: seconds left to live, or with DEADLINE the moment
    """
    return b''.join((
        _HEADER.pack(_MAGIC, MAJOR, MINOR, kind, len(body), flags, expiry,
                     instance, message_id, client_timeout),
        _LENGTHS[len(body)].pack(*map(len, body)), *body))


def decode(frame: bytes) -> Message:
    """Read the frame of a message.

    :raises: Malformed, WrongVersion
    """
    if len(frame) < _FIXED.size or frame[:4] != _MAGIC:
        raise Malformed('no message of this protocol')
    if frame[4] != MAJOR:
        raise WrongVersion(_header_alone(frame), 'a message')
    if len(frame) < _HEADER.size:
        raise Malformed('the header is cut short')
    (_, major, minor, kind, parts, flags, expiry, instance, message_id,
     client_timeout) = _HEADER.unpack_from(frame)
    least = _LEAST_PARTS.get(kind)
    if least is None:
        raise WrongVersion(_header_alone(frame), f'kind {kind}')
    if parts < least:
        raise Malformed(f'{KIND_NAMES[kind]} lacks parts')
    # A NaN would pass every later comparison.
    if not expiry >= 0 or not 0 <= client_timeout <= LONGEST_TIMEOUT:
        raise Malformed('expiry or client timeout is no duration')
    body = _parts(frame, parts)
    if kind == QUERY and len(body[0]) > MOST_IDS_OF_A_QUERY * ID_SIZE:
        raise Malformed(f'a QUERY of more than {MOST_IDS_OF_A_QUERY} ids')
    return Message(major, minor, kind, flags, expiry, instance, message_id,
                   client_timeout, body)


def _parts(frame: bytes, count: int) -> list[bytes]:
    each, at = lengths(frame, count)
    body = []
    for length in each:
        body.append(frame[at:at + length])
        at += length
    if len(frame) < at:
        raise Malformed('a part is cut short')
    return body


def lengths(frame: Buffer, count: int) -> tuple[tuple[int, ...], int]:
    """The table of lengths of a frame that has a whole header.

    :param count: how many parts it has
    :raises: Malformed
    :returns: (the length of each part, where the first one begins)
    """
    at = _HEADER.size + 4 * count
    if len(frame) < at:
        raise Malformed('the table of lengths is cut short')
    return _LENGTHS[count].unpack_from(frame, _HEADER.size), at


def fixed_part(frame: Buffer) -> tuple[int, int, int, bytes, bytes]:
    """What any version can read of a frame of any version.

    :raises: Malformed
    :returns: (major version, kind, number of parts, instance, message id)
    """
    if len(frame) < _FIXED.size or frame[:4] != _MAGIC:
        raise Malformed('no message of this protocol')
    (_, major, _, kind, parts, _, _, instance,
     message_id) = _FIXED.unpack_from(frame)
    return major, kind, parts, instance, message_id


def _header_alone(frame: bytes) -> Message:
    (_, major, minor, kind, _, flags, expiry, instance,
     message_id) = _FIXED.unpack_from(frame)
    return Message(major, minor, kind, flags, expiry, instance, message_id,
                   0.0, [])


def split_envelope(frames: list[Any]) -> tuple[list[Any], Any]:
    """Part a received multipart into its envelope and its message.

    :raises: Malformed when there is no empty frame, or nothing after it, or
        when the envelope is longer than routing ids can be
    :returns: (list of frames, frame)
    """
    try:
        end = frames.index(b'') + 1
        envelope, frame = frames[:end], frames[end]
    except (ValueError, IndexError):
        raise Malformed('no envelope, or no message') from None
    # It is kept with what is held, and goes back with each answer.
    if sum(map(len, envelope)) > _LONGEST_ENVELOPE:
        raise Malformed(f'an envelope of more than {_LONGEST_ENVELOPE} bytes')
    return envelope, frame
