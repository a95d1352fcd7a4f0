# SPDX-License-Identifier: Apache-2.0
"""What the parts of each kind of message are, written and read.

Nobody else knows which part stands at which place. What reads a message that
came from outside raises Malformed when it is not as the table of
:mod:`zmq_threaded.wire` has it.
"""

from collections.abc import Iterable
from collections.abc import Sequence

from zmq_threaded.wire import frames

# Seconds; a receiver takes at most its zmq_linger and a little more.
_LONGEST_CLOSING = 60.0

_CONTEXT_AND_MESSAGE = 2
_FANOUT_INSTANCES = 2     # the part that lists them
# Ids in a part: services of a node, messages that are acknowledged together.
_MOST_IDS = 4096


# Ids


def join_ids(ids: Iterable[bytes]) -> bytes:
    """One part of message ids."""
    return b''.join(ids)


def split_ids(part: bytes) -> list[bytes]:
    """The message ids of a part made by :func:`join_ids`.

    :raises: Malformed
    """
    if len(part) % frames.ID_SIZE:
        raise frames.Malformed('a part of ids has an odd length')
    if len(part) > _MOST_IDS * frames.ID_SIZE:
        raise frames.Malformed(f'a part of more than {_MOST_IDS} ids')
    return [part[at:at + frames.ID_SIZE]
            for at in range(0, len(part), frames.ID_SIZE)]


# CALL, CAST, FANOUT, NOTIFY


def encode_request(kind: int, instance: bytes, message_id: bytes,
                   body: Sequence[bytes], flags: int = 0,
                   expiry: float = frames.NEVER, client_timeout: float = 0.0,
                   settled: bytes = b'',
                   instances: Iterable[bytes] = ()) -> bytes:
    """A request.

    :param kind: one of REQUESTS
    :param instance: id of the service that it is for; NO_ID for a FANOUT to
        several
    :param body: context and message, bytes each
    :param expiry: seconds left to live, or with DEADLINE the moment
    :param settled: id below which its sender sends nothing again; a CALL has
        none
    :param instances: of a FANOUT to several: their ids
    """
    if kind == frames.FANOUT:
        body = [*body, join_ids(instances), settled]
    elif kind != frames.CALL:
        body = [*body, settled]
    return frames.encode(kind, instance, message_id, body, flags, expiry,
                         client_timeout)


def context_and_message(message: frames.Message) -> list[bytes]:
    """The two parts of a decoded request, each to be read by payload.load().
    """
    return message.body[:_CONTEXT_AND_MESSAGE]


def address(frame: frames.Buffer) -> tuple[int, bytes, list[bytes]]:
    """Where a message wants to go, without looking into its body: all that
    a receiver needs to know, of any version.

    :param frame: bytes, or a buffer of them
    :raises: Malformed
    :returns: (kind, message id, list of ids of instances)
    """
    major, kind, parts, instance, message_id = frames.fixed_part(frame)
    if (kind == frames.FANOUT and instance == frames.NO_ID
            and major == frames.MAJOR):
        return kind, message_id, _instances(frame, parts)
    return kind, message_id, [instance]


def _instances(frame: frames.Buffer, parts: int) -> list[bytes]:
    if parts <= _FANOUT_INSTANCES:
        raise frames.Malformed('a FANOUT to nobody')
    lengths, at = frames.lengths(frame, parts)
    at += sum(lengths[:_FANOUT_INSTANCES])
    if lengths[_FANOUT_INSTANCES] > _MOST_IDS * frames.ID_SIZE:
        raise frames.Malformed('a FANOUT to more services than a node has')
    return split_ids(bytes(frame[at:at + lengths[_FANOUT_INSTANCES]]))


def is_for(message: frames.Message, instance_id: bytes) -> bool:
    """Whether a decoded request is meant for this instance."""
    return (message.instance == instance_id
            or message.kind == frames.FANOUT
            and message.instance == frames.NO_ID
            and len(message.body) > _FANOUT_INSTANCES
            and instance_id in split_ids(message.body[_FANOUT_INSTANCES]))


def settled(message: frames.Message) -> bytes:
    """The settled id of a decoded request, b'' if it has none."""
    part = _FANOUT_INSTANCES + (message.kind == frames.FANOUT)
    if (message.kind == frames.CALL or len(message.body) <= part
            or len(message.body[part]) != frames.ID_SIZE):
        return b''
    return message.body[part]


# REPLY and HEARTBEAT


def encode_reply(instance: bytes, message_id: bytes, body: Sequence[bytes],
                 flags: int) -> bytes:
    """The result of a call.

    :param body: one part: the result, or with FAILURE the remote exception
    :param flags: with ENDING, no other message of this call follows
    """
    return frames.encode(frames.REPLY, instance, message_id, body, flags)


def encode_ending(instance: bytes, message_id: bytes) -> bytes:
    """The second of two messages of a call, without a result."""
    return frames.encode(frames.REPLY, instance, message_id,
                         (frames.NO_RESULT,), frames.ENDING)


def has_result(reply: frames.Message) -> bool:
    """Whether a REPLY is more than the ending of a call."""
    return reply.body[0] != frames.NO_RESULT


def reply_result(reply: frames.Message) -> bytes:
    """The result of a REPLY, or with FAILURE the remote exception."""
    return reply.body[0]


def encode_heartbeat(instance: bytes, message_id: bytes) -> bytes:
    """Tells a client that its call is still being run."""
    return frames.encode(frames.HEARTBEAT, instance, message_id)


# ACK and NACK


def encode_ack(instance: bytes, ids: Iterable[bytes]) -> bytes:
    """Tells a client that its messages were taken up or handled."""
    return frames.encode(frames.ACK, instance, frames.NO_ID, (join_ids(ids),))


def acknowledged_ids(ack: frames.Message) -> list[bytes]:
    """The message ids of an ACK.

    :raises: Malformed
    """
    return split_ids(ack.body[0])


def encode_nack(instance: bytes, message_id: bytes, reason: int,
                text: str = '', closes_in: float | None = None) -> bytes:
    """A refusal; the reason decides what the sender does next.

    :param closes_in: seconds after which the receiver that refuses is closed
        at the latest; None unless it is closing
    """
    body = bytes((reason,)), text.encode()
    if closes_in is None:
        return frames.encode(frames.NACK, instance, message_id, body)
    return frames.encode(frames.NACK, instance, message_id, body,
                         frames.CLOSING, closes_in)


def closes_in(nack: frames.Message) -> float | None:
    """Seconds after which the receiver that refuses is closed at the latest;
    None unless it is closing.
    """
    return (min(nack.expiry, _LONGEST_CLOSING)
            if nack.flags & frames.CLOSING else None)


def nack_reason(nack: frames.Message) -> tuple[int, str]:
    """(reason, text) of a NACK.

    :raises: Malformed
    """
    reason, text = nack.body[:2]
    if len(reason) != 1:
        raise frames.Malformed('a NACK has one byte of reason')
    return reason[0], text.decode('utf-8', 'replace')


# QUERY and STATUS


def encode_query(instance: bytes, ids: Iterable[bytes],
                 flags: int = 0) -> bytes:
    """Asks a service which of some messages it has.

    :param ids: MOST_IDS_OF_A_QUERY at most
    :param flags: OBSERVE, or 0
    """
    return frames.encode(frames.QUERY, instance, frames.NO_ID,
                         (join_ids(ids),), flags)


def queried_ids(query: frames.Message) -> list[bytes]:
    """The message ids of a QUERY.

    :raises: Malformed
    """
    return split_ids(query.body[0])


def encode_status(instance: bytes,
                  states: Sequence[tuple[bytes, int]]) -> bytes:
    """The answer to a QUERY.

    :param states: list of (message id, UNKNOWN | KNOWN | ACKNOWLEDGED)
    """
    return frames.encode(frames.STATUS, instance, frames.NO_ID,
                         (join_ids(message_id for message_id, _ in states),
                          bytes(state for _, state in states)))


def status_states(status: frames.Message) -> list[tuple[bytes, int]]:
    """List of (message id, state) of a STATUS.

    :raises: Malformed
    """
    ids, states = split_ids(status.body[0]), status.body[1]
    if len(ids) != len(states):
        raise frames.Malformed('a STATUS has one state for each id')
    return list(zip(ids, states))
