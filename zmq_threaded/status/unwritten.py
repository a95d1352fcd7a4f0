# SPDX-License-Identifier: Apache-2.0
"""Facts that cannot be written: the disk is full, read-only or not ours. The
process says so, and so does who reads the facts of before.
"""

import errno
import os
import time
from typing import Any

from zmq_threaded import logs
from zmq_threaded.registry import folders
from zmq_threaded.status import findings

LOG = logs.get(__name__)

# Of findings.Finding.
KIND = 'facts_not_written'
# Failures in a row before the first warning: one may be a folder that
# somebody has just removed. And seconds between two warnings.
_FAILURES, _REMIND = 2, 600.0
# Bytes and inodes without which no facts are written, and a disk is full.
_ROOM, _INODES = 1 << 16, 1
_NO_ROOM = errno.ENOSPC, errno.EDQUOT


class Telling:
    """Says that the facts of this process cannot be written, and when that is
    over.

    :param folder: where the files of facts are
    :param found: the findings of this process, None if it has none; what is
        found gets to other nodes by the registry

    Thread: the one that publishes.
    """

    def __init__(self, folder: str,
                 found: findings.Findings | None = None) -> None:
        self._folder = folder
        self._found = found
        self._failures = 0
        self._since = self._next_warning = 0.0

    def failed(self, error: OSError) -> None:
        """The facts could not be written."""
        now = time.monotonic()
        self._failures += 1
        if self._failures == 1:
            self._since = self._next_warning = now
        if self._failures < _FAILURES:
            return
        text = _text(_explained(self._folder, error))
        remedy = _remedy(self._folder, error.errno)
        if self._found is not None:
            self._found.note(KIND, self._folder, text, remedy)
        if now >= self._next_warning:
            self._next_warning = now + _REMIND
            LOG.warning('%s. What to do: %s.', text, remedy)

    def succeeded(self) -> None:
        """The facts were written."""
        if self._failures >= _FAILURES:
            LOG.info('The facts of this process are written to %s again, '
                     'after %.0f s', self._folder,
                     time.monotonic() - self._since)
            if self._found is not None:
                self._found.clear(KIND, self._folder)
        self._failures = 0


def finding(folder: str, seconds: float) -> dict[str, Any]:
    """What a reader finds of a process that lives, and has not written its
    facts; as findings.Finding.document() has it.

    :param folder: where the files of facts are
    :param seconds: from the last facts until the last sign of life
    """
    number = _errno(folder)
    why = ('the log of the process says why' if number is None
           else os.strerror(number))
    return {'kind': KIND, 'subject': folder,
            'text': _text(f'{folder}: {why}'),
            'remedy': _remedy(folder, number), 'since': round(seconds, 1)}


def explained(folder: str) -> str:
    """Why nobody can write there, as far as the file system says it; ''."""
    number = _errno(folder)
    return '' if number is None else f'{folder}: {os.strerror(number)}'


def _text(why: str) -> str:
    return (f'The facts of this process cannot be written ({why}), though '
            'the process lives. health and metrics on its node show only what '
            'it said before')


def _explained(folder: str, error: OSError) -> str:
    text = folders.explained(error)
    return text if error.filename is not None else f'{folder}: {text}'


def _remedy(folder: str, number: int | None) -> str:
    if number in _NO_ROOM:
        return f'make room in {folder} (rpc_zmq_ipc_dir)'
    if number == errno.EROFS:
        return f'let {folder} (rpc_zmq_ipc_dir) be mounted for writing'
    return f'let the process write to {folder} (rpc_zmq_ipc_dir)'


def _errno(folder: str) -> int | None:
    try:
        there = os.statvfs(folder)
    except OSError:
        return None
    # Some file systems, such as btrfs, count no inodes.
    if (there.f_bavail * there.f_frsize < _ROOM
            or there.f_files and there.f_favail < _INODES):
        return errno.ENOSPC
    return errno.EROFS if there.f_flag & os.ST_RDONLY else None
