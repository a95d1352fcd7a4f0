# SPDX-License-Identifier: Apache-2.0
"""Services and receivers that close while clients are being let in.

Arguments: the IPC directory, how they end. It says 'well'.
"""

import contextlib
import os
import random
import signal
import sys
import threading

import native_threads

native_threads.use_native_threads()

import zmq  # noqa: E402

from tests.support import ports  # noqa: E402
from tests.support import rpc  # noqa: E402
from zmq_threaded.net import binding  # noqa: E402
from zmq_threaded.receiver import receiver as receivers  # noqa: E402

_COUNT = 50


class Interruption(Exception):
    """What a signal handler raises."""


def bare(node):
    for turn in range(4):
        with zmq.Context() as context:
            routers = {}
            for number in range(_COUNT):
                path = os.path.join(node.ipc_dir, f'{turn}-{number}.sock')
                routers[path] = context.socket(zmq.ROUTER)
                binding.bind_ipc(routers[path], path)
            for path, router in routers.items():
                binding.unbind_ipc(path)
                router.close(linger=0)


def _services(node, count=_COUNT):
    parts = node.runtime()
    found = [parts.service([]) for _ in range(count)]
    for each in found:
        each.start(lambda messages: None)
    return parts, found


def services(node):
    _, found = _services(node)
    threads = [threading.Thread(target=each.cleanup) for each in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _interrupt(number, frame):
    raise Interruption


def interrupted(node):
    """An exception of a signal handler comes by at any line of cleanup()."""
    _, found = _services(node, 15)
    signal.signal(signal.SIGALRM, _interrupt)
    for each in found:
        for _ in range(4):
            with contextlib.suppress(Interruption):
                signal.setitimer(signal.ITIMER_REAL,
                                 random.uniform(0.0005, 0.15))
                each.cleanup()
            signal.setitimer(signal.ITIMER_REAL, 0)
        each.cleanup()


def unjoined(node):
    """Their threads do not end in time."""
    parts, found = _services(node)
    for each in found[::2]:
        each._poller.join = lambda deadline: False
    parts.close(0)


def at_exit(node):
    """Nobody cleans up."""
    _services(node)
    for number in range(5):
        node.server(server=f'server-{number}')


def unmade(node):
    """The constructor of a service fails after it was bound."""
    parts = node.runtime()
    for _ in range(_COUNT):
        with contextlib.suppress(Interruption):
            parts.service([_Unprintable()])


class _Unprintable:
    server = ''

    def __init__(self):
        self._is_first = True

    def __str__(self):
        # At the first time, before it is bound, it is.
        if self._is_first:
            self._is_first = False
            return 'x'
        raise Interruption


def receiver(node):
    for _ in range(15):
        settings = node.settings(
            rpc_zmq_topology='receiver', rpc_zmq_bind_address='127.0.0.1',
            rpc_zmq_host='127.0.0.1', rpc_zmq_port=ports.free_port(),
            zmq_linger=0)
        one = receivers.Receiver(settings, node.ipc_dir)
        one.start()
        one.stop()


def main(directory, how):
    if how == 'at_exit':
        at_exit(rpc.Node(directory))
        print('well', flush=True)
        return
    with rpc.Node(directory) as node:
        globals()[how](node)
    print('well', flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
