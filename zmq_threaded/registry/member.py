# SPDX-License-Identifier: Apache-2.0
"""This process as a member of tooz groups."""

import contextlib
import dataclasses
import os
import time

from tooz import coordination

from zmq_threaded import logs
from zmq_threaded.registry import reading
from zmq_threaded.registry import record

LOG = logs.get(__name__)

# Somebody may delete an empty group between our creating and joining it.
_JOIN_TRIES = 5
# Seconds; what the engine's client knows of time-outs comes on top.
_OPERATION_TIMEOUT = 5.0
# Always there, but in an engine that has lost its records; who finds it
# missing is a member of it for a while. No topic has a key like this.
_MARK = 'zmq_threaded'


@dataclasses.dataclass(frozen=True)
class Engine:
    """How an engine differs from the others.

    :ivar connect: makes a tooz coordinator for a member id
    :ivar expire: seconds after which a record that is not renewed is gone
    :ivar keeps_sessions: its client renews by itself (its heartbeat() only
        blocks), and is of no use any more after an error: the session may be
        one that the server never takes back
    :ivar release: gives back what a stopped coordinator leaves open
    :ivar forgets: it may come back without its records, and has a mark by
        which that is seen; without, its coordinator sees it
    :ivar reader: makes the Reader of a session
    :ivar place: what it is and where, for the operator
    """

    connect: object
    expire: float
    keeps_sessions: bool = False
    release: object = lambda coordinator: None
    forgets: bool = True
    reader: object = lambda: reading.FILES
    place: str = ''


class _Abandoned(Exception):
    pass


class Member:
    """This process in the registry: a coordinator, made when it is needed,
    with a fresh member id each, and what it has registered.

    Thread: one at a time.
    """

    def __init__(self, engine):
        self._engine = engine
        self._id = None
        self._coordinator = self._reader = None
        self._is_abandoned = False
        self._there = {}
        self._lost = set()
        self._marked_until = 0.0

    def lookup(self, key):
        """:returns: dict of member to record, and the members among them who
            have expired
        """
        with self._session() as coordinator:
            try:
                found = self._reader.group(coordinator, key.encode())
            except coordination.GroupNotCreated:
                found = {}, frozenset()
            if (self._there.get(key) is not None
                    and self._id not in found[0]):
                self._lost.add(key)
            return found

    def lacks_records(self):
        """Whether a look-up found that the engine has lost records of ours,
        which settle() puts back. In any thread.
        """
        return bool(self._lost)

    def is_intact(self):
        """Whether nothing of ours was removed; of an engine that sees it."""
        coordinator = self._coordinator
        return coordinator is None or coordinator.is_intact()

    def lost_its_records(self, key=None):
        """Whether the engine came back without its records, not long ago; or
        somebody removed those of this key.
        """
        with self._session() as coordinator:
            if not self._engine.forgets:
                return key is not None and coordinator.was_emptied(
                    key.encode())
            try:
                return bool(self._wait(coordinator.get_members(
                    _MARK.encode())))
            except coordination.GroupNotCreated:
                return True

    def settle(self, wanted, verify=False):
        """Make the engine hold these records and no others of ours.

        :param wanted: dict of key to record
        :param verify: look whether it still has what it was given: no engine
            brings back by itself what it has lost
        :returns: whether there was anything to do
        """
        if not wanted and not self._there:
            return False
        with self._session() as coordinator:
            if not self._engine.keeps_sessions:
                # First: a life that is over takes no new records.
                coordinator.heartbeat()
            for key in self._there.keys() - wanted.keys():
                self._leave(key)
            lost = sum(self._settle_one(key, record, verify)
                       for key, record in wanted.items())
            if lost:
                LOG.warning('The registry (%s) had lost %d of the %d records '
                            'of this process; they were put back',
                            self._engine.place, lost, len(wanted))
            self._tend_mark(bool(wanted))
            self._reader.tend(coordinator)
        return True

    def _settle_one(self, key, record, verify):
        """:returns: whether it had been lost"""
        if key in self._there and (verify or key in self._lost):
            known, self._there[key] = self._there[key], self._stored(key)
            is_lost = known is not None and self._there[key] is None
        else:
            is_lost = False
        self._lost.discard(key)
        if self._there.get(key) == record:
            return False
        self._put(key, record)
        return is_lost

    def has_records(self):
        """In any thread."""
        return bool(self._there)

    def close(self):
        """Take everything off the list and end the connection."""
        with contextlib.suppress(Exception):
            self.settle({})
        self._end()

    def abandon(self):
        """Whoever is stuck in here is left to it: end what would go on by
        itself, which may free them, and do nothing more.
        """
        self._is_abandoned = True
        if self._engine.keeps_sessions:
            self._end()

    @contextlib.contextmanager
    def _session(self):
        try:
            if self._coordinator is None:
                self._start()
            if self._is_abandoned:
                raise _Abandoned()
            yield self._coordinator
        except Exception:
            if self._engine.keeps_sessions:
                self._end()
            raise

    def _start(self):
        self._id = os.urandom(8).hex().encode()
        self._coordinator = self._engine.connect(self._id)
        self._reader = self._engine.reader()
        try:
            self._coordinator.start()
        except Exception:
            if not self._engine.keeps_sessions:
                self._coordinator = None    # it would not even stop
            raise

    def _end(self):
        coordinator, self._coordinator = self._coordinator, None
        self._there, self._lost = {}, set()
        if coordinator is not None:
            # Not tooz's stop(), which first waits, without any limit, for
            # leaving the groups.
            with contextlib.suppress(Exception):
                coordinator._stop()
                self._engine.release(coordinator)

    def _put(self, key, record):
        """Join a group, making it if need be; or change our record in it."""
        group = key.encode()
        if self._there.get(key) is None:
            self._look_for_mark()
            self._reader.watch(self._coordinator, group)
        self._there[key] = None     # unknown, until it is done
        for _ in range(_JOIN_TRIES):
            try:
                self._join(group, record)
            except coordination.GroupNotCreated:
                self._create(group)
            else:
                self._there[key] = record
                return
        raise coordination.GroupNotCreated(group)

    def _join(self, group, record):
        coordinator = self._coordinator
        try:
            self._wait(coordinator.join_group(group, record))
        except coordination.MemberAlreadyExist:
            # Never by leaving it first: others would look in between.
            self._wait(coordinator.update_capabilities(group, record))

    def _create(self, group):
        """:returns: whether it was not there"""
        try:
            self._wait(self._coordinator.create_group(group))
        except coordination.GroupAlreadyExist:
            return False
        return True

    def _leave(self, key):
        group, coordinator = key.encode(), self._coordinator
        with contextlib.suppress(coordination.MemberNotJoined,
                                 coordination.GroupNotCreated):
            self._wait(coordinator.leave_group(group))
        if key != _MARK:
            with contextlib.suppress(coordination.GroupNotEmpty,
                                     coordination.GroupNotCreated):
                self._wait(coordinator.delete_group(group))
        self._there.pop(key, None)

    def _stored(self, key):
        """Our record as the engine has it, or None."""
        # etcd may have deleted the group while we were joining it; what is
        # then in it is found by nobody, but by ourselves.
        self._create(key.encode())
        try:
            raw = self._reader.one(self._coordinator, key.encode(), self._id)
            return record.unpack(raw) if isinstance(raw, bytes) else raw
        except (coordination.MemberNotJoined, coordination.GroupNotCreated,
                record.Malformed):
            return None

    def _look_for_mark(self):
        if self._engine.forgets and self._create(_MARK.encode()):
            with contextlib.suppress(coordination.MemberAlreadyExist):
                self._wait(self._coordinator.join_group(_MARK.encode(), {}))
            self._marked_until = time.monotonic() + self._engine.expire

    def _tend_mark(self, stays):
        if self._marked_until and not (
                stays and time.monotonic() < self._marked_until):
            self._marked_until = 0.0
            self._leave(_MARK)

    def _wait(self, result):
        if self._is_abandoned:
            raise _Abandoned()
        return result.get(timeout=_OPERATION_TIMEOUT)
