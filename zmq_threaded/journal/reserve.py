# SPDX-License-Identifier: Apache-2.0
"""Bytes on the disk that a journal gives up when the disk is full.

To remove a message means to write: with no byte left a journal could neither
become shorter nor be dropped. So each has a file beside it that has nothing
in it but its size. What frees room may take its place, new messages may not.
"""

import contextlib
import errno
import os

# More than the WAL and the next step take.
SIZE = 1 << 21
_SUFFIX = '-reserve'
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_FULL = errno.ENOSPC, errno.EDQUOT


def path_of(journal: str) -> str:
    """The path of the reserve of a journal."""
    return journal + _SUFFIX


def is_there(journal: str) -> bool:
    """Whether a journal has a reserve."""
    return os.path.lexists(path_of(journal))


def make(journal: str, mode: int, gid: int) -> None:
    """Reserve the bytes of a journal that has no reserve.

    :raises: OSError if the disk has no room for them
    """
    fd = os.open(path_of(journal), _NEW, 0o600)
    try:
        with contextlib.suppress(OSError):      # a group that is none of ours
            os.fchown(fd, -1, gid)
        os.fchmod(fd, mode)
        os.posix_fallocate(fd, 0, SIZE)
    except OSError as error:
        # There are file systems that reserve nothing.
        if error.errno in _FULL:
            give_up(journal)
            raise
    finally:
        os.close(fd)


def give_up(journal: str) -> None:
    """Let something else have the bytes."""
    with contextlib.suppress(OSError):
        os.unlink(path_of(journal))
