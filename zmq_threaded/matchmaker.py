# SPDX-License-Identifier: Apache-2.0
"""The registry of listening instances, on tooz group membership.

A group is the key of a Topic, a member an instance, its capabilities the
record. Only the directory thread calls this; every call may block for as
long as the engine does, and may raise whatever the engine's client raises.
"""

import contextlib
import dataclasses
import datetime
import functools
import glob
import logging
import os
import threading
from urllib import parse

import fasteners
from tooz import coordination
from tooz import utils as tooz_utils
from tooz.drivers import file

LOG = logging.getLogger(__name__)

# tooz's file driver keeps class-wide locks that a forked child would inherit
# in whatever state they are: no fork while an operation runs.
_operation = threading.RLock()
os.register_at_fork(before=_operation.acquire,
                    after_in_parent=_operation.release,
                    after_in_child=_operation.release)


@dataclasses.dataclass(frozen=True)
class Instance:
    """One listening service.

    :ivar id: 16 random bytes, new for each start of a service
    :ivar endpoints: ZeroMQ endpoints, the preferred first
    :ivar pool: of a notification listener, '' for none
    :ivar receiver: the endpoints are those of its node's receiver
    """

    id: bytes
    endpoints: tuple
    pool: str = ''
    receiver: bool = False

    def __str__(self):
        return self.id.hex()


# Somebody may delete an empty group between our creating and joining it.
_JOIN_TRIES = 5


def _serialised(method):
    def operation(*args):
        with _operation:
            return method(*args)
    return operation


class Matchmaker:
    """Registrations and look-ups of one driver in one process.

    :param connect: makes a tooz coordinator for a member id
    :param expire: seconds after which a record that is not renewed is gone
    :param deletion_lock: held while empty groups are deleted, for engines
        where a join could come in between
    :param repair: called when a group cannot be read, before a second try

    Thread: directory.
    """

    def __init__(self, connect, expire, deletion_lock=None, repair=None):
        self._connect = connect
        self._expire = expire
        self._deletion_lock = deletion_lock or contextlib.nullcontext()
        self._repair = repair
        self._reader = None
        self._members = {}

    @_serialised
    def lookup(self, key):
        """The instances registered under a key.

        :raises: Exception, whatever the engine's client raises
        :returns: list of Instance, in a stable order
        """
        if self._reader is None:
            self._reader = self._coordinator(b'reader-' + os.urandom(8))
        try:
            members = self._read(self._reader.get_members_with_capabilities,
                                 key)
        except coordination.GroupNotCreated:
            return []
        found = (_instance(member, record)
                 for member, record in members.items())
        return sorted(filter(None, found), key=lambda instance: instance.id)

    @_serialised
    def register(self, instance, keys):
        """Make an instance known under each key; repeating it is harmless.

        :raises: Exception, whatever the engine's client raises
        """
        member = self._members.get(instance.id)
        if member is None:
            member = self._coordinator(instance.id.hex().encode())
            self._members[instance.id] = member
        record = {'endpoints': list(instance.endpoints),
                  'pool': instance.pool, 'receiver': instance.receiver}
        for key in keys:
            with contextlib.suppress(coordination.MemberAlreadyExist):
                self._join(member, key.encode(), record)

    @_serialised
    def beat(self, instance, keys):
        """Renew the records of a registered instance, and put back those
        that are missing: no engine does that by itself.

        :raises: Exception, whatever the engine's client raises
        """
        member = self._members.get(instance.id)
        if member is not None:
            member.heartbeat()
        missing = [key for key in keys if not self._listed(instance, key)]
        if missing:
            self.register(instance, missing)

    @_serialised
    def unregister(self, instance, keys):
        """Remove the records of an instance, and the groups left empty.

        :raises: Exception, whatever the engine's client raises
        """
        member = self._members.pop(instance.id, None)
        if member is None:
            return
        for key in keys:
            with contextlib.suppress(coordination.MemberNotJoined,
                                     coordination.GroupNotCreated):
                member.leave_group(key.encode()).get(timeout=self._expire)
        self._delete_empty(member, keys)
        member.stop()

    @_serialised
    def close(self):
        """Remove all that was registered here and end the connections."""
        for coordinator in (*self._members.values(), self._reader):
            if coordinator is not None:
                with contextlib.suppress(Exception):
                    coordinator.stop()
        self._members.clear()
        self._reader = None

    def _join(self, member, group, record):
        # tooz's own join_group_create() sleeps a second between its steps.
        for _ in range(_JOIN_TRIES):
            try:
                return member.join_group(group, record).get(
                    timeout=self._expire)
            except coordination.GroupNotCreated:
                # Unlocked, a deletion could come between its two steps.
                with self._deletion_lock, contextlib.suppress(
                        coordination.GroupAlreadyExist):
                    member.create_group(group).get(timeout=self._expire)
        raise coordination.GroupNotCreated(group)

    def _delete_empty(self, member, keys):
        with self._deletion_lock:
            for key in keys:
                with contextlib.suppress(coordination.GroupNotEmpty,
                                         coordination.GroupNotCreated):
                    member.delete_group(key.encode()).get(
                        timeout=self._expire)

    def _read(self, operation, key):
        try:
            return operation(key.encode()).get(timeout=self._expire)
        except coordination.GroupNotCreated:
            raise
        except Exception:
            if self._repair is None:
                raise
            self._repair()
            return operation(key.encode()).get(timeout=self._expire)

    def _listed(self, instance, key):
        try:
            members = self._read(self._members[instance.id].get_members, key)
        except (coordination.GroupNotCreated, KeyError):
            return False
        return instance.id.hex().encode() in members

    def _coordinator(self, member_id):
        coordinator = self._connect(member_id)
        coordinator.start()
        return coordinator


def _instance(member, record):
    # Anybody who may write to the registry may write nonsense into it.
    try:
        instance_id, endpoints = bytes.fromhex(member.decode()), record[
            'endpoints']
        if (len(instance_id) == 16 and endpoints
                and isinstance(endpoints, list)
                and all(isinstance(each, str) for each in endpoints)):
            return Instance(instance_id, tuple(endpoints),
                            str(record.get('pool', '')),
                            bool(record.get('receiver')))
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    LOG.warning('The registry holds a record that is none of ours: %r', member)
    return None


def embedded(ipc_dir, expire):
    """The Matchmaker of one machine: files, and no server."""
    folder = os.path.join(os.path.abspath(ipc_dir), 'registry')
    os.makedirs(folder, exist_ok=True)
    # tooz joins under this lock, and deletes without it.
    lock = fasteners.InterProcessLock(os.path.join(folder, '.driver_lock'))
    return Matchmaker(functools.partial(_open_files, folder, expire), expire,
                      lock, functools.partial(_remove_unreadable, folder, lock))


def _open_files(folder, expire, member_id):
    # Not by URL: a path may have characters that mean something there.
    return file.FileDriver(member_id, parse.SplitResult('file', '', folder, '',
                                                        ''),
                           {'timeout': [str(int(expire))],
                            'executor': ['sync']})


def _remove_unreadable(folder, lock):
    """One unreadable file, of a process that was killed while it wrote, would
    keep tooz from reading all the others.
    """
    with lock:
        for path in glob.glob(os.path.join(glob.escape(folder), 'groups', '*',
                                           '*.raw')):
            if not _is_record(path):
                LOG.warning('Removed an unreadable record: %s', path)
                with contextlib.suppress(OSError):
                    os.unlink(path)


def _is_record(path):
    try:
        with open(path, 'rb') as record_file:
            record = tooz_utils.loads(record_file.read())
        return (isinstance(record['member_id'], bytes)
                and isinstance(record['joined_on'], datetime.datetime))
    except Exception:
        return False    # whatever msgpack makes of bytes that are none
