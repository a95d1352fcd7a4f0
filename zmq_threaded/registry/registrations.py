# SPDX-License-Identifier: Apache-2.0
"""What this process has registered, and when it is renewed."""

import math
import random
import time

from zmq_threaded.registry import operations as running
from zmq_threaded.registry import record
from zmq_threaded.registry import store as stores

# Seconds. A new registration is looked at soon: a deletion of its group may
# have come in between.
_FIRST_BEAT = 1.0


class Registrations:
    """Registers instances, and renews their records while they are listed.

    :param store: the registry
    :param expire: seconds of life of a record that is not renewed
    :ivar confirmed_at: when the registry last took or renewed the records, in
        monotonic seconds

    Thread: registry; any for reading confirmed_at.
    """

    def __init__(self, store: stores.Store, operations: running.Operations,
                 expire: float) -> None:
        self._store = store
        self._operations = operations
        self._expire = expire
        self.confirmed_at = -math.inf
        self.next_beat = time.monotonic() + self._beat_interval()

    def register(self, instance: record.Instance, keys: list[str],
                 in_place_of: record.Instance | None = None) -> bool:
        """List an instance under the keys of its topics.

        :param in_place_of: one that is taken off the list with it

        :returns: whether the registry took it; if not, it is tried again
        """
        listed = self._operations.run(
            running.WRITING, self._store.register, instance, keys,
            in_place_of, is_told=True)
        if listed:
            self.confirmed_at = time.monotonic()
        self._beat_by(time.monotonic() + _FIRST_BEAT if listed else
                      self._operations.resumes_at(running.WRITING))
        return listed

    def unregister(self, instance: record.Instance) -> bool:
        """Take an instance off the list.

        :returns: whether the registry did; if not, it is tried again
        """
        gone = self._operations.run(running.WRITING, self._store.unregister,
                                    instance, is_told=True)
        if not gone:
            self._beat_by(self._operations.resumes_at(running.WRITING))
        return gone

    def beat_if_due(self) -> None:
        """Renew all records, if it is time to."""
        if time.monotonic() < self.next_beat:
            return
        if (not self._store.has_records()
                or self._operations.run_if_due(running.WRITING,
                                               self._store.beat)):
            self.confirmed_at = time.monotonic()
            self.next_beat = self.confirmed_at + self._beat_interval()
        else:
            self.next_beat = self._operations.resumes_at(running.WRITING)

    def look_after(self) -> None:
        """Have what is seen to be gone put back at once."""
        if (self._store.has_records()
                and self._operations.is_due(running.WRITING)):
            self._operations.run(running.READING, self._beat_at_once_if_lost)

    def _beat_at_once_if_lost(self) -> bool:
        if not self._store.is_intact():
            self._beat_by(time.monotonic())
        return False    # no sign of a registry that answers

    def _beat_by(self, latest: float) -> None:
        self.next_beat = min(self.next_beat, latest)

    def _beat_interval(self) -> float:
        return self._expire / 3 * random.uniform(0.9, 1.0)
