# SPDX-License-Identifier: Apache-2.0
"""A sign that something has ended."""

import queue

from zmq_threaded import mailbox


class Finished:
    """Is set once; any number of threads may wait for it.

    A signal handler may wait for it too, though it interrupts a thread that
    does so: who takes the sign puts it back.

    Thread: any.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._signs = mailbox.Answers()

    def set(self) -> None:
        """Wake those who wait."""
        self._is_set = True
        self._signs.put(None)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, deadline: float) -> bool:
        """
        :param deadline: monotonic seconds
        :returns: False when it was not set by then
        """
        if not self._is_set:
            try:
                self._signs.get(deadline)
            except queue.Empty:
                return self._is_set
            self._signs.put(None)
        return True
