# SPDX-License-Identifier: Apache-2.0
"""What the outbox keeps: messages in custody, and who waits for them."""

import collections
import dataclasses
import itertools
import queue
import time

from zmq_threaded import wire


@dataclasses.dataclass(slots=True, eq=False)
class Delivery:
    """One message on its way to one instance, until it is acknowledged.

    :ivar expires: monotonic seconds
    :ivar id: given by the outbox
    :ivar instance: where it must go (a fanout copy), or where it is now
    :ivar pinned: it must not go anywhere else
    :ivar chosen: the instance whose turn it is, until it was sent there
    :ivar spread: a copy goes to each instance (a fanout), or to each pool (a
        notification)
    :ivar group: of a fanout's copies that go to one receiver, those that were
        not sent yet; they go together
    :ivar attempts: look-ups that may find nobody; None for any number
    :ivar may_have_run: an instance that had it is lost
    :ivar is_unsettled: it was sent, and may have to be sent again
    :ivar since: when it was taken into custody, in monotonic seconds
    :ivar held_up: what this process lacks to send it, '' for nothing
    :ivar waiter: queue of the thread that waits for events of it, or None

    Thread: outbox, once it was posted.
    """

    kind: int
    topic: object
    body: list
    flags: int
    expires: float
    id: bytes = b''
    instance: object = None
    pinned: bool = False
    spread: bool = False
    attempts: int | None = None
    client_timeout: float = 0.0
    waiter: object = None
    destination: object = None
    since: float = dataclasses.field(default_factory=time.monotonic)
    sent_at: float = 0.0
    is_unsettled: bool = False
    may_have_run: bool = False
    group: list = ()
    chosen: object = None
    held_up: str = ''

    def frame(self, endpoint, settled=b'', instances=()):
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

    def copy_for(self, instance, group=()):
        """A fanout's copy for one instance."""
        return dataclasses.replace(self, instance=instance, pinned=True,
                                   attempts=None, spread=False, waiter=None,
                                   group=group)

    def copy_for_pool(self, topic):
        """A notification's copy for one pool."""
        return dataclasses.replace(self, topic=topic, attempts=None,
                                   spread=False, waiter=None)

    def tell(self, event, detail=None):
        if self.waiter is not None:
            self.waiter.put((event, detail))
        if event == TAKEN:
            # From here on its sender relies on it, whatever retry said.
            self.attempts = None

    def __str__(self):
        return (f'{wire.KIND_NAMES[self.kind]} {self.id.hex()} '
                f'for {self.topic}')


class Watch:
    """A call of the REQ pool whose instance is asked whether it still has it.

    :ivar is_lost: it will not be answered any more

    Thread: outbox; any for is_lost.
    """

    __slots__ = ('instance', 'id', 'is_lost', '_was_known', '_unknown')

    def __init__(self, instance, message_id):
        self.instance = instance
        self.id = message_id
        self.is_lost = False
        self._was_known = False
        self._unknown = 0

    def heard(self, is_known):
        """What the instance said. That it does not know a call means nothing
        before it knew it, for a long one may still be on its way; nor once,
        when the reply has just left.
        """
        if is_known:
            self._was_known, self._unknown = True, 0
        elif self._was_known:
            self._unknown += 1
            self.is_lost = self._unknown > 1


def expiry_for(endpoint, deadline):
    """How a request says when its sender gives up: (wire flag, expiry).

    The time that it lies unread in a full service's buffers counts only by a
    common clock. Two hosts have none, and get the seconds that are left.

    :param deadline: monotonic seconds
    """
    if endpoint.startswith('ipc://'):
        return wire.DEADLINE, deadline
    return 0, max(0.0, deadline - time.monotonic())


def is_final(reason, instance):
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


class Admission:
    """A sender that waits until there is room in the outbox for its message.

    Either the sender gives up or the outbox admits or refuses it, whoever
    comes first.

    :param on_call: called with the ticket when there may be room; by default
        it is admitted
    :ivar refusal: why it was refused, or None

    Thread: caller for wait() and abandon(); outbox for the rest.
    """

    def __init__(self, on_call=None):
        self._on_call = on_call or Admission.admit
        self._answers = queue.SimpleQueue()
        self._claims = itertools.count()
        self.abandoned = False
        self.refusal = None

    def wait(self, deadline):
        """:returns: False if there was no answer at the deadline, in
        monotonic seconds
        """
        try:
            return self._answers.get(
                timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return not self.abandon()
        except BaseException:
            self.abandon()
            raise

    def abandon(self):
        """:returns: False if it was answered already"""
        self.abandoned = not next(self._claims)
        return self.abandoned

    def call(self):
        self._on_call(self)

    def admit(self):
        """:returns: False if the sender has given up"""
        return self._answer(None)

    def refuse(self, reason):
        self._answer(reason)

    def _answer(self, refusal):
        if next(self._claims):
            return False
        self.refusal = refusal
        self._answers.put(True)
        return True


class Destination:
    """How much is under way to one topic, so that it stays bounded.

    Only one thread counts: an exception that interrupts a sender at any line
    leaves no count behind.

    :ivar pending: messages in custody

    Thread: outbox; any for reading pending.
    """

    def __init__(self, limit):
        self._limit = limit
        self._waiting = collections.deque()
        self.pending = 0

    def is_full(self):
        return self.pending >= self._limit

    def is_idle(self):
        """Whether nothing is under way, and nobody waits for room."""
        return not self.pending and not self._waiting

    def add(self, count):
        self.pending += count

    def finish(self):
        """One message has left custody."""
        self.add(-1)
        if not self.is_full():
            self.call_next()

    def wait(self, admission):
        """Call this sender when there is room, which may be now."""
        # While nothing moves, those who gave up must not pile up.
        while self._waiting and self._waiting[0].abandoned:
            self._waiting.popleft()
        if not self.is_full():
            admission.call()
        elif not admission.abandoned:
            self._waiting.append(admission)

    def call_next(self):
        """Let the next sender look whether there is room."""
        while self._waiting:
            admission = self._waiting.popleft()
            if not admission.abandoned:
                return admission.call()

    def refuse_all(self, reason):
        """Tell all senders that there will be no room."""
        while self._waiting:
            self._waiting.popleft().refuse(reason)
