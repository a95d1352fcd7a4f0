# SPDX-License-Identifier: Apache-2.0
"""Which instances are listed, take calls, and answer none of them."""

import threading
import time
from collections.abc import Callable
from collections.abc import Set

from zmq_threaded.registry import record

# Calls that were not answered, and seconds from the first to the last of them,
# after which an instance is said to answer none. A single call may take longer
# than its caller waits.
_CALLS, _SECONDS = 3, 5.0
# Seconds after which an instance is forgotten that nobody calls any more; and
# how many are kept.
_KEPT_FOR, _MOST = 120.0, 100


class Unanswered:
    """Counts calls that timed out, of each instance since a worker of it
    last did something.

    :param listed: returns the ids of the instances that are listed

    Thread: any. The lock is reentrant for the sake of signal handlers.
    """

    def __init__(self, listed: Callable[[], Set[bytes]]) -> None:
        self._listed = listed
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

    def worked(self, instance: record.Instance) -> None:
        """A worker of the instance has replied, or taken a message. That its
        poller answers is no such sign.
        """
        if self._found:
            with self._lock:
                self._found.pop(instance.id, None)

    def all(self) -> list[tuple[record.Instance, int, float]]:
        """Those who are listed, and whose workers have done nothing since
        several calls timed out; for the registry thread.

        :returns: list of (instance, calls, since when in monotonic seconds)
        """
        if not self._found:
            return []
        now, listed = time.monotonic(), self._listed()
        with self._lock:
            for instance_id, (_, _, _, last) in list(self._found.items()):
                if instance_id not in listed or now - last > _KEPT_FOR:
                    del self._found[instance_id]
            return [(instance, count, first) for instance, count, first, last
                    in self._found.values()
                    if count >= _CALLS and last - first >= _SECONDS]
