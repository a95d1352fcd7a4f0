# SPDX-License-Identifier: Apache-2.0
"""Which instances are passed over, for how long, and why."""

import math
import threading
import time

# How long an instance that could not be reached is passed over, doubling. One
# that is back is found by trying; one that is not loses its record.
_FIRST, _LAST = 0.5, 5.0


class Avoided:
    """Pauses of instances, by id or by what is lost with their connection.

    :ivar changes: how often something changed
    :ivar endings: how often pauses may have ended

    Thread: any. The lock is reentrant for the sake of signal handlers.
    """

    def __init__(self):
        self._lock = threading.RLock()
        self._by_key = {}
        self.changes = self.endings = 0

    def __len__(self):
        return len(self._by_key)

    def add(self, key, for_ever, why):
        """Begin a pause, longer than the one before.

        :returns: whether it is not the first one, for this key
        """
        with self._lock:
            until, pause, _ = self._by_key.get(key, (0, 0, ''))
            if until > time.monotonic() and not for_ever:
                return False    # many find out at the same time
            is_again = pause > 0
            pause = min(max(2 * pause, _FIRST), _LAST)
            until = math.inf if for_ever else time.monotonic() + pause
            # Kept when it is over: the next pause is longer.
            self._by_key[key] = (until, pause, why)
            self.changes += 1
            return is_again

    def remove(self, instance):
        """It answers; those that are passed over for ever stay so."""
        with self._lock:
            for key in {instance.id, way(instance)}:
                until, _, _ = self._by_key.get(key, (math.inf, 0, ''))
                if until != math.inf:
                    del self._by_key[key]
                    self._some_ended()

    def holds(self, instance):
        now, found = time.monotonic(), self._by_key
        return (found.get(instance.id, (0,))[0] > now
                or instance.receiver
                and found.get(instance.endpoints, (0,))[0] > now)

    def is_for_ever(self, instance):
        return self._by_key.get(instance.id, (0,))[0] == math.inf

    def why(self, instance):
        """Why it was passed over last; '' if it was not, or answered since."""
        for key in (instance.id, way(instance)):
            if key in self._by_key:
                return self._by_key[key][2] or 'it did not take a message'
        return ''

    def without(self, instances):
        """Those of a tuple that are not passed over, as a tuple."""
        now = time.monotonic()
        with self._lock:
            avoided = {key for key, (until, _, _) in self._by_key.items()
                       if until > now}
        return instances if not avoided else tuple(
            instance for instance in instances
            if instance.id not in avoided and way(instance) not in avoided)

    def tidy(self, listed):
        """Pauses end, and those who are no longer listed are forgotten.

        :param listed: iterable of Instance
        """
        with self._lock:
            keys = {key for instance in listed
                    for key in (instance.id, way(instance))}
            for key in self._by_key.keys() - keys:
                del self._by_key[key]
            self._some_ended()

    def _some_ended(self):
        self.changes += 1
        self.endings += 1


def way(instance):
    """What is lost with the connection to an instance."""
    return instance.endpoints if instance.receiver else instance.id
