# SPDX-License-Identifier: Apache-2.0
"""TCP ports for servers of tests."""

import contextlib
import random
import socket


def free_ports(count):
    """A range of free ports, below those that the kernel hands out: nothing
    takes one by chance while its server is restarted.
    """
    for first in random.sample(range(15000, 30000, count), 100):
        ports = range(first, first + count)
        with contextlib.suppress(OSError), contextlib.ExitStack() as taken:
            for port in ports:
                taken.enter_context(socket.create_server(('', port)))
            return ports
    raise AssertionError('no free ports')


def free_port():
    return free_ports(1)[0]


def is_taken(port):
    """Whether somebody listens on a port of this machine."""
    with contextlib.suppress(OSError):
        socket.create_connection(('127.0.0.1', port), 1).close()
        return True
    return False
