# SPDX-License-Identifier: Apache-2.0
"""What instances and receivers answer: from frames to what they say (pure).

The module decides nothing; client.evidence does.
"""

from collections.abc import Callable
from typing import NamedTuple

from zmq_threaded import wire


class Acknowledged(NamedTuple):
    """The instance runs these messages or has handled them, and their sender
    may forget them.

    Thread: any.
    """

    ids: list[bytes]


class Replied(NamedTuple):
    """The result of a call.

    Thread: any.
    """

    message: wire.Message


class Alive(NamedTuple):
    """The instance is still at work on a call: a heartbeat, or an ending
    whose result comes in another message.

    Thread: any.
    """

    id: bytes


class States(NamedTuple):
    """What the instance says of the messages that it was asked about.

    :ivar states: of (message id, wire.KNOWN | UNKNOWN | ACKNOWLEDGED)

    Thread: any.
    """

    states: list[tuple[bytes, int]]


class Refused(NamedTuple):
    """The instance, or its receiver, does not take a message.

    :ivar reason: of wire.REASON_NAMES, or one of a later version
    :ivar text: more about the reason, in the words of whoever refuses
    :ivar closes_in: seconds after which the receiver is closed at the latest;
        None unless a receiver refuses it because it is closing

    Thread: any.
    """

    id: bytes
    reason: int
    text: str
    closes_in: float | None = None


class InstanceAbsent(NamedTuple):
    """The receiver answers a question in the place of an instance.

    :ivar reason: of wire.REASON_NAMES, or one of a later version

    Thread: any.
    """

    reason: int


Answer = (Acknowledged | Replied | Alive | States | Refused
          | InstanceAbsent)


def decode(frames: list) -> wire.Message:
    """The message that arrived, which may be for an instance that is not
    known any more.

    :raises: wire.Malformed, wire.WrongVersion
    """
    _, frame = wire.split_envelope(frames)
    message = wire.decode(frame)
    if message.kind not in _READERS:
        raise wire.Malformed(f'kind {message.kind} is not for a client')
    return message


def read(message: wire.Message, from_receiver: bool) -> Answer:
    """What a message says.

    :param from_receiver: whether it came from a receiver
    :raises: wire.Malformed
    """
    return _READERS[message.kind](message, from_receiver)


def _read_ack(message: wire.Message, from_receiver: bool) -> Answer:
    return Acknowledged(wire.acknowledged_ids(message))


def _read_reply(message: wire.Message, from_receiver: bool) -> Answer:
    """The first result ends a call; an ending without one may come before
    the result, after it, or never.
    """
    if wire.has_result(message):
        return Replied(message)
    return Alive(message.id)


def _read_heartbeat(message: wire.Message, from_receiver: bool) -> Answer:
    return Alive(message.id)


def _read_status(message: wire.Message, from_receiver: bool) -> Answer:
    return States(wire.status_states(message))


def _read_nack(message: wire.Message, from_receiver: bool) -> Answer:
    reason, text = wire.nack_reason(message)
    if message.id != wire.NO_ID:
        return Refused(message.id, reason, text, wire.closes_in(message)
                       if from_receiver else None)
    if not from_receiver:
        # The connection of an instance would be closed while it is read.
        raise wire.Malformed('only a receiver speaks for an instance')
    return InstanceAbsent(reason)


_READERS: dict[int, Callable[[wire.Message, bool], Answer]] = {
    wire.ACK: _read_ack, wire.REPLY: _read_reply,
    wire.HEARTBEAT: _read_heartbeat, wire.STATUS: _read_status,
    wire.NACK: _read_nack}
