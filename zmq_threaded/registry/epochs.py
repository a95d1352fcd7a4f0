# SPDX-License-Identifier: Apache-2.0
"""Which records were lost with the registry, and which were taken off it.

An engine that comes back without its records has lost them: a service whose
record is missing may run all the same. So the first process that registers in
an empty registry marks it, for the life of a record. The mark has a random
name, the epoch. A record that is put there while the mark is there has the
epoch in it.

Whoever misses a record reads the mark. If the mark has the epoch of the
record, nothing was lost since the record was put there: its process has taken
the record off, or is dead. If the mark has another epoch, or none, as that of
an earlier release, the missing record says nothing.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

from tooz import coordination

from zmq_threaded.registry import record
from zmq_threaded.registry import session as sessions

# A group that is always there, but in an engine that has lost its records.
# Whoever finds it missing is a member of it for a while. No topic has a key
# like this.
MARK = 'zmq_threaded'


@dataclasses.dataclass(frozen=True)
class Loss:
    """The registry has lost records, not long ago.

    :ivar epochs: those that began with the loss, or after it

    Thread: any.
    """

    epochs: frozenset[bytes] = frozenset()

    def concerns(self, instance: record.Instance) -> bool:
        """Whether a missing record of the instance may have been lost."""
        return instance.epoch not in self.epochs


class Mark:
    """The mark of the registry.

    :param expire: seconds for which this process keeps a mark that it made
    :param wait: waits for the result of tooz
    :ivar epoch: that of the mark, when this process last looked; b'' if there
        was none. A record may have one that is over: that says less, but
        nothing wrong.

    Thread: registry, or its engine's thread; one at a time.
    """

    def __init__(self, expire: float, wait: Callable[[Any], Any]) -> None:
        self._expire = expire
        self._wait = wait
        self._until = 0.0
        self.epoch = b''

    def look(self, session: sessions.Session) -> None:
        """Mark a registry that is empty, and learn the epoch. To be called
        before something is registered.
        """
        try:
            self._wait(session.coordinator.create_group(MARK.encode()))
        except coordination.GroupAlreadyExist:
            loss = self.loss(session)
            self.epoch = max(loss.epochs, default=b'') if loss else b''
        else:
            self._join(session)
            self._until = time.monotonic() + self._expire

    def _join(self, session: sessions.Session) -> None:
        """With a new epoch each time: this process may have marked it in an
        earlier life of the registry.
        """
        coordinator, made = session.coordinator, os.urandom(8)
        try:
            self._wait(coordinator.join_group(MARK.encode(),
                                              {record.EPOCH: made}))
        except coordination.MemberAlreadyExist:
            self._wait(coordinator.update_capabilities(
                MARK.encode(), {record.EPOCH: made}))
        self.epoch = made

    def loss(self, session: sessions.Session) -> Loss | None:
        """What the mark says; None if no mark is there any more."""
        try:
            members, expired = session.reader.group(session.coordinator,
                                                    MARK.encode())
        except coordination.GroupNotCreated:
            return Loss()
        marks = members.keys() - expired
        if not marks:
            return None
        return Loss(frozenset(map(_epoch, map(members.get, marks))) - {b''})

    def tend(self, session: sessions.Session, stays: bool) -> None:
        """Take the mark off, if it is time to.

        :param stays: whether this process has anything registered
        """
        if self._until and not (stays and time.monotonic() < self._until):
            self._until = 0.0
            with contextlib.suppress(coordination.MemberNotJoined,
                                     coordination.GroupNotCreated):
                self._wait(session.coordinator.leave_group(MARK.encode()))


def _epoch(stored: Any) -> bytes:
    """Anybody may write anything there."""
    try:
        return record.epoch(record.unpack(stored))
    except record.Malformed:
        return b''
