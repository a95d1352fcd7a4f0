# SPDX-License-Identifier: Apache-2.0
"""Messages that go to the server together."""

import math
import time
from collections.abc import Sequence
from typing import Any


class Batch:
    """Collects messages until there are enough, or for long enough.

    :param size: messages in a full batch
    :param timeout: seconds after the first message; None for no limit
    :ivar due_at: when it is to be taken out though it is not full, in
        monotonic seconds; inf while it is empty

    Thread: poller.
    """

    def __init__(self, size: int, timeout: float | None) -> None:
        self.size = size
        self._timeout = math.inf if timeout is None else timeout
        self._messages: list[Any] = []
        self.due_at = math.inf

    def add(self, message: Any) -> Sequence[Any]:
        """Put a message into the batch.

        :returns: the batch that this message made full, else ()
        """
        if self.size == 1:
            return [message]
        if not self._messages:
            self.due_at = time.monotonic() + self._timeout
        self._messages.append(message)
        return self.take() if len(self._messages) >= self.size else ()

    def take(self) -> list[Any]:
        """Take out what there is, and begin a new batch.

        :returns: list of messages
        """
        messages, self._messages = self._messages, []
        self.due_at = math.inf
        return messages
