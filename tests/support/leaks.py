# SPDX-License-Identifier: Apache-2.0
"""Counting what a driver must give back."""

import contextlib
import gc
import os
import threading
import time

from zmq_threaded.net import accept_gate
from zmq_threaded.status import liveness


def threads():
    """Our threads that run, libzmq's own (named by it) included."""
    ours = {thread.name for thread in threading.enumerate()
            if thread.name.startswith('zmq')}
    return ours | {f'libzmq {task}' for task in _tasks() if _is_zmq(task)}


def _tasks():
    return os.listdir('/proc/self/task')


def _is_zmq(task):
    with contextlib.suppress(OSError):
        with open(f'/proc/self/task/{task}/comm') as comm:
            return comm.read().startswith('ZMQ')
    return False


def descriptors():
    """How many file descriptors are open."""
    return len(os.listdir('/proc/self/fd'))


def descriptors_of(pid):
    """How many are open in another process, but for the locks of its facts,
    which come a second after its start.
    """
    found = 0
    for name in os.listdir(f'/proc/{pid}/fd'):
        with contextlib.suppress(OSError):
            found += not os.readlink(f'/proc/{pid}/fd/{name}').endswith(
                liveness.SUFFIX)
    return found


def children():
    """Pids of the children of this process."""
    with open(f'/proc/self/task/{os.getpid()}/children') as pids:
        return set(pids.read().split())


def ipc_files(ipc_dir):
    return {
        name
        for name in os.listdir(ipc_dir)
        if name.endswith(
            ('.sock', '.closing', accept_gate.PLACEHOLDER, accept_gate.NEXT)
        )
    }


@contextlib.contextmanager
def nothing_left(ipc_dir, seconds=10.0):
    """Fail if more is there afterwards than before, a grace time after."""
    gc.collect()
    before = (threads(), descriptors(), children())
    yield
    deadline = time.monotonic() + seconds
    while True:
        gc.collect()
        left = {'threads': threads() - before[0],
                'descriptors': max(0, descriptors() - before[1]),
                'children': children() - before[2],
                'ipc files': ipc_files(ipc_dir)}
        if not any(left.values()):
            return
        assert time.monotonic() < deadline, f'left behind: {left}'
        time.sleep(0.01)
