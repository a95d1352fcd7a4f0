# SPDX-License-Identifier: Apache-2.0
"""What a process knows of a message that lies in a journal."""

import dataclasses
import time
from typing import Any

import msgpack

from zmq_threaded import wire
from zmq_threaded.registry import record

# What a row takes besides its body, in bytes, about.
_BESIDE = 200


@dataclasses.dataclass(slots=True, eq=False)
class Kept:
    """One message in a journal, shared by its copies.

    :ivar file: journal.file.JournalFile, or None once that is of no use
    :ivar key: of its row
    :ivar size: in bytes, about
    :ivar left: how many of it and its copies have not ended
    :ivar is_ended: its row is removed, or about to be
    :ivar topic: number of its topic in the file, if it was adopted
    :ivar is_stranded: what is left of it waited for pools without listeners

    Thread: caller until it is posted, then outbox; journal for `file`.
    """

    file: Any
    key: int
    size: int
    left: int = 1
    topic: int | None = None
    is_ended: bool = False
    is_stranded: bool = False


def size_of(body: list) -> int:
    """The bytes that a message takes in a journal, about."""
    return sum(map(len, body)) + _BESIDE


def to_wall(monotonic: float) -> float:
    """A monotonic moment, as the clock on the wall has it now."""
    return time.time() + monotonic - time.monotonic()


def deadline(row_deadline: float, row_wall: float, longest: float,
             is_this_boot: bool) -> float:
    """When a message expires, in monotonic seconds.

    The monotonic clock counts while the machine has not been started anew:
    nobody can set it. After that only the clock on the wall is left. If that
    was set back, the message lives no longer than it was to live at first.

    :param row_deadline: in seconds of the monotonic clock of then
    :param row_wall: in seconds of the clock on the wall
    :param longest: seconds that it was to live when it was written
    :param is_this_boot: whether the monotonic clock is still that of then
    """
    if is_this_boot:
        return row_deadline
    left = min(row_wall - time.time(), longest)
    return time.monotonic() + max(0.0, left)


def began(row_wall: float) -> float:
    """When custody of a message began, in monotonic seconds; never later
    than now.

    :param row_wall: the same in seconds of the clock on the wall
    """
    return time.monotonic() - max(0.0, time.time() - row_wall)


def boot() -> str:
    """What tells one start of this machine from the next; '' if nothing
    does.
    """
    try:
        with open('/proc/sys/kernel/random/boot_id', encoding='ascii') as file:
            return file.read().strip()
    except OSError:
        return ''


def pack(instance: record.Instance) -> bytes:
    """An instance, for a row."""
    return msgpack.packb(record.encode([instance]))


def unpack(packed: bytes) -> record.Instance | None:
    """The instance of a row, None if it is of no use."""
    try:
        return next(iter(record.decode(packed)), None)
    except record.Malformed:
        return None


# What is kept in a journal if the option says so.
KINDS = wire.CAST, wire.FANOUT, wire.NOTIFY
