# SPDX-License-Identifier: Apache-2.0
"""An end that others wait for."""

import queue
import time


class End:
    """Comes once; any number of threads may wait for it.

    A signal handler may wait for it too, and interrupt whoever does so: it is
    a queue from which each one puts back what it takes.

    Thread: any.
    """

    def __init__(self):
        self._signs = queue.SimpleQueue()

    def came(self):
        self._signs.put(None)

    def has_come(self):
        return not self._signs.empty()

    def wait(self, deadline):
        """
        :param deadline: monotonic seconds
        :returns: False when it has not come by then
        """
        try:
            self._signs.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return False
        self._signs.put(None)
        return True
