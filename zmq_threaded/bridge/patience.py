# SPDX-License-Identifier: Apache-2.0
"""For how long this process waits for the other driver when it stops."""

import time
from collections.abc import Callable

# Seconds: the rabbit driver stops within five if its broker is up.
LIMIT = 12.0
# Seconds for which a driver that has hung counts as one that hangs still.
_MEMORY = 60.0
_POLL = 0.005


def until(condition: Callable[[], bool], deadline: float) -> bool:
    """Wait for a condition in any thread, in a signal handler too, which no
    lock bears.

    :param deadline: monotonic seconds
    :returns: whether it came true in time
    """
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


class Patience:
    """One deadline for all that a driver has to stop and to close, for if
    its broker hangs, all of that hangs: it is not waited for one by one.

    A wait that was long enough ends the deadline, and the next wait has a new
    one.

    Thread: any; a signal handler too, so there is no lock.
    """

    def __init__(self) -> None:
        self._deadline: float | None = None

    def wait(self, condition: Callable[[], bool]) -> bool:
        """Wait for a condition, but not longer than is left of the deadline.

        :returns: whether it came true in time
        """
        deadline = self._of_now(time.monotonic())
        if not until(condition, deadline):
            return False
        if time.monotonic() <= deadline:
            self._deadline = None
        return True

    def _of_now(self, now: float) -> float:
        deadline = self._deadline
        if deadline is None or now > deadline + _MEMORY:
            deadline = self._deadline = now + LIMIT
        return deadline
