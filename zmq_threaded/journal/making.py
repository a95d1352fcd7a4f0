# SPDX-License-Identifier: Apache-2.0
"""Makes the journal of a driver, and ends it."""

import contextlib
import os
import sqlite3

from zmq_threaded import logs
from zmq_threaded.journal import file as files
from zmq_threaded.journal import locks
from zmq_threaded.journal import place as places
from zmq_threaded.journal import reserve

LOG = logs.get(__name__)


def create(place: places.Place, maker: bytes, is_synced: bool,
           number: int = 0) -> files.JournalFile:
    """A new journal, whose lock this process has.

    :param number: how many this process had before
    :raises: OSError, sqlite3.Error
    """
    place.ensure()
    mode, gid = place.mode()
    path = place.new(maker, number)
    locks.create(places.lock_of(path), mode, gid)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                     0o600)
        try:
            locks.open_up(fd, mode, gid)
        finally:
            os.close(fd)
        reserve.make(path, mode, gid)
        made = files.JournalFile(path, is_synced, place.registry, is_new=True)
        _open_up_beside(path, mode, gid)
        if is_synced:
            _sync(place.path)
        return made
    except BaseException:
        places.remove(path)
        locks.release(places.lock_of(path))
        raise


def end(own: files.JournalFile) -> None:
    """Close the journal of this process, and remove it if it is empty."""
    try:
        is_needed = not own.is_empty() or bool(own.pools())
        if not own.is_empty():
            LOG.warning('zmq: what was not acknowledged stays in %s '
                        '(messages: %d), until a process with the same '
                        'registry and directory adopts it', own.path,
                        own.count)
        own.close()
        if not is_needed:
            places.remove(own.path)
    except sqlite3.Error as error:
        LOG.error('zmq: %s: %s', own.path, error)
    finally:
        locks.release(places.lock_of(own.path))


def report_lost(own: files.JournalFile, place: places.Place) -> None:
    """Somebody has removed the journal of this process."""
    LOG.error('The journal %s was removed, or replaced, while this process '
              'used it. Messages of which only this process knows now: %d. '
              'They are lost if it dies. New ones go into another journal. '
              'What to do: see who removes files in %s, or name another '
              'directory (rpc_zmq_custody_dir)', own.path, own.count,
              place.path)
    locks.release(places.lock_of(own.path))


def _open_up_beside(path, mode, gid):
    # sqlite gives them the mode of the database, but not its group.
    for beside in places.files_of(path)[1:]:
        with contextlib.suppress(OSError):
            locks.open_up(beside, mode, gid)


def _sync(directory):
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
