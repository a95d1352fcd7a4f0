# SPDX-License-Identifier: Apache-2.0
"""The facts of the processes of a node: a file for each, in the folder
`facts` of the IPC directory. Who may enter that directory may read them.

Beside each file is one with a lock, which says whether its process lives; see
`status.liveness`. A process of an older version has none.
"""

import contextlib
import math
import os
import time
from collections.abc import Iterator
from typing import Any

from zmq_threaded.net import paths
from zmq_threaded.registry import folders
from zmq_threaded.registry import stamps
from zmq_threaded.status import facts
from zmq_threaded.status import liveness
from zmq_threaded.status import processes
from zmq_threaded.status import unwritten

FOLDER, _SUFFIX = 'facts', '.json'
# Seconds for which the file of a process that is gone stays, so that people
# hear of that; and of one without a lock, in another PID namespace, of which
# nobody knows.
_MOURNING, _FORGOTTEN = 120.0, 600.0
# Documents, and seconds, by which one may be late. They come from the thread
# of the registry, which waits for a registry that hangs.
_DOCUMENTS, _SECONDS = 2, 5.0
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
        self._sign = liveness.Sign(self._folder, name)

    @property
    def folder(self) -> str:
        """The path of the folder."""
        return self._folder.top

    def give_sign(self) -> None:
        """Say that the process lives, whether or not there is room for a file.

        :raises: OSError
        """
        self._sign.give()

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
            # The lock comes last: a document without one is of the dead.
            paths.remove(self._path)
            self._sign.end()


def limit(document: dict[str, Any]) -> float:
    """Seconds after which a process has said nothing for too long."""
    return _DOCUMENTS * float(document['every']) + _SECONDS


def read(ipc_dir: str) -> Iterator[dict[str, Any]]:
    """The documents of all files that can be read, with what their locks say
    of the processes.
    """
    for path in _paths(ipc_dir):
        with contextlib.suppress(OSError, facts.Malformed):
            document = _read(path)
            if document['process']['lives'] is not False or os.path.lexists(
                    path):
                yield document


def sweep(ipc_dir: str) -> None:
    """Remove the files of processes that are gone for a while."""
    for path in _paths(ipc_dir):
        if _is_litter(path):
            paths.remove(path)
    for path in _paths(ipc_dir, liveness.SUFFIX):
        if not os.path.lexists(path.removesuffix(liveness.SUFFIX) + _SUFFIX
                               ) and liveness.look(path).lives is False:
            paths.remove(path)
    oldest = time.time() - _FORGOTTEN
    with contextlib.suppress(OSError):
        for entry in os.scandir(os.path.join(ipc_dir, FOLDER, 'tmp')):
            if entry.stat(follow_symlinks=False).st_mtime < oldest:
                paths.remove(entry.path)


def _paths(ipc_dir: str, suffix: str = _SUFFIX) -> list[str]:
    folder = os.path.join(ipc_dir, FOLDER)
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder)
                if name.endswith(suffix)]
    except OSError:
        return []


def _read(path: str) -> dict[str, Any]:
    document = facts.decode(_content(path))
    seen = liveness.look(path.removesuffix(_SUFFIX) + liveness.SUFFIX)
    document['process']['lives'] = seen.lives
    document['silent'] = age = stamps.age_of_text(document['stamp'])
    # The stamp says whether the clock of the lock is that of this process.
    if age is None or math.isinf(age) or seen.silent is None:
        return document
    document['silent'] = min(age, seen.silent)
    if document['silent'] <= limit(document) < age:
        document['findings'].append(unwritten.finding(
            os.path.dirname(path), age - document['silent']))
    return document


def _content(path: str) -> bytes:
    descriptor = os.open(path, _READ_FLAGS)
    with open(descriptor, 'rb') as file:
        return file.read(facts.LONGEST_READ + 1)


def _is_litter(path: str) -> bool:
    try:
        document = _read(path)
    except facts.Malformed:
        document = {'stamp': '', 'process': {}}
    except OSError:
        return False
    if document['process'].get('lives'):
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
