# SPDX-License-Identifier: Apache-2.0
"""One message in the custody of the outbox, and who waits for it."""

import dataclasses
import enum
import time
from collections.abc import Sequence
from typing import Any

from zmq_threaded import mailbox
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import room
from zmq_threaded.registry import record


class Where(enum.Enum):
    """Where a message is. The value completes the sentence 'The message ...'.

    Whoever puts a message into a place says so in Delivery.where, and whoever
    takes a message out of a place says that the message is MOVING.

    Thread: any, for the members are constants.
    """

    POSTED = 'is not in custody yet'
    MOVING = 'is between two places'
    WAITING = 'waits for a service of its topic'
    SPREADING = 'waits for the list of those that are to have a copy'
    HELD_UP = 'waits for what this process lacks to send it'
    RECORDING = 'waits until its journal says to whom it goes'
    QUEUED = 'is in the send queue to its instance'
    IN_FLIGHT = 'was sent to its instance and is not acknowledged'
    ENDED = 'has left custody'


@dataclasses.dataclass(slots=True, eq=False)
class Delivery:
    """One message on its way to one instance, until it is acknowledged.

    :ivar topic: topic.Topic
    :ivar body: the parts of the message, bytes each
    :ivar expires: monotonic seconds
    :ivar id: given by the outbox
    :ivar where: the place in custody
    :ivar instance: record.Instance to which the message must go (a fanout's
        copy), or to which it was given last; None before that
    :ivar pinned: the message must not go to any other instance
    :ivar chosen: the instance whose turn it is, until the message was given
        to that instance
    :ivar spread: a copy goes to each instance (a fanout), or to each pool (a
        notification)
    :ivar group: of a fanout's copies that go to one receiver, those that were
        not sent yet; they go together
    :ivar attempts: look-ups that may find nobody; None for any number
    :ivar may_have_run: an instance that was sent the message is lost
    :ivar is_in_doubt: the message was sent, and may have to be sent again
    :ivar since: when custody of it began, in monotonic seconds
    :ivar sent_at: when it was sent last, in monotonic seconds
    :ivar held_up: what this process lacked when it tried to send the message
        last, '' for nothing
    :ivar waiter: mailbox.Answers of the thread that waits for events of it
    :ivar destination: where the messages of its topic are counted
    :ivar kept: journal.kept.Kept of a message that lies in a journal, or None
    :ivar part: the row of the journal that says where it goes, 0 for none
    :ivar recorded_for: id of the instance that this row names, b'' for none

    Thread: caller until it is posted, then outbox.
    """

    kind: int
    topic: topics.Topic
    body: list
    flags: int
    expires: float
    id: bytes = b''
    instance: Any = None
    pinned: bool = False
    spread: bool = False
    attempts: int | None = None
    client_timeout: float = 0.0
    waiter: mailbox.Answers | None = None
    destination: room.Destination | None = None
    since: float = dataclasses.field(default_factory=time.monotonic)
    sent_at: float = 0.0
    is_in_doubt: bool = False
    may_have_run: bool = False
    group: Sequence['Delivery'] = ()
    chosen: record.Instance | None = None
    held_up: str = ''
    where: Where = Where.POSTED
    kept: Any = None
    part: int = 0
    recorded_for: bytes = b''

    def frame(self, endpoint: str, settled: bytes = b'',
              instances: Sequence[bytes] = ()) -> bytes:
        """The message as it is sent to an endpoint.

        :param settled: id below which nothing will be sent again
        :param instances: ids, when it goes to several behind one receiver
        """
        flag, expiry = expiry_for(endpoint, self.expires)
        instance = wire.NO_ID if instances else self.instance.id
        body = self.body
        if self.kind == wire.FANOUT:
            body = [*body, wire.join_ids(instances), settled]
        elif self.kind != wire.CALL:
            body = [*body, settled]
        return wire.encode(self.kind, instance, self.id, body,
                           self.flags | flag, expiry, self.client_timeout)

    def copy_for(self, instance: record.Instance,
                 group: Sequence = ()) -> 'Delivery':
        """A fanout's copy for one instance."""
        copy = self._copy(self.topic)
        copy.instance, copy.pinned, copy.group = instance, True, group
        return copy

    def copy_for_pool(self, topic: topics.Topic) -> 'Delivery':
        """A notification's copy for one pool."""
        return self._copy(topic)

    def _copy(self, topic):
        # By hand: dataclasses.replace() takes ten times as long.
        return Delivery(
            self.kind, topic, self.body, self.flags, self.expires, self.id,
            destination=self.destination, since=self.since, kept=self.kept)

    def tell(self, event: str, detail: Any = None) -> None:
        """Tell the thread that waits, if one does."""
        if self.waiter is not None:
            self.waiter.put((event, detail))
        if event == TAKEN:
            # From here on the sender relies on it, whatever its option
            # `retry` said.
            self.attempts = None

    def __str__(self) -> str:
        return (f'{wire.KIND_NAMES[self.kind]} {self.id.hex()} '
                f'for {self.topic}')


class Watch:
    """A call of the REQ pool whose instance is asked whether it still has it.

    :ivar is_lost: the call will not be answered any more

    Thread: outbox; any for is_lost.
    """

    __slots__ = ('instance', 'id', 'is_lost', '_was_known', '_unknown')

    def __init__(self, instance: record.Instance, message_id: bytes):
        self.instance = instance
        self.id = message_id
        self.is_lost = False
        self._was_known = False
        self._unknown = 0

    def heard(self, is_known: bool) -> None:
        """Note whether the instance says that it has the call.

        An instance that does not know a call proves nothing before it knew
        the call, for a long call may still be on its way. To be unknown once
        proves nothing either: the reply may just have left.
        """
        if is_known:
            self._was_known, self._unknown = True, 0
        elif self._was_known:
            self._unknown += 1
            self.is_lost = self._unknown > 1


def expiry_for(endpoint: str, deadline: float) -> tuple[int, float]:
    """How a request says when its sender gives up: (wire flag, expiry).

    The time that it lies unread in a full service's buffers counts only by a
    common clock. Two hosts have none, and get the seconds that are left.

    :param deadline: monotonic seconds
    """
    if endpoint.startswith('ipc://'):
        return wire.DEADLINE, deadline
    return 0, max(0.0, deadline - time.monotonic())


def is_final(reason: int, instance: record.Instance) -> bool:
    """Whether a refusal means that an instance will never take a message
    again. A receiver that says GONE may be looking in the wrong directory.
    """
    return (reason == wire.STOPPING
            or reason == wire.GONE and not instance.receiver)


# Events that a waiter gets: (event, detail)
TAKEN = 'taken'                  # the instance has read it
ACKNOWLEDGED = 'acknowledged'
REPLIED = 'replied'              # detail: wire.Message
HEARTBEAT = 'heartbeat'
NOBODY = 'nobody'                # as many look-ups as allowed found nobody
FAILED = 'failed'                # detail: why it was given up
EXPIRED = 'expired'
LOST = 'lost'                    # the server of a call is gone
