# SPDX-License-Identifier: Apache-2.0
"""How the outbox stays bounded: one topic's messages are counted, and a
sender waits for room.
"""

import collections
import itertools
import queue
import time
from collections.abc import Callable


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
        self._answers: queue.SimpleQueue = queue.SimpleQueue()
        self._claims = itertools.count()
        self.abandoned = False
        self.refusal: str | None = None

    def wait(self, deadline: float) -> bool:
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
