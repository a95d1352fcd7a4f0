# SPDX-License-Identifier: Apache-2.0
"""The engine of the embedded registry: a record is a file.

The files are those of tooz's file driver, which earlier releases use: each
reads what the other writes. But there is no lock here: a record comes and goes
in one step, by rename() and unlink(), and a group that is not empty cannot be
removed. So nobody who stands still holds up others, and a fork finds no lock.
"""

import datetime
import errno
import functools
import hashlib
import os
import pathlib
import stat
import time
import weakref

from tooz import coordination
from tooz import utils as tooz_utils

from zmq_threaded.registry import ages
from zmq_threaded.registry import folders
from zmq_threaded.registry import record
from zmq_threaded.registry import stamps

# Somebody may remove a group between our making and joining it.
_TRIES = 100
_METADATA = '.metadata'
_SUFFIX = '.raw'
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Driver:
    """What registry.member asks of a coordinator of tooz.

    :param folder: folders.Folders
    :param expire: seconds after which a record that is not renewed is void
    :param member_id: bytes

    Thread: one at a time.
    """

    def __init__(self, folder, expire, member_id):
        self._folder = folder
        self._expire = expire
        self._member_id = member_id
        self._name = _safe(member_id) + _SUFFIX
        self._joined = set()
        self._ages = ages.Ages(expire)
        self._held = _Held(folder.groups)
        self._lost_until = 0.0

    def start(self):
        self._folder.ensure()
        self._held.hold()

    def _stop(self):
        self._held.release()

    def heartbeat(self):
        """Renew the records that are still there."""
        for group in self._joined:
            _renew(self._path(group, self._name))

    def is_intact(self):
        """Whether all that was joined is still there."""
        return all(os.path.lexists(self._path(group, self._name))
                   for group in self._joined)

    def was_emptied(self, group):
        """Whether somebody removed records who did not own them: the registry
        was made anew less than the life of a record ago, or the group is
        there without a record. (Who leaves last removes the group.)
        """
        if not self._held.is_in_place():
            self._held.hold()
            self._lost_until = time.monotonic() + self._expire
        if time.monotonic() < self._lost_until:
            return True
        try:
            return not any(name.endswith(_SUFFIX)
                           for name in os.listdir(self._path(group)))
        except OSError:
            return False

    # As tooz names them

    def create_group(self, group):
        return _Done(self._in_folders(self._create, group))

    def join_group(self, group, capabilities):
        if os.path.lexists(self._path(group, self._name)):
            raise coordination.MemberAlreadyExist(group, self._member_id)
        return self.update_capabilities(group, capabilities)

    def update_capabilities(self, group, capabilities):
        """Put a record in place of the last; nobody finds none in between."""
        return _Done(self._in_folders(self._put, group, capabilities))

    def leave_group(self, group):
        self._joined.discard(group)
        try:
            return _Done(os.unlink(self._path(group, self._name)))
        except FileNotFoundError:
            raise coordination.MemberNotJoined(group,
                                               self._member_id) from None

    def delete_group(self, group):
        return _Done(remove_empty_group(self._path(group)))

    def get_members_with_capabilities(self, group):
        return _Done(self._read(group))

    def get_member_capabilities(self, group, member_id):
        path = self._path(group, _safe(member_id) + _SUFFIX)
        try:
            return _Done(read(path)[0]['capabilities'])
        except FileNotFoundError:
            raise coordination.MemberNotJoined(group, member_id) from None
        except record.Malformed:
            return _Done(None)

    def _in_folders(self, step, *args):
        """Take a step that needs folders which somebody may remove."""
        for _ in range(_TRIES):
            try:
                return step(*args)
            except FileNotFoundError:
                self._folder.ensure(to_write=True)
        return step(*args)

    def _create(self, group):
        path = self._path(group)
        metadata = os.path.join(path, _METADATA)
        if not os.path.lexists(metadata):
            self._folder.make(path)
            # For earlier releases, which join no group without.
            self._folder.write(f'group-{self._name}', tooz_utils.dumps(
                {'group_id': group, 'encoded': False}), metadata)

    def _put(self, group, capabilities):
        self._create(group)
        content = tooz_utils.dumps({
            'capabilities': capabilities, 'member_id': self._member_id,
            'joined_on': datetime.datetime.now(), 'encoded': False,
            # The last, for _renew(). Earlier releases overlook it.
            'stamp': stamps.now()})
        self._folder.write(self._name, content, self._path(group, self._name))
        self._joined.add(group)

    def _read(self, group):
        """:returns: dict of member to record, or to what is wrong with it"""
        found = {}
        try:
            with os.scandir(self._path(group)) as entries:
                for entry in entries:
                    if entry.name.endswith(_SUFFIX):
                        self._read_one(entry, found)
        except FileNotFoundError:
            raise coordination.GroupNotCreated(group) from None
        return found

    def _read_one(self, entry, found):
        try:
            if not entry.is_file(follow_symlinks=False):
                raise record.Malformed('it is no regular file')
            content, status = read(entry.path)
            if self._ages.is_young(entry.path, content, status):
                found[content['member_id']] = content['capabilities']
        except FileNotFoundError:
            pass
        except record.Malformed as problem:
            found[entry.path] = problem

    def _path(self, group, *name):
        return os.path.join(self._folder.groups, _safe(group), *name)


class _Held:
    """A directory that stays the same one while it has this name: what is
    held open keeps its number, though it be removed.

    Thread: one.
    """

    def __init__(self, path):
        self._path = path
        self._release = None

    def hold(self):
        self.release()
        try:
            self._descriptor = os.open(self._path, os.O_PATH | os.O_DIRECTORY
                                       | os.O_CLOEXEC)
        except OSError:
            return
        # In a forked child, too, which only drops what its parent had.
        self._release = weakref.finalize(self, os.close, self._descriptor)

    def release(self):
        if self._release:
            self._release()
            self._release = None

    def is_in_place(self):
        try:
            return self._release is not None and os.path.samestat(
                os.fstat(self._descriptor), os.stat(self._path))
        except OSError:
            return False


class _Done:
    """What is done already, as tooz gives what is still to be done."""

    def __init__(self, result):
        self._result = result

    def get(self, timeout):
        return self._result


@functools.lru_cache(1000)
def _safe(name):
    """As tooz makes names of files."""
    return hashlib.sha1(name, usedforsecurity=False).hexdigest()


def read(path):
    """Read a record file, which anybody may have put there.

    :raises: FileNotFoundError; Malformed
    :returns: dict of the record, and the os.stat_result of its file
    """
    try:
        descriptor = os.open(path, _READ_FLAGS)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise record.Malformed('it is no regular file')
            if status.st_size > record.LONGEST:
                raise record.Malformed(f'it has {status.st_size} bytes')
            raw = os.read(descriptor, record.LONGEST)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise record.Malformed(folders.explained(error)) from None
    content = record.unpack(raw)
    if not (isinstance(content, dict) and 'capabilities' in content
            and isinstance(content.get('member_id'), bytes)):
        raise record.Malformed('it is no record of a member')
    return content, status


def _renew(path):
    """In place: that needs no room, and touches the file, whose time is what
    earlier releases look at.
    """
    stamp = stamps.now()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW
                             | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO,
                           errno.EISDIR):
            return      # the look at what is there puts it right
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return
        if stamp and status.st_size > stamps.SIZE:
            os.pwrite(descriptor, stamp[-stamps.TIME_SIZE:],
                      status.st_size - stamps.TIME_SIZE)
        else:
            os.utime(descriptor)
    finally:
        os.close(descriptor)


def remove_empty_group(path):
    """Remove the folder of a group, unless somebody has joined it."""
    try:
        if set(os.listdir(path)) <= {_METADATA}:
            pathlib.Path(path, _METADATA).unlink(missing_ok=True)
            os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
