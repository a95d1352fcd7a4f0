# SPDX-License-Identifier: Apache-2.0
"""A file whose lock says that its process lives, and when the process gave
the last sign of that.

The kernel knows no process ids of other PID namespaces, and shows a lock to
all of them. The lock is a POSIX one, which ends with its process, and is not
inherited by children, as a flock would be. It covers the first byte of the
file for as long as the process lives, and one byte more, the number of which
tells the time of the last sign of life. So a sign of life needs no room on
the disk, and none of the file, which is empty.

A POSIX lock is gone as soon as its process closes any descriptor of the file.
So a process never opens a file of its own again, whatever the path is.
"""

import contextlib
import fcntl
import os
import stat
import threading
import time
from typing import NamedTuple

from zmq_threaded.journal import locks
from zmq_threaded.net import paths
from zmq_threaded.registry import folders

SUFFIX = '.lock'
# The byte that is locked for life; and the one that is locked in the second 0
# of the monotonic clock. The kernel joins locks of bytes that are neighbours.
_LIFE, _FIRST_SECOND = 0, 2
# The files of this process by their names, which have a random part.
_mine: dict[str, int] = {}
# Nobody looks at a file, and so closes it, while it is made.
_looking = threading.RLock()
_NEW = (os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW)
# To look at a lock, one needs not be able to take it.
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TAKE = fcntl.LOCK_EX | fcntl.LOCK_NB


class Look(NamedTuple):
    """What a lock says of its process.

    :ivar lives: None if there is no file, or it cannot be looked at
    :ivar silent: seconds since the last sign of life, None if that is not
        known; by the clock of this time namespace

    Thread: any.
    """

    lives: bool | None = None
    silent: float | None = None


class Sign:
    """The file of one driver in this process.

    :param folder: where it is
    :param name: of the file; no other process ever uses the name

    Thread: any, one at a time.
    """

    def __init__(self, folder: folders.Folders, name: str) -> None:
        self._folder = folder
        self._name = name + SUFFIX
        self._path = os.path.join(folder.top, self._name)
        self._second = _LIFE

    def give(self) -> None:
        """Say that the process lives, now.

        :raises: OSError, for instance if the file system has no locks
        """
        with _looking:
            if not self._is_there():
                self.end()
                self._make()
            # Again, for somebody may have closed a descriptor of the file.
            fd = _mine[self._name]
            fcntl.lockf(fd, _TAKE, 1, _LIFE)
            second = _FIRST_SECOND + int(time.monotonic())
            fcntl.lockf(fd, _TAKE, 1, second)
            if self._second not in (_LIFE, second):
                fcntl.lockf(fd, fcntl.LOCK_UN, 1, self._second)
            self._second = second

    def end(self) -> None:
        """The process says no more; the file goes."""
        with _looking:
            fd = _mine.pop(self._name, None)
            if fd is not None:
                paths.remove(self._path)
                os.close(fd)
            self._second = _LIFE

    def _is_there(self) -> bool:
        """Whether the file is still what was made, and open."""
        try:
            return os.path.samestat(os.fstat(_mine[self._name]),
                                    os.lstat(self._path))
        except (KeyError, OSError):
            return False

    def _make(self) -> None:
        self._folder.begin()
        self._folder.make(self._folder.tmp)
        made = os.path.join(self._folder.tmp, self._name)
        paths.remove(made)
        _mine[self._name] = fd = os.open(made, _NEW, 0o600)
        try:
            around = os.stat(self._folder.top)
            locks.open_up(fd, stat.S_IMODE(around.st_mode) & 0o666,
                          around.st_gid)
            # Nobody ever sees the file without its lock.
            fcntl.lockf(fd, _TAKE, 1, _LIFE)
            os.rename(made, self._path)
        except BaseException:
            paths.remove(made)
            del _mine[self._name]
            os.close(fd)
            raise


def look(path: str) -> Look:
    """What the file of a process says of it.

    :param path: of any process, this one included
    """
    with _looking:
        if os.path.basename(path) in _mine:
            return Look(True, 0.0)
        try:
            fd = os.open(path, _LOOK)
        except OSError:
            return Look()
        try:
            return _look(fd)
        except OSError:
            return Look()
        finally:
            os.close(fd)


def _look(fd: int) -> Look:
    if locks.first_from(fd, _LIFE) is None:
        return Look(False)
    sign = locks.first_from(fd, _LIFE + 1)
    if sign is None:
        return Look(True)
    return Look(True, max(0.0, time.monotonic() - (sign[0] - _FIRST_SECOND)))


def _in_child() -> None:
    # The locks are the parent's.
    global _looking
    _looking = threading.RLock()
    for fd in _mine.values():
        with contextlib.suppress(OSError):
            os.close(fd)
    _mine.clear()


os.register_at_fork(after_in_child=_in_child)
