# SPDX-License-Identifier: Apache-2.0
"""The facts of the processes of a node: a file for each, in the folder
`facts` of the IPC directory. Who may enter that directory may read them.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

from zmq_threaded.net import paths
from zmq_threaded.registry import folders
from zmq_threaded.registry import stamps
from zmq_threaded.status import facts
from zmq_threaded.status import processes

FOLDER, _SUFFIX = 'facts', '.json'
# Seconds for which the file of a process that is gone stays, so that people
# hear of that; and of one in another PID namespace, of which nobody knows.
_MOURNING, _FORGOTTEN = 120.0, 600.0
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class File:
    """The file of one driver in one process.

    :param name: of the file, one of this process: its pid and a random id

    Thread: registry; receiver.
    """

    def __init__(self, ipc_dir: str, name: str) -> None:
        self._pid = os.getpid()
        self._folder = folders.Folders(ipc_dir, FOLDER)
        self._path = os.path.join(self._folder.top, name + _SUFFIX)
        self._name = name

    def write(self, content: bytes) -> None:
        """Put the file in its place, or a new one in place of the last.

        :raises: OSError
        """
        self._folder.begin()
        self._folder.make(self._folder.tmp)
        self._folder.write(self._name, content, self._path)

    def remove(self) -> None:
        """The process says no more."""
        # A forked child leaves what its parent has.
        if self._pid == os.getpid():
            paths.remove(self._path)


def read(ipc_dir: str) -> Iterator[dict[str, Any]]:
    """The documents of all files that can be read."""
    for path in _paths(ipc_dir):
        with contextlib.suppress(OSError, facts.Malformed):
            yield facts.decode(_content(path))


def sweep(ipc_dir: str) -> None:
    """Remove the files of processes that are gone for a while."""
    for path in _paths(ipc_dir):
        if _is_litter(path):
            paths.remove(path)
    oldest = time.time() - _FORGOTTEN
    with contextlib.suppress(OSError):
        for entry in os.scandir(os.path.join(ipc_dir, FOLDER, 'tmp')):
            if entry.stat(follow_symlinks=False).st_mtime < oldest:
                paths.remove(entry.path)


def _paths(ipc_dir: str) -> list[str]:
    folder = os.path.join(ipc_dir, FOLDER)
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder)
                if name.endswith(_SUFFIX)]
    except OSError:
        return []


def _content(path: str) -> bytes:
    descriptor = os.open(path, _READ_FLAGS)
    with open(descriptor, 'rb') as file:
        return file.read(facts.LONGEST_READ + 1)


def _is_litter(path: str) -> bool:
    try:
        document = facts.decode(_content(path))
    except facts.Malformed:
        document = {'stamp': '', 'process': {}}
    except OSError:
        return False
    age = _age(path, document['stamp'])
    is_gone = processes.state(document['process']) == processes.GONE
    return age > (_MOURNING if is_gone else _FORGOTTEN)


def _age(path: str, stamp: str) -> float:
    age = stamps.age_of_text(stamp)
    if age is not None:
        return age
    try:
        return time.time() - os.lstat(path).st_mtime
    except OSError:
        return 0.0
