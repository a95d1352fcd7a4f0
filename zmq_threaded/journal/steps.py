# SPDX-License-Identifier: Apache-2.0
"""What the journal thread is asked to write, and whom it tells."""

from collections.abc import Callable
from typing import Any

from zmq_threaded import mailbox
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.journal import file as files

Delivery = deliveries.Delivery


class Keep:
    """A message is accepted when this is written.

    :ivar delivery: gets its Kept when it is written

    Thread: caller for wait(); journal for the rest.
    """

    __slots__ = ('delivery', '_answers')

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self._answers = mailbox.Answers()

    def wait(self, deadline: float) -> str:
        """:param deadline: monotonic seconds
        :raises: queue.Empty at the deadline
        :returns: why the message was not written, '' if it was
        """
        return self._answers.get(deadline)

    def answer(self, why: str) -> None:
        self._answers.put(why)


class Parts:
    """Where some messages go next, which share their journal.

    :ivar done: called in the outbox thread when it is written, or could not
        be

    Thread: outbox until it is put, then journal.
    """

    __slots__ = ('file', 'parts', 'done')

    def __init__(self, file: files.JournalFile, parts: list,
                 done: Callable[[], Any]) -> None:
        self.file = file
        self.parts = parts
        self.done = done


class Ended:
    """A message has ended, or a copy of it has.

    :ivar is_last: whether nothing of the message is left

    Thread: outbox until it is put, then journal.
    """

    __slots__ = ('delivery', 'is_last')

    def __init__(self, delivery: Delivery, is_last: bool) -> None:
        self.delivery = delivery
        self.is_last = is_last


class Undo:
    """The sender of a message was not told that it was accepted.

    Thread: caller until it is put, then journal.
    """

    __slots__ = ('delivery',)

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery


class Seen:
    """A pool has listeners.

    :ivar at: seconds of the clock on the wall

    Thread: outbox until it is put, then journal.
    """

    __slots__ = ('topic', 'pool', 'at')

    def __init__(self, topic: Any, pool: str, at: float) -> None:
        self.topic = topic
        self.pool = pool
        self.at = at
