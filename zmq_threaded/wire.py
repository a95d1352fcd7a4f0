# SPDX-License-Identifier: Apache-2.0
"""The frames: encode and decode, without I/O.

A multipart is an envelope and a message. The envelope is everything through
the first empty frame (routing ids, and the request id of REQ_CORRELATE); it
is kept as it came and sent back as it was. A message is one frame,
big-endian; frames after it are ignored::

     0   4s  magic          b'ZMQT'
     4   B   major version  another one is refused (NACK VERSION)
     5   B   minor version  only reported
     6   B   kind
     7   B   parts          how many there are
     8   H   flags          unknown ones are ignored
    10   d   expiry         seconds left to live when it was sent, inf: for
                            ever; with DEADLINE the moment itself, on the
                            clock that the processes of a host share
    18  16s  instance       which service it is meant for, or is from
    34  16s  message id
    50   d   client timeout seconds between heartbeats, 0: none wanted
    58   I.. the length of each part, then the parts

The first 50 bytes keep their place for ever, so that any version can refuse
any other by name. All is one frame because pyzmq gives up the GIL for every
frame: among 32 calling threads a frame less saves more than a copy costs.

    kind               parts by kind; unknown ones that follow are ignored
    CALL               context, message
    CAST NOTIFY        context, message, settled id
    FANOUT             context, message, ids of the instances or nothing,
                       settled id; to a receiver it may go with the instance
                       NO_ID and the ids of several, 4,096 at most
    REPLY              result, or with FAILURE the remote exception; empty in
                       the second of two messages, which only has ENDING
    HEARTBEAT          -
    ACK                message ids, 16 bytes each
    NACK               reason (1 byte), text (UTF-8)
    QUERY              message ids, 1,000 at most; a receiver that has no
                       such instance, or one that is paused, answers NACK
                       GONE or UNREACHABLE with the message id NO_ID
    STATUS             message ids, one state byte for each

A settled id says that the sender will not send again what it gave a smaller id
(the ids of a process grow): nobody needs to remember it to know a duplicate.
"""

import dataclasses
import itertools
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
DEADLINE = 16   # request: the expiry is a time of CLOCK_MONOTONIC
OBSERVE = 32    # QUERY: the answers still go to where the request came from

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

# A lane asks for so many at once (client/lane.py); the answer has as many.
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
_FANOUT_INSTANCES = 2     # the part that lists them
# Ids in a part: services of a node, messages that are acknowledged together.
_MOST_IDS = 4096
_LEAST_PARTS = {CALL: 2, CAST: 2, FANOUT: 2, NOTIFY: 2, REPLY: 1,
                HEARTBEAT: 0, ACK: 1, NACK: 2, QUERY: 1, STATUS: 2}


class Malformed(ValueError):
    """These frames are no message of this protocol."""


class WrongVersion(ValueError):
    """A message of another version that cannot be understood; its fixed part
    could be read.

    :ivar header: Message without a body
    """

    def __init__(self, header, what):
        self.header = header
        super().__init__(
            f'{what} of protocol {header.major}.{header.minor} is not '
            f'understood here, this side speaks {MAJOR}.{MINOR}')


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


def id_maker():
    """A function that makes message ids: 8 bytes of this maker, 8 of a
    counter.

    Asking the system for random bytes every time would give up the GIL.
    """
    maker, count = os.urandom(8), itertools.count().__next__
    return lambda: maker + count().to_bytes(8, 'big')


def encode(kind, instance, message_id, body=(), flags=0, expiry=NEVER,
           client_timeout=0.0):
    """The frame of a message, without its envelope.

    :param body: its parts, bytes each
    :param expiry: seconds left to live, or with DEADLINE the moment
    :returns: bytes
    """
    return b''.join((
        _HEADER.pack(_MAGIC, MAJOR, MINOR, kind, len(body), flags, expiry,
                     instance, message_id, client_timeout),
        _LENGTHS[len(body)].pack(*map(len, body)), *body))


def decode(frame):
    """Read the frame of a message.

    :raises: Malformed, WrongVersion
    :returns: Message
    """
    if len(frame) < _FIXED.size or frame[:4] != _MAGIC:
        raise Malformed('no message of this protocol')
    if frame[4] != MAJOR:
        raise WrongVersion(_fixed_part(frame), 'a message')
    if len(frame) < _HEADER.size:
        raise Malformed('the header is cut short')
    (_, major, minor, kind, parts, flags, expiry, instance, message_id,
     client_timeout) = _HEADER.unpack_from(frame)
    least = _LEAST_PARTS.get(kind)
    if least is None:
        raise WrongVersion(_fixed_part(frame), f'kind {kind}')
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


def _parts(frame, count):
    at = _HEADER.size + 4 * count
    if len(frame) < at:
        raise Malformed('the table of lengths is cut short')
    body = []
    for length in _LENGTHS[count].unpack_from(frame, _HEADER.size):
        body.append(frame[at:at + length])
        at += length
    if len(frame) < at:
        raise Malformed('a part is cut short')
    return body


def _fixed_part(frame):
    (_, major, minor, kind, _, flags, expiry, instance,
     message_id) = _FIXED.unpack_from(frame)
    return Message(major, minor, kind, flags, expiry, instance, message_id,
                   0.0, [])


def split_envelope(frames):
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


def address(frame):
    """Where a message wants to go, without looking into its body: all that
    a receiver needs to know, of any version.

    :param frame: bytes, or a buffer of them
    :raises: Malformed
    :returns: (kind, message id, list of ids of instances)
    """
    if len(frame) < _FIXED.size or frame[:4] != _MAGIC:
        raise Malformed('no message of this protocol')
    (_, major, _, kind, parts, _, _, instance,
     message_id) = _FIXED.unpack_from(frame)
    if kind == FANOUT and instance == NO_ID and major == MAJOR:
        return kind, message_id, _instances(frame, parts)
    return kind, message_id, [instance]


def _instances(frame, parts):
    at = _HEADER.size + 4 * parts
    if parts <= _FANOUT_INSTANCES or len(frame) < at:
        raise Malformed('a FANOUT to nobody')
    lengths = _LENGTHS[parts].unpack_from(frame, _HEADER.size)
    at += sum(lengths[:_FANOUT_INSTANCES])
    if lengths[_FANOUT_INSTANCES] > _MOST_IDS * ID_SIZE:
        raise Malformed('a FANOUT to more services than a node has')
    return split_ids(bytes(frame[at:at + lengths[_FANOUT_INSTANCES]]))


def is_for(message, instance_id):
    """Whether a decoded request is meant for this instance."""
    return (message.instance == instance_id
            or message.kind == FANOUT and message.instance == NO_ID
            and len(message.body) > _FANOUT_INSTANCES
            and instance_id in split_ids(message.body[_FANOUT_INSTANCES]))


def settled(message):
    """The settled id of a decoded request, b'' if it has none."""
    part = _FANOUT_INSTANCES + (message.kind == FANOUT)
    if (message.kind == CALL or len(message.body) <= part
            or len(message.body[part]) != ID_SIZE):
        return b''
    return message.body[part]


def maker(message_id):
    """Which id_maker() made an id."""
    return message_id[:8]


def join_ids(ids):
    """One part of message ids."""
    return b''.join(ids)


def split_ids(part):
    """The message ids of a part made by :func:`join_ids`.

    :raises: Malformed
    """
    if len(part) % ID_SIZE:
        raise Malformed('a part of ids has an odd length')
    if len(part) > _MOST_IDS * ID_SIZE:
        raise Malformed(f'a part of more than {_MOST_IDS} ids')
    return [part[at:at + ID_SIZE] for at in range(0, len(part), ID_SIZE)]


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
