# SPDX-License-Identifier: Apache-2.0
"""Publishes the complaints of this process, and reads those of others."""

import random
import time

from zmq_threaded.registry import complaints
from zmq_threaded.registry import operations as running
from zmq_threaded.registry import store as stores

# Seconds between two changes of what this process publishes.
_SAY_EVERY = 2.0


class Hearing:
    """Says in the registry whom this process cannot reach, and hears who
    cannot reach the services of this process.

    :param store: the registry
    :param own: whom this process cannot reach
    :param update: seconds between two looks
    :ivar heard: the complaints about the nodes of our services

    Thread: registry; any for reading heard.
    """

    def __init__(self, store: stores.Store, operations: running.Operations,
                 own: complaints.Complaints, update: float) -> None:
        self._store = store
        self._operations = operations
        self._own = own
        self._update = update
        self._next_saying = self._next_hearing = 0.0
        self.heard: complaints.Heard = {}

    def turn(self) -> None:
        """To be called about once a second."""
        now = time.monotonic()
        if now >= self._next_saying:
            self._next_saying = now + _SAY_EVERY
            self._say()
        if now >= self._next_hearing and self._operations.is_due(
                running.READING):
            self._next_hearing = now + self._update * random.uniform(0.9, 1.0)
            self._operations.run(running.READING, self._hear)

    def _say(self):
        said = self._own.fields()
        if said != self._store.said:
            self._operations.run_if_due(running.WRITING, self._store.say,
                                        said)

    def _hear(self):
        heard: complaints.Heard = {}
        for host in self._store.hosts():
            heard.update(complaints.read(
                self._store.stored(complaints.key_of(host))))
        self.heard = heard
        # Without services nothing was asked.
        return bool(self._store.hosts())
