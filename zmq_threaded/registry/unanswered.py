# SPDX-License-Identifier: Apache-2.0
"""Which instances are listed, take calls, and answer none of them."""

import threading
import time
from collections.abc import Mapping

from zmq_threaded.registry import record

# Calls that were not answered, and seconds from the first to the last of them,
# after which an instance is said to answer none. A single call may take longer
# than its caller waits.
_CALLS, _SECONDS = 3, 5.0
# Seconds after which an instance is forgotten that nobody calls any more; and
# how many are kept.
_KEPT_FOR, _MOST = 120.0, 100


class Unanswered:
    """Counts calls that timed out, of each instance since its last answer.

    :param reached: when an instance answered last, by its id; it changes

    Thread: any. The lock is reentrant for the sake of signal handlers.
    """

    def __init__(self, reached: Mapping[bytes, float]) -> None:
        self._reached = reached
        self._lock = threading.RLock()
        # Of each: the instance, how many, and when the first and the last.
        self._found: dict[bytes, tuple[record.Instance, int, float,
                                       float]] = {}

    def timed_out(self, instance: record.Instance) -> None:
        """A call to an instance was not answered in time."""
        now = time.monotonic()
        with self._lock:
            known = self._found.get(instance.id)
            if known is None and len(self._found) >= _MOST:
                return
            _, count, first, _ = known or (instance, 0, now, now)
            self._found[instance.id] = instance, count + 1, first, now

    def all(self) -> list[tuple[record.Instance, int, float]]:
        """Those who have answered nothing since several calls timed out.

        :returns: list of (instance, calls, since when in monotonic seconds)
        """
        if not self._found:
            return []
        now = time.monotonic()
        with self._lock:
            for instance_id, (_, _, first, last) in list(self._found.items()):
                if (self._reached.get(instance_id, 0.0) > first
                        or now - last > _KEPT_FOR):
                    del self._found[instance_id]
            return [(instance, count, first) for instance, count, first, last
                    in self._found.values()
                    if count >= _CALLS and last - first >= _SECONDS]
