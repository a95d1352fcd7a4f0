# SPDX-License-Identifier: Apache-2.0
"""Clearing away what killed processes left in the IPC directory.

Neither libzmq nor tooz's file driver does it. Whoever starts a service sweeps
once. What is young stays, for its owner may be about to use it.
"""

import contextlib
import os
import time

from zmq_threaded import endpoints
from zmq_threaded.net import accept_gate
from zmq_threaded.net import paths
from zmq_threaded.registry import record
from zmq_threaded.registry import record_files
from zmq_threaded.registry import stamps

# A record that nobody renewed for so many expiry times is litter.
_EXPIRY_TIMES = 10
# Between bind() and listen() a live socket refuses connections as a dead one.
_BIND_TO_LISTEN = 60


def sweep(ipc_dir: str, expire: float) -> None:
    """Remove dead records, empty groups and dead sockets.

    :param expire: seconds after which a record that is not renewed is void
    """
    registry = os.path.join(ipc_dir, 'registry')
    life = _EXPIRY_TIMES * expire
    _sweep_groups(os.path.join(registry, 'groups'), life)
    _sweep_unfinished(os.path.join(registry, 'tmp'), time.time() - life)
    _sweep_sockets(ipc_dir, time.time() - _BIND_TO_LISTEN)


def _sweep_groups(groups: str, life: float) -> None:
    oldest = time.time() - life
    for folder, _, names in os.walk(groups, topdown=False):
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(record_files.SUFFIX) and _is_litter(path, life):
                paths.remove(path)
        if folder != groups and _is_older(folder, oldest):
            # Who is about to join it at this very moment makes it again.
            with contextlib.suppress(OSError):
                record_files.remove_empty_group(folder)


def _is_litter(path: str, life: float) -> bool:
    """By the stamp of a record, if it has one: the time of a file says
    nothing once the clock was set.
    """
    try:
        content, _ = record_files.read(path)
        age = stamps.age(content.get('stamp'))
    except (OSError, record.Malformed):
        age = None
    return _is_older(path, time.time() - life) if age is None else age > life


def _sweep_unfinished(folder: str, oldest: float) -> None:
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if _is_older(entry.path, oldest):
                paths.remove(entry.path)


def _sweep_sockets(ipc_dir: str, oldest: float) -> None:
    for entry in os.scandir(ipc_dir):
        if (entry.name.endswith(('.sock', '.closing'))
                and _is_older(entry.path, oldest)
                and endpoints.is_dead(f'ipc://{entry.path}')):
            paths.remove(entry.path)
    for entry in os.scandir(ipc_dir):
        stem, kind = os.path.splitext(entry.path)
        # Without the address nobody can ring.
        if (kind in (accept_gate.PLACEHOLDER, accept_gate.NEXT)
                and _is_older(entry.path, oldest)
                and not os.path.exists(stem + '.sock')):
            paths.remove(entry.path)


def _is_older(path: str, oldest: float) -> bool:
    try:
        return os.lstat(path).st_mtime < oldest
    except OSError:
        return False
