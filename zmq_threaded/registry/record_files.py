# SPDX-License-Identifier: Apache-2.0
"""The file of a record: read with distrust, renewed, and removed."""

import errno
import functools
import hashlib
import os
import pathlib
import stat
from typing import Any

from zmq_threaded.registry import folders
from zmq_threaded.registry import record
from zmq_threaded.registry import stamps

# In the folder of a group: what tooz writes about the group, and how the name
# of a record ends.
METADATA = '.metadata'
SUFFIX = '.raw'
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@functools.lru_cache(1000)
def safe(name: bytes) -> str:
    """The name of a file, as tooz makes it of a member or group."""
    return hashlib.sha1(name, usedforsecurity=False).hexdigest()


def read(path: str) -> tuple[dict[str, Any], os.stat_result]:
    """Read a record file, which anybody may have put there.

    :raises: FileNotFoundError; Malformed
    :returns: what is in the file, unpacked, and the status of the file
    """
    content, status = _unpacked(path)
    if not (isinstance(content, dict) and 'capabilities' in content
            and isinstance(content.get('member_id'), bytes)):
        raise record.Malformed('it is no record of a member')
    return content, status


def group_of(path: str) -> bytes | None:
    """The name of the group that has this folder; None if nobody knows."""
    try:
        content, _ = _unpacked(os.path.join(path, METADATA))
    except (FileNotFoundError, NotADirectoryError, record.Malformed):
        return None
    name = content.get('group_id') if isinstance(content, dict) else None
    return name if isinstance(name, bytes) else None


def _unpacked(path: str) -> tuple[Any, os.stat_result]:
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
    return record.unpack(raw), status


def renew(path: str) -> None:
    """Give a record a new stamp, in place: that needs no room, and touches
    the file, whose time is what earlier releases look at.
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


def remove_empty_group(path: str) -> None:
    """Remove the folder of a group, unless somebody has joined it."""
    try:
        if set(os.listdir(path)) <= {METADATA}:
            pathlib.Path(path, METADATA).unlink(missing_ok=True)
            os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
