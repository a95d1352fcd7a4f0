# SPDX-License-Identifier: Apache-2.0
"""How the outbox stays bounded: one topic's messages are counted, and a
sender waits for room.
"""

import collections
import itertools
import queue
from collections.abc import Callable

from zmq_threaded import mailbox
from zmq_threaded import topic as topics


class Admission:
    """A sender that waits until there is room in the outbox for its message.

    Either the sender gives up or the outbox admits or refuses it, whoever
    comes first.

    :param on_call: called with the admission when there may be room; by
        default the message is admitted
    :ivar abandoned: whether the sender has given up
    :ivar refusal: why the message was refused, or None

    Thread: caller for wait() and abandon(); outbox for the rest.
    """

    def __init__(self, on_call: Callable | None = None):
        self._on_call = on_call or Admission.admit
        self._answers = mailbox.Answers()
        self._claims = itertools.count()
        self.abandoned = False
        self.refusal: str | None = None

    def wait(self, deadline: float) -> bool:
        """:returns: False if there was no answer at the deadline, in
        monotonic seconds
        """
        try:
            return self._answers.get(deadline)
        except queue.Empty:
            return not self.abandon()
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> bool:
        """The sender gives up.

        :returns: False if the outbox had answered already
        """
        self.abandoned = not next(self._claims)
        return self.abandoned

    def call(self) -> None:
        """There may be room."""
        self._on_call(self)

    def admit(self) -> bool:
        """Tell the sender that there is room.

        :returns: False if the sender has given up
        """
        return self._answer(None)

    def refuse(self, reason: str) -> None:
        """Tell the sender why there will be no room."""
        self._answer(reason)

    def _answer(self, refusal):
        if next(self._claims):
            return False
        self.refusal = refusal
        self._answers.put(True)
        return True


class Destination:
    """How many messages of one topic are in custody, so that their number
    stays bounded.

    Only one thread counts: an exception that interrupts a sender at any line
    leaves no count behind.

    :ivar pending: messages in custody

    Thread: outbox; any for reading pending.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._waiting: collections.deque[Admission] = collections.deque()
        self.pending = 0

    def is_full(self) -> bool:
        return self.pending >= self._limit

    def is_idle(self) -> bool:
        """Whether nothing is under way, and nobody waits for room."""
        return not self.pending and not self._waiting

    def add(self, count: int) -> None:
        self.pending += count

    def finish(self) -> None:
        """One message has left custody."""
        self.add(-1)
        if not self.is_full():
            self.call_next()

    def wait(self, admission: Admission) -> None:
        """Call this sender when there is room, which may be now."""
        # While nothing moves, those who gave up must not pile up.
        while self._waiting and self._waiting[0].abandoned:
            self._waiting.popleft()
        if not self.is_full():
            admission.call()
        elif not admission.abandoned:
            self._waiting.append(admission)

    def call_next(self) -> None:
        """Let the next sender look whether there is room."""
        while self._waiting:
            admission = self._waiting.popleft()
            if not admission.abandoned:
                admission.call()
                return

    def refuse_all(self, reason: str) -> None:
        """Tell all senders that there will be no room."""
        while self._waiting:
            self._waiting.popleft().refuse(reason)


class Destinations:
    """The destinations of all topics, made when they are needed.

    Thread: outbox; any for len(), pending() and pending_for().
    """

    def __init__(self) -> None:
        self._by_key: dict[str, Destination] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def of(self, topic: topics.Topic, limit: int) -> Destination:
        """The destination of a topic, a new one if there is none.

        :param limit: of a new one
        """
        destination = self._by_key.get(topic.key)
        if destination is None:
            destination = self._by_key[topic.key] = Destination(limit)
        return destination

    def pending(self) -> int:
        """How many messages are in custody."""
        return sum(destination.pending for destination
                   in list(self._by_key.values()))

    def pending_for(self, topic: topics.Topic) -> int:
        """How many messages of a topic are in custody."""
        destination = self._by_key.get(topic.key)
        return destination.pending if destination else 0

    def forget_idle(self) -> None:
        """Drop the destinations for which nothing is under way."""
        for key, destination in list(self._by_key.items()):
            if destination.is_idle():
                del self._by_key[key]

    def refuse_all(self, reason: str) -> None:
        """Tell all senders that there will be no room."""
        for destination in self._by_key.values():
            destination.refuse_all(reason)


# Why a message was not taken, for its sender

_IN_TIME = 'no room in the outbox within rpc_cast_timeout'


def may_not_wait(topic: topics.Topic, limit: int) -> str:
    """A thread of the driver itself is the sender."""
    return (f'no room in the outbox: {limit} messages wait for {topic}, and '
            'this thread of the driver must not wait for them')


def outbox_is_behind(count: int) -> str:
    """The thread of the outbox has too much to do."""
    return (f'{_IN_TIME}: it is behind itself, {count} messages and '
            'questions wait for its thread')


def services_are_slow(topic: topics.Topic, count: int, behind: str) -> str:
    """There is somebody for the messages, but not quickly enough.

    :param behind: which services, as text, or ''
    """
    return (f'{_IN_TIME}: {count} messages wait for {topic}, its services '
            f'are too slow{behind and ": "}{behind} (rpc_zmq_outbox_limit)')
