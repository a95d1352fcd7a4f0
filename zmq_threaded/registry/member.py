# SPDX-License-Identifier: Apache-2.0
"""This process as a member of tooz groups."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from tooz import coordination

from zmq_threaded import logs
from zmq_threaded.registry import epochs
from zmq_threaded.registry import record
from zmq_threaded.registry import session as sessions
from zmq_threaded.registry import shared_facts

LOG = logs.get(__name__)

# Somebody may delete an empty group between our creating and joining it.
_JOIN_TRIES = 5
# Seconds. The time-outs that the engine's client has come on top.
_OPERATION_TIMEOUT = 5.0
# How often facts are told between two looks for members who are dead.
_WATCH_EVERY = 20


class _Abandoned(Exception):
    """The operation was given up for lost, and so is all that follows it.

    Thread: any.
    """


class Member:
    """This process in the registry: a session, made when it is needed, and
    what it has registered.

    Thread: registry, or its engine's thread; one at a time.
    """

    def __init__(self, engine: sessions.Engine) -> None:
        self._engine = engine
        self._session: sessions.Session | None = None
        self._is_abandoned = False
        # What the engine has of ours, by key; None where that is unknown.
        self._there: dict[str, Any] = {}
        self._lost: set[str] = set()
        self._changed: set[str] = set()
        self._mark = epochs.Mark(engine.expire, self._wait)
        self._has_looked = False
        self._facts_told = 0

    def lookup(self, key: str) -> tuple[dict[Any, Any], frozenset[Any]]:
        """Read a group.

        :returns: dict of member to record, and the members among them who
            have expired
        """
        with self._use_session() as session:
            try:
                found = session.reader.group(session.coordinator,
                                             key.encode())
            except coordination.GroupNotCreated:
                found = {}, frozenset()
            if (self._there.get(key) is not None
                    and session.member_id not in found[0]):
                self._lost.add(key)
            return found

    def watch(self, key: str) -> bool:
        """Tell of changes of a group from now on, if the engine does.

        :returns: whether changes since the last look-up may have been missed
        """
        session = self._session
        return session is not None and self._engine.notices.watch(
            session.coordinator, key)

    def lacks_records(self) -> bool:
        """Whether a look-up found that the engine has lost records of ours,
        which settle() puts back. In any thread.
        """
        return bool(self._lost)

    def is_intact(self) -> bool:
        """Whether nothing of ours was removed; of an engine that sees it."""
        session = self._session
        return session is None or session.coordinator.is_intact()

    def loss(self, key: str) -> epochs.Loss | None:
        """Which records the engine has lost, not long ago: all of them, or
        those of this key, which somebody removed.
        """
        with self._use_session() as session:
            if self._engine.forgets:
                return self._mark.loss(session)
            lost: epochs.Loss | None = session.coordinator.loss(key.encode())
            return lost

    def settle(self, wanted: dict[str, Any], verify: bool = False) -> bool:
        """Make the engine hold these records and no others of ours.

        :param wanted: dict of key to record
        :param verify: look whether it still has what it was given: no engine
            brings back by itself what it has lost
        :returns: whether there was anything to do
        """
        if not wanted and not self._there:
            return False
        with self._use_session() as session:
            if not self._engine.keeps_sessions:
                # First: a life that is over takes no new records.
                session.coordinator.heartbeat()
            self._has_looked = False
            for key in self._there.keys() - wanted.keys():
                self._leave(session, key)
            lost = sum(self._settle_one(session, key, one, verify)
                       for key, one in wanted.items())
            if lost:
                LOG.warning('The registry (%s) had lost %d of the %d records '
                            'of this process; they were put back',
                            self._engine.place, lost, len(wanted))
            self._announce(session)
            self._mark.tend(session, bool(wanted))
            session.reader.tend(session.coordinator)
        return True

    def _announce(self, session: sessions.Session) -> None:
        changed, self._changed = self._changed, set()
        if changed:
            self._engine.notices.announce(session.coordinator, changed)

    def _settle_one(self, session: sessions.Session, key: str, wanted: Any,
                    verify: bool) -> bool:
        """:returns: whether it had been lost"""
        if key in self._there and (verify or key in self._lost):
            known = self._there[key]
            self._there[key] = self._stored(session, key)
            is_lost = known is not None and self._there[key] is None
        else:
            is_lost = False
        self._lost.discard(key)
        if self._there.get(key) == wanted:
            return False
        self._put(session, key, wanted)
        return is_lost

    def tell(self, facts: bytes) -> float | None:
        """Tell the facts of this process, in place of the last.

        :returns: the time by the clock of the server, None if it tells none
        """
        access = self._engine.facts
        if access is None:
            return None
        with self._use_session() as session:
            # Who has records beats for them.
            if not self._engine.keeps_sessions and not self._there:
                session.coordinator.heartbeat()
            if not self._facts_told % _WATCH_EVERY:
                session.reader.watch(session.coordinator, shared_facts.GROUP)
            self._facts_told += 1
            session.reader.tend(session.coordinator)
            return access.write(session.coordinator, session.member_id, facts,
                                self._engine.expire)

    def read_all(self) -> shared_facts.Everything:
        """All that the engine holds."""
        with self._use_session() as session:
            if self._engine.facts is None:
                return shared_facts.Everything(
                    records=session.coordinator.all_records())
            return self._engine.facts.read(session.coordinator)

    def has_records(self) -> bool:
        """Whether the engine may have records of ours. In any thread."""
        return bool(self._there)

    def close(self) -> None:
        """Take everything off the list and end the connection."""
        with contextlib.suppress(Exception):
            self.settle({})
        with contextlib.suppress(Exception):
            self._take_back_facts()
        self._end()

    def _take_back_facts(self) -> None:
        session, access = self._session, self._engine.facts
        if session is not None and access is not None and self._facts_told:
            access.remove(session.coordinator, session.member_id)

    def abandon(self) -> None:
        """Leave whoever is stuck in here to it: end what would go on by
        itself, which may free them, and do nothing more.
        """
        self._is_abandoned = True
        if self._engine.keeps_sessions:
            self._end()

    @contextlib.contextmanager
    def _use_session(self) -> Iterator[sessions.Session]:
        try:
            session = self._session or self._begin()
            if self._is_abandoned:
                raise _Abandoned()
            yield session
        except Exception:
            if self._engine.keeps_sessions:
                self._end()
            raise

    def _begin(self) -> sessions.Session:
        member_id = os.urandom(8).hex().encode()
        session = self._session = sessions.Session(
            member_id, self._engine.connect(member_id), self._engine.reader())
        try:
            session.coordinator.start()
        except Exception:
            if not self._engine.keeps_sessions:
                self._session = None    # it would not even stop
            raise
        return session

    def _end(self) -> None:
        session, self._session = self._session, None
        self._there, self._lost = {}, set()
        if session is not None:
            # Not tooz's stop(), which first waits, without any limit, for
            # leaving the groups.
            with contextlib.suppress(Exception):
                session.coordinator._stop()
                self._engine.release(session.coordinator)

    def _put(self, session: sessions.Session, key: str, wanted: Any) -> None:
        """Join a group, making it if need be; or change our record in it."""
        group = key.encode()
        if self._there.get(key) is None:
            self._look_for_mark(session)
            session.reader.watch(session.coordinator, group)
        self._there[key] = None     # unknown, until it is done
        stored = ({**wanted, record.EPOCH: self._mark.epoch}
                  if self._mark.epoch else wanted)
        for _ in range(_JOIN_TRIES):
            try:
                self._join(session, group, stored)
            except coordination.GroupNotCreated:
                self._create(session, group)
            else:
                self._there[key] = wanted
                self._changed.add(key)
                return
        raise coordination.GroupNotCreated(group)

    def _join(self, session: sessions.Session, group: bytes,
              stored: Any) -> None:
        coordinator = session.coordinator
        try:
            self._wait(coordinator.join_group(group, stored))
        except coordination.MemberAlreadyExist:
            # Never by leaving it first: others would look in between.
            self._wait(coordinator.update_capabilities(group, stored))

    def _create(self, session: sessions.Session, group: bytes) -> None:
        with contextlib.suppress(coordination.GroupAlreadyExist):
            self._wait(session.coordinator.create_group(group))

    def _leave(self, session: sessions.Session, key: str) -> None:
        group, coordinator = key.encode(), session.coordinator
        with contextlib.suppress(coordination.MemberNotJoined,
                                 coordination.GroupNotCreated):
            self._wait(coordinator.leave_group(group))
        self._changed.add(key)
        with contextlib.suppress(coordination.GroupNotEmpty,
                                 coordination.GroupNotCreated):
            self._wait(coordinator.delete_group(group))
        self._there.pop(key, None)

    def _stored(self, session: sessions.Session, key: str) -> Any:
        """Our record as the engine has it, but for its epoch; or None."""
        try:
            raw = session.reader.own(session.coordinator, key.encode(),
                                     session.member_id)
            stored = record.unpack(raw) if isinstance(raw, bytes) else raw
            if isinstance(stored, dict):
                stored.pop(record.EPOCH, None)
            return stored
        except (coordination.MemberNotJoined, coordination.GroupNotCreated,
                record.Malformed):
            return None

    def _look_for_mark(self, session: sessions.Session) -> None:
        """Once for all that is settled: an epoch that was over when a record
        was put there does no harm.
        """
        if self._engine.forgets and not self._has_looked:
            self._mark.look(session)
            self._has_looked = True

    def _wait(self, result: Any) -> Any:
        if self._is_abandoned:
            raise _Abandoned()
        return result.get(timeout=_OPERATION_TIMEOUT)
