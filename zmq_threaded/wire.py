# SPDX-License-Identifier: Apache-2.0
"""The frames: encode and decode, without I/O.

A multipart is an envelope and a message. The envelope is everything through
the first empty frame (routing ids, and the request id of REQ_CORRELATE); it
is kept as it came and sent back as it was. A message is::

    frame 0   header, big-endian, 58 bytes or more
               0   4s  magic          b'ZMQT'
               4   B   major version  another one is refused (NACK VERSION)
               5   B   minor version  only reported
               6   B   kind
               7   x
               8   H   flags          unknown ones are ignored
              10   d   expiry         seconds left to live, inf: for ever
              18  16s  instance       which service it is meant for, or is from
              34  16s  message id
              50   d   client timeout seconds between heartbeats, 0: none wanted
    frame 1.. body, by kind; unknown trailing frames are ignored

The first 50 bytes keep their place for ever, so that any version can refuse
any other by name. They are one frame and not five, because each frame costs
every hop about two microseconds.

    kind               body
    CALL CAST FANOUT   context, message
    NOTIFY             context, message
    REPLY              result, or with FAILURE the remote exception
    HEARTBEAT          -
    ACK                message ids, 16 bytes each
    NACK               reason (1 byte), text (UTF-8)
    QUERY              message ids
    STATUS             message ids, one state byte for each
"""

import dataclasses
import math
import os
import struct

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

# NACK reasons
GONE, STOPPING, BUSY, VERSION, EXPIRED = 1, 2, 3, 4, 5
REASON_NAMES = {GONE: 'gone', STOPPING: 'stopping', BUSY: 'busy',
                VERSION: 'version', EXPIRED: 'expired'}

# STATUS states
UNKNOWN, KNOWN, ACKNOWLEDGED = 0, 1, 2

ID_SIZE = 16
NO_ID = bytes(ID_SIZE)
NEVER = math.inf

_MAGIC = b'ZMQT'
_FIXED = struct.Struct('!4sBBBxHd16s16s')
_HEADER = struct.Struct('!4sBBBxHd16s16sd')
_LEAST_BODY = {CALL: 2, CAST: 2, FANOUT: 2, NOTIFY: 2, REPLY: 1,
               HEARTBEAT: 0, ACK: 1, NACK: 2, QUERY: 1, STATUS: 2}


class Malformed(ValueError):
    """These frames are no message of this protocol."""


class WrongVersion(ValueError):
    """A message of another major version; its fixed part could be read."""

    def __init__(self, header):
        self.header = header
        super().__init__(
            f'protocol {header.major}.{header.minor} is not understood here, '
            f'this side speaks {MAJOR}.{MINOR}')


@dataclasses.dataclass(slots=True)
class Message:
    """A decoded message; the fields are those of the table above."""

    major: int
    minor: int
    kind: int
    flags: int
    expiry: float
    instance: bytes
    id: bytes
    client_timeout: float
    body: list


def new_id():
    """A random id of 16 bytes, for instances and messages."""
    return os.urandom(ID_SIZE)


def encode(kind, instance, message_id, body=(), flags=0, expiry=NEVER,
           client_timeout=0.0):
    """The frames of a message, without its envelope.

    :param body: the frames after the header
    :param expiry: seconds left to live (a remaining time, so that no two
        hosts need to agree on a clock)
    :returns: list of bytes
    """
    return [_HEADER.pack(_MAGIC, MAJOR, MINOR, kind, flags, expiry, instance,
                         message_id, client_timeout), *body]


def decode(frames):
    """Read the frames of a message (no envelope).

    :raises: Malformed, WrongVersion
    :returns: Message
    """
    header = frames[0] if frames else b''
    if len(header) < _FIXED.size or header[:4] != _MAGIC:
        raise Malformed('no header of this protocol')
    if header[4] != MAJOR:
        raise WrongVersion(_fixed_part(header))
    if len(header) < _HEADER.size:
        raise Malformed('the header is cut short')
    (_, major, minor, kind, flags, expiry, instance, message_id,
     client_timeout) = _HEADER.unpack_from(header)
    least = _LEAST_BODY.get(kind)
    if least is None:
        raise Malformed(f'unknown kind {kind}')
    if len(frames) <= least:
        raise Malformed(f'{KIND_NAMES[kind]} lacks frames')
    # A NaN would pass every later comparison.
    if not expiry >= 0 or not 0 <= client_timeout < NEVER:
        raise Malformed('expiry or client timeout is no duration')
    return Message(major, minor, kind, flags, expiry, instance, message_id,
                   client_timeout, frames[1:])


def _fixed_part(header):
    (_, major, minor, kind, flags, expiry, instance,
     message_id) = _FIXED.unpack_from(header)
    return Message(major, minor, kind, flags, expiry, instance, message_id,
                   0.0, [])


def split_envelope(frames):
    """Part a received multipart into its envelope and its message frames.

    :raises: Malformed when there is no empty frame
    """
    try:
        end = frames.index(b'') + 1
    except ValueError:
        raise Malformed('no envelope') from None
    return frames[:end], frames[end:]


def join_ids(ids):
    """One frame of message ids."""
    return b''.join(ids)


def split_ids(frame):
    """The message ids of a frame made by :func:`join_ids`.

    :raises: Malformed
    """
    if len(frame) % ID_SIZE:
        raise Malformed('a frame of ids has an odd length')
    return [frame[at:at + ID_SIZE] for at in range(0, len(frame), ID_SIZE)]


def encode_nack(instance, message_id, reason, text=''):
    """A refusal; the reason decides what the sender does next."""
    return encode(NACK, instance, message_id,
                  (bytes((reason,)), text.encode()))


def nack_reason(message):
    """(reason, text) of a NACK.

    :raises: Malformed
    """
    if len(message.body[0]) != 1:
        raise Malformed('a NACK has one byte of reason')
    return message.body[0][0], message.body[1].decode('utf-8', 'replace')


def encode_status(instance, states):
    """The answer to a QUERY.

    :param states: list of (message id, UNKNOWN | KNOWN | ACKNOWLEDGED)
    """
    return encode(STATUS, instance, NO_ID,
                  (join_ids(message_id for message_id, _ in states),
                   bytes(state for _, state in states)))


def status_states(message):
    """List of (message id, state) of a STATUS.

    :raises: Malformed
    """
    ids = split_ids(message.body[0])
    if len(ids) != len(message.body[1]):
        raise Malformed('a STATUS has one state for each id')
    return list(zip(ids, message.body[1]))
