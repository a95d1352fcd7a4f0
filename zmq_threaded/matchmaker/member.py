# SPDX-License-Identifier: Apache-2.0
"""This process as a member of tooz groups."""

import contextlib
import dataclasses
import functools
import os
import time

from tooz import coordination
from tooz import utils as tooz_utils

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
    :ivar forgets: it may come back without its records
    :ivar creation_lock: held while a group is made, where its deletion could
        come in between
    :ivar repair: called when a group cannot be read, before a second try
    """

    connect: object
    expire: float
    keeps_sessions: bool = False
    release: object = lambda coordinator: None
    forgets: bool = True
    creation_lock: object = contextlib.nullcontext()
    repair: object = None


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
        self._coordinator = None
        self._is_abandoned = False
        self._there = {}
        self._marked_until = 0.0

    def lookup(self, key):
        """:returns: dict of member id to record"""
        with self._session() as coordinator:
            try:
                return self._read(coordinator.get_members_with_capabilities,
                                  key)
            except coordination.GroupNotCreated:
                return {}
            except tooz_utils.SerializationError:
                return self._readable(coordinator, key)

    def lost_its_records(self):
        """Whether the engine came back without them, not long ago."""
        if not self._engine.forgets:
            return False
        with self._session() as coordinator:
            try:
                return bool(self._read(coordinator.get_members, _MARK))
            except coordination.GroupNotCreated:
                return True

    def settle(self, wanted, verify=False):
        """Make the engine hold these records and no others of ours.

        :param wanted: dict of key to record
        :param verify: look whether it still has what it was given: no engine
            brings back by itself what it has lost
        """
        if not wanted and not self._there:
            return
        with self._session() as coordinator:
            if not self._engine.keeps_sessions:
                # First: a life that is over takes no new records.
                coordinator.heartbeat()
            for key in self._there.keys() - wanted.keys():
                self._leave(key)
            for key, record in wanted.items():
                if verify and key in self._there:
                    self._there[key] = self._stored(key)
                if self._there.get(key) != record:
                    self._put(key, record)
            self._tend_mark(bool(wanted))

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
        try:
            self._coordinator.start()
        except Exception:
            if not self._engine.keeps_sessions:
                self._coordinator = None    # it would not even stop
            raise

    def _end(self):
        coordinator, self._coordinator = self._coordinator, None
        self._there = {}
        if coordinator is not None:
            # Not tooz's stop(), which first waits, without any limit, for
            # leaving the groups.
            with contextlib.suppress(Exception):
                coordinator._stop()
                self._engine.release(coordinator)

    def _put(self, key, record):
        """Join a group, making it if need be; or change our record in it."""
        group = key.encode()
        if key not in self._there or self._there[key] is None:
            self._look_for_mark()
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
        with self._engine.creation_lock:
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
            return self._read(functools.partial(
                self._coordinator.get_member_capabilities,
                member_id=self._id), key)
        except (coordination.MemberNotJoined, coordination.GroupNotCreated):
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

    def _readable(self, coordinator, key):
        """One by one, for one record that cannot be read hides all."""
        found = {}
        for member in self._read(coordinator.get_members, key):
            with contextlib.suppress(tooz_utils.SerializationError,
                                     coordination.MemberNotJoined):
                found[member] = self._wait(
                    coordinator.get_member_capabilities(key.encode(), member))
        return found

    def _read(self, operation, key):
        try:
            return self._wait(operation(key.encode()))
        except (coordination.GroupNotCreated, coordination.MemberNotJoined):
            raise
        except Exception:
            if self._engine.repair is None:
                raise
            self._engine.repair()
            return self._wait(operation(key.encode()))

    def _wait(self, result):
        if self._is_abandoned:
            raise _Abandoned()
        return result.get(timeout=_OPERATION_TIMEOUT)
