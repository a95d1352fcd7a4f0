# SPDX-License-Identifier: Apache-2.0
"""The database of a journal: its steps, and what sqlite says of them."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from typing import Any
from typing import TypeVar

from zmq_threaded.journal import guard
from zmq_threaded.journal import reserve

T = TypeVar('T')
# Seconds for which somebody else, such as a status command, may be at it, and
# between two looks whether he still is.
_BUSY, _LOOK_EVERY = 5.0, 0.01
# Pages of 4 KiB after which the WAL goes into the database, for which the
# reserve must have room; and the bytes beyond which the file of the WAL is
# cut.
_CHECKPOINT, _LONGEST_WAL = 256, reserve.SIZE
# Unused pages beyond which the database is made shorter, and how many of them
# in one step.
_UNUSED, _AT_ONCE = 1000, 1000
# What sqlite says of a file that is broken, as against one that cannot be
# used for now; when the disk has no room; and when somebody else is at it.
_BROKEN = ('SQLITE_CORRUPT', 'SQLITE_NOTADB', 'SQLITE_ERROR',
           'SQLITE_MISMATCH', 'SQLITE_FORMAT')
_FULL = 'SQLITE_FULL', 'SQLITE_IOERR'
_LOCKED = 'SQLITE_BUSY', 'SQLITE_LOCKED'


class Unusable(Exception):
    """A file is no journal of this version, or is broken; the text says
    what it is.
    """


# What is raised by rows that say what they cannot say.
BROKEN = (Unusable, ValueError, LookupError, TypeError, ArithmeticError,
          AttributeError)


def is_broken(error: Exception) -> bool:
    """Whether an error says that a journal is of no use to anybody."""
    return isinstance(error, BROKEN) or _says(error, _BROKEN)


def is_locked(error: Exception) -> bool:
    """Whether an error says that another program is at a journal."""
    return _says(error, _LOCKED)


def _says(error, names):
    return getattr(error, 'sqlite_errorname', '').startswith(names)


class Database:
    """A database that is open.

    :param is_new: whether nothing is in it yet
    :ivar execute: that of the connection, to be called within guard.steps
    :raises: sqlite3.Error, OSError

    Thread: journal.
    """

    def __init__(self, path: str, is_new: bool = False) -> None:
        self._path = path
        self.connection = guard.connect(path)
        self.execute = self.connection.execute
        self._inode = _inode(path)
        try:
            self.step(lambda: self._set_up(is_new))
        except BaseException:
            self.close()
            raise

    def _set_up(self, is_new):
        if is_new:
            self.execute('PRAGMA auto_vacuum = INCREMENTAL').fetchall()
        self.execute('PRAGMA journal_mode = WAL').fetchall()
        self.execute(f'PRAGMA wal_autocheckpoint = {_CHECKPOINT}').fetchall()
        self.execute(f'PRAGMA journal_size_limit = {_LONGEST_WAL}').fetchall()

    def close(self) -> None:
        """Close it."""
        guard.close(self.connection)

    def step(self, step: Callable[[], T]) -> T:
        """Run a step of sqlite, when nobody else is at it.

        :raises: sqlite3.Error
        """
        give_up_at = time.monotonic() + _BUSY
        while True:
            with guard.steps:
                try:
                    return step()
                except sqlite3.Error as error:
                    if (not is_locked(error)
                            or time.monotonic() >= give_up_at):
                        raise
            time.sleep(_LOOK_EVERY)

    def add(self, write: Callable[[], Any]) -> None:
        """Write what makes it longer: all of it, or nothing. The last bytes
        of the disk are not for this.

        :raises: sqlite3.Error, OSError
        """
        self._reserve()
        self.step(lambda: self._transact(write))

    def _reserve(self):
        if not reserve.is_there(self._path):
            status = os.stat(self._path)
            reserve.make(self._path, status.st_mode & 0o777, status.st_gid)

    def remove(self, write: Callable[[], Any]) -> None:
        """Write what makes it shorter, on a full disk too: all of it, or
        nothing.

        :raises: sqlite3.Error
        """
        try:
            self.step(lambda: self._transact(write))
        except sqlite3.Error as error:
            if not _says(error, _FULL):
                raise
            reserve.give_up(self._path)
            with contextlib.suppress(sqlite3.Error):
                # The WAL begins anew, and needs no new bytes.
                self.step(lambda: self.execute(
                    'PRAGMA wal_checkpoint(RESTART)').fetchall())
            self.step(lambda: self._remove_frugally(write))

    def _remove_frugally(self, write):
        # With the default of Debian each page that is freed is written, too.
        before = self.execute('PRAGMA secure_delete').fetchone()[0]
        self.execute('PRAGMA secure_delete = FAST').fetchall()
        try:
            self._transact(write)
        finally:
            self.execute('PRAGMA secure_delete = '
                         f'{("OFF", "ON", "FAST")[before]}').fetchall()

    def _transact(self, write):
        self.execute('BEGIN IMMEDIATE')
        try:
            write()
            self.execute('COMMIT')
        except BaseException:
            # Some errors of sqlite have ended it already.
            if self.connection.in_transaction:
                self.execute('ROLLBACK')
            raise

    def shrink(self) -> None:
        """Give some of the bytes back that are not needed any more, and make
        up for the reserve if that was given up.
        """
        with guard.steps, contextlib.suppress(sqlite3.Error, OSError):
            has_reserve = reserve.is_there(self._path)
            unused = self.execute('PRAGMA freelist_count').fetchone()[0]
            pages = self.execute('PRAGMA page_count').fetchone()[0]
            if unused > (max(_UNUSED, pages / 4) if has_reserve else 0):
                # As a script: execute() would take one page.
                self.connection.executescript(
                    f'PRAGMA incremental_vacuum({_AT_ONCE})')
            if not has_reserve:
                self.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchall()
                self._reserve()

    def is_lost(self) -> bool:
        """Whether somebody has removed its file, or put another in its
        place: nobody else will find what is in it.
        """
        return _inode(self._path) != self._inode


def _inode(path):
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
