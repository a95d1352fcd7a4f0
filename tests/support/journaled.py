# SPDX-License-Identifier: Apache-2.0
"""Senders in processes of their own, and the journals that they leave."""

import os

from tests.support import processes
from zmq_threaded.journal import place


def sender(node, **query):
    """A client in a process of its own; see client_main.py."""
    process = processes.ServerProcess(
        node.ipc_dir, 'client_main.py', node.url(**query))
    node.closing(process.end)
    return process


def names(node):
    """The names of the journals in the IPC directory of a node."""
    folder = os.path.join(node.ipc_dir, place.FOLDER)
    found = os.listdir(folder) if os.path.isdir(folder) else []
    return [name for name in found if name.endswith(place.SUFFIX)]
