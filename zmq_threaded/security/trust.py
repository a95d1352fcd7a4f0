# SPDX-License-Identifier: Apache-2.0
"""Which public keys are trusted: those in a directory."""

import os
import stat
import threading

from zmq_threaded import logs
from zmq_threaded.security import keys

LOG = logs.get(__name__)


class TrustedKeys:
    """The public keys in the files of a directory that end with ``.key``.

    :ivar removals: grows with each change that takes a key away
    :param directory: its path
    :raises: keys.BadKey if the directory cannot be read

    Thread: any. A look costs no system call; refresh() looks at the files.
    """

    def __init__(self, directory: str) -> None:
        self.removals = 0
        self._directory = directory
        # Reentrant for the sake of signal handlers.
        self._lock = threading.RLock()
        self._files: dict[str, tuple[tuple[int, ...], bytes | None]] = {}
        self._keys: frozenset[bytes] = frozenset()
        self._trouble = ''
        self._take(self._read())

    def is_trusted(self, public: bytes) -> bool:
        """Whether the key, Z85 text of 40 bytes, is in the directory."""
        return public in self._keys

    def refresh(self) -> bool:
        """Look at the files again, and read those that have changed.

        While the directory itself cannot be read, the keys stay as they are.

        :returns: whether a key came or went
        """
        with self._lock:
            try:
                return self._take(self._read())
            except keys.BadKey as error:
                self._complain(f'{error}. The keys that were there before '
                               'stay trusted')
                return False

    def _take(self, files):
        self._files = files
        found = frozenset(key for _, key in files.values() if key)
        changed = found != self._keys
        if changed:
            is_removal = bool(self._keys - found)
            self._keys = found
            self.removals += is_removal
        return changed

    def _read(self):
        """By name: what tells a change of the file, and its key."""
        try:
            _check_mode(self._directory)
            with os.scandir(self._directory) as entries:
                names = sorted(entry.name for entry in entries
                               if entry.name.endswith(keys.PUBLIC_SUFFIX))
        except OSError as error:
            raise keys.BadKey(
                f'{self._directory}: the directory of trusted keys cannot be '
                f'read: {error.strerror}') from None
        self._trouble = ''
        return {name: self._file(name) for name in names}

    def _file(self, name):
        path = os.path.join(self._directory, name)
        stamp = keys.file_stamp(path)
        known = self._files.get(name)
        if known and known[0] == stamp:
            return known
        try:
            _check_file(path)
            return stamp, keys.read_public(path)
        except keys.BadKey as error:
            LOG.warning('%s. Nobody with that key is let in', error)
            return stamp, None

    def _complain(self, text):
        # Once for each trouble: refresh() is called every second.
        if text != self._trouble:
            LOG.error('%s', text)
        self._trouble = text


def _check_mode(directory):
    mode = os.stat(directory).st_mode
    if mode & stat.S_IWOTH:
        raise keys.BadKey(
            f'{directory}: every user may put keys into this directory of '
            f'trusted keys. Do "chmod o-w {directory}"')


def _check_file(path):
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return      # whoever reads it says so
    if not stat.S_ISREG(mode):
        # To open a pipe would wait for ever.
        raise keys.BadKey(f'{path}: it is no file')
    if mode & stat.S_IWOTH:
        raise keys.BadKey(
            f'{path}: every user may change this trusted key. Do "chmod o-w '
            f'{path}", and look whether it is still the right one')
