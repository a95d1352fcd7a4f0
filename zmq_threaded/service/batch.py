# SPDX-License-Identifier: Apache-2.0
"""Messages that go to the server together."""

import math
import time


class Batch:
    """Collects messages until there are enough, or for long enough.

    :param size: messages in a full batch
    :param timeout: seconds after the first message; None for no limit

    Thread: poller.
    """

    def __init__(self, size, timeout):
        self.size = size
        self._timeout = math.inf if timeout is None else timeout
        self._messages = []
        self._due_at = math.inf

    def add(self, message):
        """:returns: the batch that this message made full, else ()"""
        if not self._messages:
            self._due_at = time.monotonic() + self._timeout
        self._messages.append(message)
        return self.take() if len(self._messages) >= self.size else ()

    def take_due(self):
        """:returns: the batch whose time is over, else ()"""
        return self.take() if self.time_left() <= 0 else ()

    def time_left(self):
        """Seconds until a batch is due; inf while there is none."""
        return self._due_at - time.monotonic()

    def take(self):
        """:returns: what there is, and begins a new batch"""
        messages, self._messages = self._messages, []
        self._due_at = math.inf
        return messages
