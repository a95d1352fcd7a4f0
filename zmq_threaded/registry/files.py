# SPDX-License-Identifier: Apache-2.0
"""The engine of the embedded registry: a record is a file.

The files are those of tooz's file driver, which earlier releases use: each
reads what the other writes. But there is no lock here. A record comes and goes
in one step, by rename() and unlink(), and a group that is not empty cannot be
removed. So a process that stands still holds up no others, and a fork finds no
lock.
"""

import contextlib
import datetime
import os
import time
from collections.abc import Callable
from typing import Any

from tooz import coordination
from tooz import utils as tooz_utils

from zmq_threaded.registry import ages
from zmq_threaded.registry import epochs
from zmq_threaded.registry import folders
from zmq_threaded.registry import held
from zmq_threaded.registry import record
from zmq_threaded.registry import record_files
from zmq_threaded.registry import stamps

# Somebody may remove a group between our making and joining it.
_TRIES = 100


class Driver:
    """What registry.member asks of a coordinator of tooz.

    :param folder: of the registry
    :param expire: seconds after which a record that is not renewed is void
    :param member_id: of this process

    Thread: registry, or its engine's thread; one at a time.
    """

    def __init__(self, folder: folders.Folders, expire: float,
                 member_id: bytes) -> None:
        self._folder = folder
        self._expire = expire
        self._member_id = member_id
        self._name = record_files.safe(member_id) + record_files.SUFFIX
        self._joined: set[bytes] = set()
        self._ages = ages.Ages(expire)
        self._held = held.Held(folder.groups)
        self._lost_until = 0.0
        self._epoch = os.urandom(8)

    def start(self) -> None:
        """Make the folders, and hold them."""
        self._folder.ensure()
        self._held.hold()

    def _stop(self) -> None:
        self._held.release()

    def heartbeat(self) -> None:
        """Renew the records that are still there."""
        for group in self._joined:
            record_files.renew(self._path(group, self._name))

    def is_intact(self) -> bool:
        """Whether all that was joined is still there."""
        return all(os.path.lexists(self._path(group, self._name))
                   for group in self._joined)

    def loss(self, group: bytes) -> epochs.Loss | None:
        """Which records of others somebody removed: the group is there
        without a record, or the registry was made anew less than the life of
        a record ago. (Whoever leaves a group as the last removes the group.)
        """
        self._notice_loss()
        with contextlib.suppress(OSError):
            if not any(name.endswith(record_files.SUFFIX)
                       for name in os.listdir(self._path(group))):
                return epochs.Loss()
        if time.monotonic() < self._lost_until:
            return epochs.Loss(frozenset({self._epoch}))
        return None

    def _notice_loss(self) -> None:
        """Each process sees it by itself. So the epoch is that of this
        process, and what it reads gets it.
        """
        if not self._held.is_in_place():
            self._held.hold()
            self._lost_until = time.monotonic() + self._expire
            self._epoch = os.urandom(8)

    # As tooz names them, and with what tooz returns and raises

    def create_group(self, group: bytes) -> '_Done':
        """Make a group, if it is missing."""
        return _done(self._in_folders, self._create, group)

    def join_group(self, group: bytes, capabilities: Any) -> '_Done':
        """Put a record into a group."""
        if os.path.lexists(self._path(group, self._name)):
            raise coordination.MemberAlreadyExist(group, self._member_id)
        return self.update_capabilities(group, capabilities)

    def update_capabilities(self, group: bytes,
                            capabilities: Any) -> '_Done':
        """Put a record in place of the last; nobody finds none in between."""
        return _done(self._in_folders, self._put, group, capabilities)

    def leave_group(self, group: bytes) -> '_Done':
        """Remove the record of this process from a group."""
        self._joined.discard(group)
        try:
            return _done(os.unlink, self._path(group, self._name))
        except FileNotFoundError:
            raise coordination.MemberNotJoined(group,
                                               self._member_id) from None

    def delete_group(self, group: bytes) -> '_Done':
        """Remove a group, unless it has a record."""
        return _done(record_files.remove_empty_group, self._path(group))

    def get_members_with_capabilities(self, group: bytes) -> '_Done':
        """The young records of a group, by member, with the epoch."""
        # First: what is read from a folder that comes later is doubted.
        self._notice_loss()
        found = self._read(group)
        for each in found.values():
            if isinstance(each, dict):
                each[record.EPOCH] = self._epoch
        return _Done(found)

    def get_member_capabilities(self, group: bytes,
                                member_id: bytes) -> '_Done':
        """The record of a member, or None if it is of no use."""
        path = self._path(
            group, record_files.safe(member_id) + record_files.SUFFIX)
        try:
            return _Done(record_files.read(path)[0]['capabilities'])
        except FileNotFoundError:
            raise coordination.MemberNotJoined(group, member_id) from None
        except record.Malformed:
            return _Done(None)

    def all_records(self) -> dict[str, dict[Any, Any]]:
        """The young records of all groups, by member, by the key of a
        topic.
        """
        found: dict[str, dict[Any, Any]] = {}
        with contextlib.suppress(FileNotFoundError):
            for folder in os.scandir(self._folder.groups):
                group = record_files.group_of(folder.path)
                with contextlib.suppress(coordination.GroupNotCreated):
                    if group:
                        found[group.decode('utf-8', 'replace')] = (
                            self._read(group))
        return found

    def _in_folders(self, step: Callable[..., None], *args: Any) -> None:
        """Take a step that needs folders which somebody may remove."""
        for _ in range(_TRIES):
            try:
                return step(*args)
            except FileNotFoundError:
                self._folder.ensure(to_write=True)
        return step(*args)

    def _create(self, group: bytes) -> None:
        path = self._path(group)
        metadata = os.path.join(path, record_files.METADATA)
        if not os.path.lexists(metadata):
            self._folder.make(path)
            # For earlier releases, which join no group without.
            self._folder.write(f'group-{self._name}', tooz_utils.dumps(
                {'group_id': group, 'encoded': False}), metadata)

    def _put(self, group: bytes, capabilities: Any) -> None:
        self._create(group)
        content = tooz_utils.dumps({
            'capabilities': capabilities, 'member_id': self._member_id,
            'joined_on': datetime.datetime.now(), 'encoded': False,
            # The last, for _renew(). Earlier releases overlook it.
            'stamp': stamps.now()})
        self._folder.write(self._name, content, self._path(group, self._name))
        self._joined.add(group)

    def _read(self, group: bytes) -> dict[Any, Any]:
        """:returns: dict of member to record, or to what is wrong with it"""
        found: dict[Any, Any] = {}
        try:
            with os.scandir(self._path(group)) as entries:
                for entry in entries:
                    if entry.name.endswith(record_files.SUFFIX):
                        self._read_one(entry, found)
        except FileNotFoundError:
            raise coordination.GroupNotCreated(group) from None
        return found

    def _read_one(self, entry: os.DirEntry[str],
                  found: dict[Any, Any]) -> None:
        try:
            if not entry.is_file(follow_symlinks=False):
                raise record.Malformed('it is no regular file')
            content, status = record_files.read(entry.path)
            if self._ages.is_young(entry.path, content, status):
                found[content['member_id']] = content['capabilities']
        except FileNotFoundError:
            pass
        except record.Malformed as problem:
            found[entry.path] = problem

    def _path(self, group: bytes, *name: str) -> str:
        return os.path.join(self._folder.groups, record_files.safe(group),
                            *name)


class _Done:
    """What is done already, as tooz gives what is still to be done.

    Thread: any.
    """

    def __init__(self, result: Any) -> None:
        self._result = result

    def get(self, timeout: float) -> Any:
        """The result, at once."""
        return self._result


def _done(step: Callable[..., None], *args: Any) -> _Done:
    step(*args)
    return _Done(None)
