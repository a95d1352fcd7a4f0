# SPDX-License-Identifier: Apache-2.0
"""Forks and sqlite: no process is forked in the middle of a step of sqlite,
and a child never closes a connection of its parent.

A fork in the middle of a step would leave the child the locks of sqlite in a
state that nobody ends. To close an inherited connection could remove the WAL
of the parent: so a child keeps each of them for ever, untouched.
"""

import ctypes
import os
import sqlite3
import threading
from urllib import parse

# Held by whoever is at a step of sqlite. Reentrant, for a thread may fork
# while it is at one.
steps = threading.RLock()
# The connections of this process, by identity, each with the path of its
# database.
_open: dict[int, tuple[sqlite3.Connection, str]] = {}
# Paths of the databases that this process has inherited: sqlite would take
# the parent's locks of them for its own.
_inherited: set[str] = set()


def connect(path: str) -> sqlite3.Connection:
    """Open a database that exists, for reading and writing. No step waits for
    another process that is at it: forks would wait for the step.

    :raises: sqlite3.Error
    """
    with steps:
        connection = sqlite3.connect(
            f'file:{parse.quote(path)}?mode=rw', uri=True, timeout=0.0,
            isolation_level=None, check_same_thread=False)
        _open[id(connection)] = connection, path
        return connection


def close(connection: sqlite3.Connection) -> None:
    """Close a connection of this process."""
    with steps:
        if _open.pop(id(connection), None) is not None:
            connection.close()


def is_inherited(path: str) -> bool:
    """Whether a parent of this process had the database open at the fork."""
    return path in _inherited


def _in_child():
    for connection, path in _open.values():
        _inherited.add(path)
        # Never to be collected, not even at the end of the interpreter.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    _open.clear()
    steps.release()


os.register_at_fork(before=steps.acquire, after_in_parent=steps.release,
                    after_in_child=_in_child)
