# SPDX-License-Identifier: Apache-2.0
"""Processes of this machine, as /proc shows them."""

import functools
import os
import pwd
import socket
import sys
import threading
import time
from importlib import metadata
from typing import Any

from zmq_threaded import options
from zmq_threaded import texts
from zmq_threaded import wire

RUNS, STOPPED, GONE, UNKNOWN = 'runs', 'stopped', 'gone', 'unknown'
_TICKS = os.sysconf('SC_CLK_TCK')
# In /proc/PID/stat, behind the name: the state, and when the process began.
_STATE, _BEGAN = 0, 19
_STANDS_STILL, _DEAD = 'Tt', 'ZX'
_NAME = 100


def configured(settings: options.Settings, ipc_dir: str,
               descriptors_left: int) -> dict[str, Any]:
    """What this process is, and how it is configured."""
    return {**myself(), 'host': settings.host,
            'topology': settings.topology,
            'encryption': settings.encryption,
            'bridge': settings.bridge_send if settings.bridge else '',
            'ipc_dir': ipc_dir, 'threads': threading.active_count(),
            'descriptors_left': descriptors_left}


def myself() -> dict[str, Any]:
    """What this process is, as its facts say it."""
    began = _stat('self')[1]
    return {
        'name': _name(), 'pid': os.getpid(), 'pid_space': _pid_space(),
        'began': began, 'user': _user(), 'up': _up(began),
        'version': version(), 'protocol': f'{wire.MAJOR}.{wire.MINOR}',
        'machine': socket.gethostname()}


def state(process: dict[str, Any]) -> str:
    """What becomes of a process of this machine.

    :param process: pid, pid_space and began, as its facts say it; and lives,
        as its lock does
    :returns: RUNS, STOPPED, GONE, or UNKNOWN for a process of another
        machine, or one of another container whose lock does not say that it
        is gone
    """
    if process.get('lives') is False:
        return GONE
    if not process.get('began') or process.get('pid_space') != _pid_space():
        return UNKNOWN
    found, began = _stat(process['pid'])
    if began != process['began'] or found in _DEAD:
        return GONE
    return STOPPED if found in _STANDS_STILL else RUNS


@functools.cache
def version() -> str:
    """The release of this package; '' if it is not installed."""
    try:
        return metadata.version('zmq-threaded')
    except metadata.PackageNotFoundError:
        return ''


def _name() -> str:
    """The name of the program, without its arguments."""
    path = sys.argv[0] if sys.argv else ''
    name = os.path.basename(path)
    if name == '__main__.py':
        name = os.path.basename(os.path.dirname(path))
    return texts.line(name if name not in ('', '-c', '-m')
                      else os.path.basename(sys.executable), _NAME)


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _pid_space() -> int:
    try:
        return os.stat('/proc/self/ns/pid').st_ino
    except OSError:
        return 0


def _up(began: int) -> float:
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return round(max(0.0, since_boot - began / _TICKS), 1)


def _stat(pid: object) -> tuple[str, int]:
    """(state, when it began in clock ticks); ('X', 0) of one that is gone."""
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8',
                  errors='replace') as text:
            fields = text.read().rpartition(')')[2].split()
        return fields[_STATE], int(fields[_BEGAN])
    except (OSError, ValueError, IndexError):
        return 'X', 0
