# SPDX-License-Identifier: Apache-2.0
"""A sign that something has ended."""

import queue
import time


class Finished:
    """Is set once; any number of threads may wait for it.

    A signal handler may wait for it too, though it interrupts a thread that
    does so: it is a queue, and who takes the sign from it puts it back.

    Thread: any.
    """

    def __init__(self) -> None:
        self._signs: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        """Wake those who wait."""
        self._signs.put(None)

    def is_set(self) -> bool:
        return not self._signs.empty()

    def wait(self, deadline: float) -> bool:
        """
        :param deadline: monotonic seconds
        :returns: False when it was not set by then
        """
        try:
            self._signs.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return False
        self._signs.put(None)
        return True
