# SPDX-License-Identifier: Apache-2.0
"""The folders and files in an IPC directory. They are made, made again
when somebody removed them, and as open to others as the IPC directory is.
"""

import contextlib
import errno
import os
import pwd
import stat

from zmq_threaded.net import paths

# What may end by itself: no room, no quota, mounted read-only.
PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Folders:
    """`groups` and `tmp` in a folder of an IPC directory.

    The umask of a service must not cut off the other users of a group: the
    modes are those of the IPC directory.

    :param ipc_dir: absolute path
    :param name: of the folder in it
    :ivar top: the path of that folder

    Thread: any.
    """

    def __init__(self, ipc_dir: str, name: str = 'registry') -> None:
        self._ipc_dir = ipc_dir
        self.top = os.path.join(ipc_dir, name)
        self.groups = os.path.join(self.top, 'groups')
        self.tmp = os.path.join(self.top, 'tmp')
        # Of the IPC directory, for when somebody has removed it.
        self._mode, self._gid = 0o700, -1

    def begin(self) -> None:
        """Make the folder, if it is missing.

        :raises: OSError
        """
        if not os.path.isdir(self._ipc_dir):
            os.makedirs(self._ipc_dir, mode=0o700, exist_ok=True)
            self._open_up(self._ipc_dir)
        status = os.stat(self._ipc_dir)
        self._mode, self._gid = stat.S_IMODE(status.st_mode), status.st_gid
        self.make(self.top)

    def ensure(self, to_write: bool = False) -> None:
        """Make what is missing in it.

        :param to_write: what is needed to write, too
        :raises: OSError
        """
        self.begin()
        self.make(self.groups)
        if to_write:
            self.make(self.tmp)

    def make(self, path: str) -> None:
        """Make a folder, if it is missing.

        :raises: OSError; FileNotFoundError if that is worth another try
        """
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            # FileNotFoundError, if somebody has just removed it.
            if not stat.S_ISDIR(os.stat(path).st_mode):
                raise
        self._open_up(path)

    def write(self, name: str, content: bytes, path: str) -> None:
        """Put a file in its place at once, whole; nothing else is left.

        :param name: of the file while it is written, one of this process
        :raises: OSError
        """
        made = os.path.join(self.tmp, name)
        try:
            self._write(made, content)
            os.replace(made, path)
        except BaseException:
            paths.remove(made)
            raise

    def _write(self, path: str, content: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                             | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, 'wb', buffering=0) as file:
            _give(descriptor, self._mode & 0o666, self._gid)
            while content:
                content = content[file.write(content):]

    def _open_up(self, path: str) -> None:
        """Only what is ours, and only if it has other modes."""
        status = os.lstat(path)
        if (stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
                and (stat.S_IMODE(status.st_mode) != self._mode
                     or self._gid not in (-1, status.st_gid))):
            with contextlib.suppress(OSError):      # mounted read-only
                _give(path, self._mode, self._gid)


def _give(file: str | int, mode: int, gid: int) -> None:
    """:param file: path or descriptor"""
    with contextlib.suppress(OSError):      # a group that is none of ours
        os.chown(file, -1, gid)
    os.chmod(file, mode)


def explained(error: OSError) -> str:
    """What an OSError says, and whose the file is that may not be used."""
    text = error.strerror or str(error)
    path = error.filename
    if path is None:
        return text
    text = f'{os.fsdecode(path)}: {text}'
    if error.errno not in (errno.EACCES, errno.EPERM):
        return text
    try:
        status = os.lstat(path)
    except OSError:
        return text
    return (f'{text} (it belongs to {_user(status.st_uid)}, mode '
            f'{stat.S_IMODE(status.st_mode):04o}; this process runs as '
            f'{_user(os.geteuid())})')


def _user(uid: int) -> str:
    try:
        return f'user {pwd.getpwuid(uid).pw_name}'
    except KeyError:
        return f'user {uid}'
