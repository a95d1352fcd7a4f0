# SPDX-License-Identifier: Apache-2.0
"""Where journals are, what their files are called, and who may use them."""

import contextlib
import hashlib
import os
import stat
import time

from zmq_threaded import options
from zmq_threaded.journal import locks
from zmq_threaded.journal import reserve
from zmq_threaded.registry import tooz_url

FOLDER = 'journals'
SUFFIX, LOCK = '.journal', '.lock'
# What sqlite has beside a database.
_BESIDE = ('-wal', '-shm', '-journal')
_BROKEN = '.set-aside'


class Place:
    """The directory of the journals. Those of other registries may lie in
    it too, and are left alone.

    :param path: rpc_zmq_custody_dir, '' for the default
    :param ipc_dir: absolute path of the IPC directory
    :param registry: what the registry is, as text; processes with another
        registry cannot deliver what lies in these journals
    :ivar path: of the directory

    Thread: any.
    """

    def __init__(self, path: str, ipc_dir: str, registry: str) -> None:
        self._is_default = not path
        # One name for each file: locks.py tells files apart by their names.
        self.path = os.path.realpath(path or os.path.join(ipc_dir, FOLDER))
        self._ipc_dir = ipc_dir
        self.registry = registry
        self._tag = hashlib.sha256(registry.encode(
            'utf-8', 'surrogatepass')).hexdigest()[:8]

    def journals(self) -> list[str]:
        """The paths of the journals of this registry, the oldest name first;
        an empty list if there is no directory.
        """
        with contextlib.suppress(OSError):
            return [os.path.join(self.path, name)
                    for name in sorted(os.listdir(self.path))
                    if name.startswith(f'{self._tag}-')
                    and name.endswith(SUFFIX)]
        return []

    def stray_locks(self) -> list[str]:
        """The locks that belong to no journal: their owners died when they
        made or removed one.
        """
        found = []
        with contextlib.suppress(OSError):
            for name in os.listdir(self.path):
                path = os.path.join(self.path, name)
                if (name.startswith(f'{self._tag}-') and name.endswith(LOCK)
                        and not os.path.lexists(path.removesuffix(LOCK)
                                                + SUFFIX)):
                    found.append(path)
        return found

    def new(self, maker: bytes, number: int = 0) -> str:
        """The path of a journal of this maker of ids.

        :param number: how many it had before
        """
        name = f'{self._tag}-{maker.hex()}'
        if number:
            name += f'-{number}'
        return os.path.join(self.path, name + SUFFIX)

    def ensure(self) -> None:
        """Make the directory, if it is missing, as open to others as the IPC
        directory is.

        :raises: OSError
        """
        if os.path.isdir(self.path):
            return
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        if self._is_default:
            status = os.stat(self._ipc_dir)
            locks.open_up(self.path, stat.S_IMODE(status.st_mode) & 0o2770,
                          status.st_gid)

    def mode(self) -> tuple[int, int]:
        """The mode and the group of a file that is made here.

        :raises: OSError
        """
        status = os.stat(self.path)
        shared = stat.S_IMODE(status.st_mode) & 0o070 == 0o070
        return (0o660 if shared else 0o600), status.st_gid


def of(settings: options.Settings, ipc_dir: str) -> Place:
    """The Place of a driver.

    :param ipc_dir: absolute path of the IPC directory
    """
    return Place(settings.custody_dir, ipc_dir, (
        f'{options.EMBEDDED}:{os.path.realpath(ipc_dir)}'
        if settings.matchmaker == options.EMBEDDED
        else tooz_url.without_password(settings.matchmaker)))


def lock_of(journal: str) -> str:
    """The path of the lock of a journal."""
    return journal.removesuffix(SUFFIX) + LOCK


def files_of(journal: str) -> list[str]:
    """The paths of the database and of what sqlite has beside it."""
    return [journal, *(journal + beside for beside in _BESIDE)]


def remove(journal: str) -> None:
    """Remove the files of a journal that is ours; its lock goes last."""
    for path in (*files_of(journal), reserve.path_of(journal),
                 lock_of(journal)):
        with contextlib.suppress(OSError):
            os.unlink(path)


def set_aside(journal: str) -> str:
    """Rename the files of a journal that is of no use, and remove its lock.

    :returns: the new path of the database
    """
    aside = f'{journal}{_BROKEN}-{int(time.time())}'
    for path in files_of(journal):
        with contextlib.suppress(OSError):
            os.rename(path, aside + path[len(journal):])
    for path in reserve.path_of(journal), lock_of(journal):
        with contextlib.suppress(OSError):
            os.unlink(path)
    return aside
