# SPDX-License-Identifier: Apache-2.0
"""The kernel's notices of what happens in folders: inotify(7).

By ctypes, for it is three functions of the C library; the packages that have
them bring threads, or an event loop, of their own.
"""

import contextlib
import ctypes
import io
import os
import struct

# What happens in a folder, as <sys/inotify.h> has it.
MOVED_FROM, MOVED_TO, CREATED, DELETED = 0x40, 0x80, 0x100, 0x200
OVERFLOW, IGNORED = 0x4000, 0x8000
_ONLY_FOLDERS = 0x01000000
_HEADER = struct.Struct('iIII')
_AT_ONCE = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """The notices of some folders.

    :raises: OSError when this user has no more of them to be had
    :ivar fd: readable when there is a notice

    Thread: any for watch() and unwatch(); the rest belongs to the thread that
    reads.
    """

    def __init__(self) -> None:
        fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        # Owned by an object, for a bare number is never closed.
        self._file = io.FileIO(fd, 'r')
        self.fd = fd

    def watch(self, path: str, events: int) -> int:
        """Notice events in a folder; twice is fine.

        :returns: the number of the watch, which is that of the folder
        :raises: OSError
        """
        return _checked(_libc.inotify_add_watch(
            self.fd, os.fsencode(path), events | _ONLY_FOLDERS))

    def unwatch(self, number: int) -> None:
        """Undo watch(); the number may be void already."""
        _libc.inotify_rm_watch(self.fd, number)

    def read(self) -> list[tuple[int, int, str]]:
        """The notices that have come: number of the watch, event, name."""
        found = []
        with contextlib.suppress(OSError):
            raw = self._file.read(_AT_ONCE) or b''
            while raw:
                number, event, _, size = _HEADER.unpack_from(raw)
                end = _HEADER.size + size
                found.append((number, event, os.fsdecode(
                    raw[_HEADER.size:end].rstrip(b'\0'))))
                raw = raw[end:]
        return found

    def close(self) -> None:
        """Notice nothing any more."""
        self._file.close()


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
