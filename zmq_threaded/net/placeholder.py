# SPDX-License-Identifier: Apache-2.0
"""A listening Unix socket to which only this process can connect."""

import io
import os
import socket as sockets

from zmq_threaded.net import paths

_FOR_US = 0o600


class Placeholder:
    """Who connects rings it: then epoll finds it readable.

    Its file is removed at once, so that nobody else can remove or replace
    it. To an inode without a name leads a descriptor of the kind O_PATH, by
    its name in /proc. Without /proc the file stays.

    :param path: in a directory in which a file can be made
    :raises: OSError

    Thread: any, one at a time.
    """

    def __init__(self, path):
        self._path = self._dialer = path
        self._socket = listening(path, 1, _FOR_US)
        try:
            self._inode = io.FileIO(os.open(
                path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW))
        except OSError:
            close(self._socket, path)
            raise
        way = f'/proc/self/fd/{self._inode.fileno()}'
        if os.path.exists(way):
            self._dialer = way
            paths.remove(path)

    def fileno(self):
        return self._socket.fileno()

    def ring(self, ring):
        """:param ring: a Unix socket, which is connected
        :raises: OSError
        """
        ring.connect(self._dialer)

    def silence(self):
        """Take back one ring.

        :raises: OSError when there is none
        """
        self._socket.accept()[0].close()

    def close(self):
        self.abandon()
        if self._dialer == self._path:
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
    listening = sockets.socket(sockets.AF_UNIX)
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
