# SPDX-License-Identifier: Apache-2.0
"""Clearing away what killed processes left in the IPC directory.

Neither libzmq nor tooz's file driver does it. Whoever starts a service sweeps
once; what is young stays, for its owner may be about to use it.
"""

import contextlib
import os
import time

from zmq_threaded import door
from zmq_threaded import sockets

# A record that nobody renewed for so many expiry times is litter.
_EXPIRY_TIMES = 10
# Between bind() and listen() a live socket refuses connections as a dead one.
_BIND_TO_LISTEN = 60


def sweep(ipc_dir, expire):
    """Remove dead records, empty groups and dead sockets.

    :param expire: seconds after which a record that is not renewed is void
    """
    for part in 'groups', 'tmp':
        _sweep_registry(os.path.join(ipc_dir, 'registry', part),
                        time.time() - _EXPIRY_TIMES * expire)
    _sweep_sockets(ipc_dir, time.time() - _BIND_TO_LISTEN)


def _sweep_registry(groups, oldest):
    for folder, _, names in os.walk(groups, topdown=False):
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith('.raw') and _is_older(path, oldest):
                _remove(path)
        if folder != groups and _is_older(folder, oldest):
            _remove_empty_group(folder)


def _remove_empty_group(folder):
    # The folder's time is that of its last join or leave, so nobody is about
    # to join; who does at this very moment finds out with the next beat.
    with contextlib.suppress(OSError):
        if os.listdir(folder) == ['.metadata']:
            os.unlink(os.path.join(folder, '.metadata'))
            os.rmdir(folder)


def _sweep_sockets(ipc_dir, oldest):
    for entry in os.scandir(ipc_dir):
        if (entry.name.endswith(('.sock', '.closing'))
                and _is_older(entry.path, oldest)
                and sockets.is_dead(f'ipc://{entry.path}')):
            _remove(entry.path)
    for entry in os.scandir(ipc_dir):
        stem, kind = os.path.splitext(entry.path)
        # Without the address nobody can ring.
        if (kind in (door.BELL, door.NEXT) and _is_older(entry.path, oldest)
                and not os.path.exists(stem + '.sock')):
            _remove(entry.path)


def _is_older(path, oldest):
    try:
        return os.lstat(path).st_mtime < oldest
    except OSError:
        return False


def _remove(path):
    with contextlib.suppress(OSError):
        os.unlink(path)
