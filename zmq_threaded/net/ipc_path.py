# SPDX-License-Identifier: Apache-2.0
"""The Unix socket on which a service or a receiver listens: its file.

Anybody who may write to the directory can remove the file: a cleaner of
temporary files, systemd's RuntimeDirectory= of another unit, an operator. The
connections that exist live on, but nobody new can connect. So the owner looks
at the file about once a second, and makes it anew when it is gone.

A missing file therefore says nothing. An owner that closes says so by another
name of the file, for which clients look (endpoints.is_closing()).
"""

import contextlib
import os

from zmq_threaded import counters as counts
from zmq_threaded import endpoints
from zmq_threaded import logs
from zmq_threaded.net import binding
from zmq_threaded.net import paths

LOG = logs.get(__name__)


class IpcPath:
    """One bound path.

    :param path: where the socket is to be
    :param owner: who listens there, for the log
    :param is_shared: another process may have a right to this path; then it
        is not taken from one that listens there

    Thread: the owner of the socket (or of its lock) for bind() and
    restore(), any for the rest.
    """

    def __init__(self, path, owner, is_shared=False):
        self.path = path
        self._marker = endpoints.closing_marker(path)
        self._owner = owner
        self._is_shared = is_shared
        self._folder = None
        self._was_bound = self._is_closing = self._has_told = False
        self._is_marked = False
        self._may_warn = counts.Seldom(60.0)

    def bind(self, socket):
        """Bind a ROUTER to the path.

        If the disk is full, it is bound as soon as there is room: see
        restore().

        :raises: binding.BindError
        :returns: the endpoint
        """
        endpoint = f'ipc://{self.path}'
        self._folder = _status(os.path.dirname(self.path))
        try:
            binding.bind_ipc(socket, self.path)
        except binding.BindError as error:
            if not error.is_full:
                raise
            self._tell_of_failure(error)
        else:
            self._was_bound = True
        # Of a predecessor that was killed while it closed.
        paths.remove(self._marker)
        return endpoint

    def is_lost(self):
        """Whether the file is gone, or is another one's."""
        return not self._is_closing and not binding.holds_ipc(self.path)

    def restore(self, socket):
        """Make the file anew, and bind the socket if it never was.

        :returns: whether it is there
        """
        if self._is_closing:
            return False
        try:
            if self._is_shared and _is_listened_to(self.path):
                raise binding.BindError('another process listens there now')
            self._make_folder()
            if not binding.reopen_ipc(self.path):
                binding.bind_ipc(socket, self.path)
        except binding.FAILURES as error:
            self._tell_of_failure(error)
            return False
        if self._is_closing:
            binding.unbind_ipc(self.path)   # began in between
        self._tell()
        return True

    def _make_folder(self):
        folder = os.path.dirname(self.path)
        if self._folder is None or os.path.isdir(folder):
            return
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        try:
            os.mkdir(folder)
        except FileExistsError:
            return      # another process had the same thought
        # The group first: a change of it takes away the bit for the group.
        with contextlib.suppress(OSError):
            os.chown(folder, -1, self._folder.st_gid)
        os.chmod(folder, self._folder.st_mode & 0o7777)

    def _tell(self):
        if not self._was_bound:
            self._was_bound = True
            LOG.info('The socket file of %s, %s, is made: there is room',
                     self._owner, self.path)
            return
        log = LOG.debug if self._has_told else LOG.warning
        self._has_told = True
        log('The socket file of %s, %s, was removed or replaced while it was '
            'in use; it was made anew. Something cleans that directory: a '
            'cleaner of temporary files, or RuntimeDirectory= of another '
            'unit. Exclude the directory from that (tmpfiles.d: "x %s"), or '
            'set rpc_zmq_ipc_dir to one that nobody cleans.', self._owner,
            self.path, os.path.dirname(self.path))

    def _tell_of_failure(self, error):
        if self._may_warn.allows():
            LOG.warning(
                'The socket file of %s, %s, is missing and cannot be made: '
                '%s. Nobody new can connect to it; those who are connected go '
                'on. It is tried again every second. See that the directory '
                '(rpc_zmq_ipc_dir) is there, has room, and may be written to '
                'by this user.', self._owner, self.path, error)

    def announce_end(self):
        """From now on clients send nothing more, though they are connected
        still.
        """
        self._is_closing = True
        try:
            if not self._is_marked:
                self._mark()
        finally:
            # However often an exception came by: the socket may be closed
            # only when nobody is being let in.
            binding.unbind_ipc(self.path)

    def _mark(self):
        try:
            if not binding.holds_ipc(self.path):
                raise FileNotFoundError
            os.rename(self.path, self._marker)
            os.utime(self._marker)      # by which sweep.py knows its age
        except OSError:
            self._make_marker()
        self._is_marked = True

    def _make_marker(self):
        with contextlib.suppress(OSError):
            os.close(os.open(self._marker, os.O_CREAT | os.O_CLOEXEC, 0o660))

    def remove(self):
        """Take away what is left of it, when no connection is left."""
        self._is_closing = self._is_marked = True
        binding.unbind_ipc(self.path)
        paths.remove(self._marker)


def _status(path):
    try:
        return os.lstat(path)
    except OSError:
        return None


def _is_listened_to(path):
    endpoint = f'ipc://{path}'
    return endpoints.is_there(endpoint) and not endpoints.is_dead(endpoint)
