# SPDX-License-Identifier: Apache-2.0
"""A listening Unix socket to which only this process can connect."""

import io
import os
import socket as system_socket

from zmq_threaded.net import paths

_FOR_US = 0o600


class Placeholder:
    """A listening socket that stands in libzmq's epoll for a queue of
    clients. A connection to it, the ring, makes epoll find it readable.

    The file of the socket is removed at once, so that nobody else can remove
    or replace it. A descriptor of the kind O_PATH then leads to the inode
    without a name, by the name of the descriptor in /proc. Without /proc the
    file stays.

    :param path: in a directory in which a file can be made
    :raises: OSError

    Thread: any, one at a time.
    """

    def __init__(self, path):
        self._path = self._connect_path = path
        self._socket = listening(path, 1, _FOR_US)
        try:
            self._inode = io.FileIO(os.open(
                path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW))
        except OSError:
            close(self._socket, path)
            raise
        in_proc = f'/proc/self/fd/{self._inode.fileno()}'
        if os.path.exists(in_proc):
            self._connect_path = in_proc
            paths.remove(path)

    def fileno(self):
        return self._socket.fileno()

    def ring(self, ring):
        """Connect, so that epoll finds the placeholder readable.

        :param ring: a Unix socket that is not connected yet
        :raises: OSError
        """
        ring.connect(self._connect_path)

    def silence(self):
        """Take back one ring.

        :raises: OSError when there is none
        """
        self._socket.accept()[0].close()

    def close(self):
        self.abandon()
        if self._connect_path == self._path:
            paths.remove(self._path)

    def abandon(self):
        """As close(), but the file is the parent's."""
        self._socket.close()
        self._inode.close()


def listening(path, backlog, mode):
    """A non-blocking socket that listens on a path.

    :param mode: of its file
    :raises: OSError
    """
    paths.remove(path)
    listening = system_socket.socket(system_socket.AF_UNIX)
    try:
        listening.setblocking(False)
        listening.bind(path)
        os.chmod(path, mode)
        listening.listen(backlog)
    except OSError:
        close(listening, path)
        raise
    return listening


def close(listening, path):
    listening.close()
    paths.remove(path)
