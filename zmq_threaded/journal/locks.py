# SPDX-License-Identifier: Apache-2.0
"""The lock of a journal: who has it is the owner, and lives.

It is a POSIX lock, which ends with its process and is not inherited by
children, as a flock would be. Two traps of it are closed here: it does not
keep out other threads of the same process, and it is gone as soon as the
process closes any descriptor of the file.
"""

import contextlib
import fcntl
import os
import struct
import threading

# The files of which this process has the lock, or is about to try.
_claimed: dict[str, int] = {}
_NO_FD = -1
# An owner that lives, and that this process cannot name: the kernel does not
# translate the process id into a PID namespace that does not have the owner.
UNNAMED = 0
# No file is closed after a look at its lock while another thread takes it.
_looking = threading.RLock()
# struct flock of Linux: type, whence, start, length, pid.
_FLOCK = struct.Struct('@hhqqi0q')
_OPEN = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


def create(path: str, mode: int, gid: int) -> None:
    """Make a file that this process has the lock of from its beginning.

    :raises: OSError
    """
    made = f'{path}.new'
    _claimed[path] = _NO_FD
    fd = os.open(made, _OPEN | os.O_CREAT | os.O_EXCL, 0o600)
    _claimed[path] = fd
    try:
        open_up(fd, mode, gid)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(made, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(made)
        release(path)
        raise


def take(path: str) -> bool:
    """Take the lock of a file, if nobody has it.

    :raises: OSError if the file cannot be opened
    :returns: whether it is ours now
    """
    with _looking:
        if is_ours(path):
            return False
        _claimed[path] = fd = os.open(path, _OPEN)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its owner may just have removed it.
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return True
        except OSError:
            pass
        release(path)
        return False


def release(path: str) -> None:
    """Give the lock of a file back."""
    with _looking:
        fd = _claimed.pop(path, _NO_FD)
        if fd != _NO_FD:
            os.close(fd)


def is_ours(path: str) -> bool:
    """Whether this process has the lock."""
    return path in _claimed


def owner(path: str) -> int | None:
    """The process that has the lock; None if nobody has it, UNNAMED if the
    process is in another PID namespace, such as that of another container.

    :raises: OSError if the file cannot be opened
    """
    with _looking:
        if is_ours(path):
            # To open and close it would be the end of the lock.
            return os.getpid()
        fd = os.open(path, _OPEN)
        try:
            found = first_from(fd, 0)
        finally:
            os.close(fd)
    return None if found is None else max(found[1], UNNAMED)


def first_from(fd: int, start: int) -> tuple[int, int] | None:
    """The first lock of another process that covers a byte from there on:
    (byte, process id as fcntl says it), None if there is none.

    :raises: OSError
    """
    kind, _, byte, _, pid = _FLOCK.unpack(fcntl.fcntl(
        fd, fcntl.F_GETLK,
        _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, 0, 0)))
    return None if kind == fcntl.F_UNLCK else (byte, pid)


def open_up(file: str | int, mode: int, gid: int) -> None:
    """Give a file its group and mode, whatever the umask is.

    :param gid: -1 to leave the group
    :raises: OSError
    """
    with contextlib.suppress(OSError):      # a group that is none of ours
        os.chown(file, -1, gid)
    os.chmod(file, mode)


def _in_child():
    # The locks are the parent's; and to close one of these later would end a
    # lock that this process has taken meanwhile.
    global _looking
    _looking = threading.RLock()
    for fd in _claimed.values():
        if fd != _NO_FD:
            os.close(fd)
    _claimed.clear()


os.register_at_fork(after_in_child=_in_child)
