# SPDX-License-Identifier: Apache-2.0
"""Which instances are passed over, for how long, and why."""

import math
import threading
import time
from collections.abc import Iterable

from zmq_threaded.registry import closings
from zmq_threaded.registry import record

# What is passed over: the id of an instance, or the endpoints and the
# public key of a receiver.
Key = bytes | tuple[tuple[str, ...], bytes]
# Seconds for which an instance that could not be reached is passed over; they
# double. An instance that is back is found by trying; one that is not back
# loses its record.
_FIRST, _LAST = 0.5, 5.0
_NEVER = (0.0, 0.0, '')


class Avoided:
    """The instances that are passed over, by their ids or by what is lost
    with their connections.

    :ivar closings: the receivers that have said that they are closing
    :ivar changes: how often something changed
    :ivar endings: how often instances may have come back into use

    Thread: any. The lock is reentrant for the sake of signal handlers.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # Until when, in monotonic seconds; for how many seconds; and why.
        self._by_key: dict[Key, tuple[float, float, str]] = {}
        self.closings = closings.Closings()
        self.changes = self.endings = 0

    def __len__(self) -> int:
        return len(self._by_key) + len(self.closings)

    def add(self, key: Key, for_ever: bool, why: str) -> bool:
        """Pass over what has this key, for longer than the last time.

        :returns: whether this is not the first time
        """
        with self._lock:
            until, seconds, _ = self._by_key.get(key, (0, 0, ''))
            if until > time.monotonic() and not for_ever:
                return False    # many find out at the same time
            is_again = seconds > 0
            seconds = min(max(2 * seconds, _FIRST), _LAST)
            until = math.inf if for_ever else time.monotonic() + seconds
            # Kept when it is over: the next time is longer.
            self._by_key[key] = (until, seconds, why)
            self.changes += 1
            return is_again

    def closes(self, instance: record.Instance, seconds: float) -> None:
        """Pass over all behind a receiver until it is closed."""
        self.closings.heard(way(instance), seconds)
        self.changes += 1

    def remove(self, instance: record.Instance) -> None:
        """The instance answers, and is passed over no more; one that is
        passed over for ever stays so.
        """
        with self._lock:
            for key in (instance.id, way(instance)):
                until, _, _ = self._by_key.get(key, (math.inf, 0, ''))
                if until != math.inf:
                    del self._by_key[key]
                    self._some_ended()

    def holds(self, instance: record.Instance) -> bool:
        """Whether the instance is passed over."""
        now, found = time.monotonic(), self._by_key
        if self.closings and self.closings.holds(way(instance)):
            return True
        return (found.get(instance.id, _NEVER)[0] > now
                or instance.receiver
                and found.get(way(instance), _NEVER)[0] > now)

    def is_for_ever(self, instance: record.Instance) -> bool:
        """Whether the instance is known to be gone."""
        return self._by_key.get(instance.id, _NEVER)[0] == math.inf

    def why(self, instance: record.Instance) -> str:
        """Why the instance was passed over last; '' if it never was, or has
        answered since.
        """
        if self.closings.holds(way(instance)):
            return 'its receiver is closing'
        for key in (instance.id, way(instance)):
            if key in self._by_key:
                return self._by_key[key][2] or 'it did not take a message'
        return ''

    def without(self, instances: tuple[record.Instance, ...]
                ) -> tuple[record.Instance, ...]:
        """Those of a tuple that are not passed over, as a tuple."""
        now = time.monotonic()
        with self._lock:
            avoided = {key for key, (until, _, _) in self._by_key.items()
                       if until > now} | self.closings.all()
        return instances if not avoided else tuple(
            instance for instance in instances
            if instance.id not in avoided and way(instance) not in avoided)

    def tidy(self, listed: Iterable[record.Instance]) -> None:
        """Let what was passed over for long enough be tried again, and forget
        the instances that are no longer listed.
        """
        self.closings.tidy()
        with self._lock:
            keys: set[Key] = {key for instance in listed
                    for key in (instance.id, way(instance))}
            for key in self._by_key.keys() - keys:
                del self._by_key[key]
            self._some_ended()

    def _some_ended(self) -> None:
        self.changes += 1
        self.endings += 1


def way(instance: record.Instance) -> Key:
    """What is lost with the connection to an instance."""
    return ((instance.endpoints, instance.key) if instance.receiver
            else instance.id)
