# SPDX-License-Identifier: Apache-2.0
"""Which public keys are trusted: those in a directory."""

import dataclasses
import math
import os
import stat
import threading
import time

from zmq_threaded import logs
from zmq_threaded.security import keys

LOG = logs.get(__name__)

# Seconds for which a file that is being written keeps the key that it had.
_GRACE = 10.0


@dataclasses.dataclass(slots=True, frozen=True)
class _File:
    """One file of the directory.

    :ivar stamp: what tells a change of the file
    :ivar key: the key that the file has, or had; None for no trusted key
    :ivar until: monotonic seconds until which the key stays trusted although
        the file does not have the key any more
    """

    stamp: tuple[int, ...]
    key: bytes | None
    until: float = math.inf


class TrustedKeys:
    """The public keys in the files of a directory that end with ``.key``.

    A file without a key, which had one, may be half written: its key stays
    trusted for ten seconds. The key of a file that is removed, or that has
    another key, goes at once.

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
        self._files: dict[str, _File] = {}
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
        found = frozenset(file.key for file in files.values() if file.key)
        changed = found != self._keys
        if changed:
            is_removal = bool(self._keys - found)
            self._keys = found
            self.removals += is_removal
        return changed

    def _read(self):
        """By name: the _File."""
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
        if (known and known.stamp == stamp
                and time.monotonic() < known.until):
            return known
        try:
            return _File(stamp, read_public(path))
        except keys.NoKey as error:
            return self._half_written(stamp, known, error)
        except keys.BadKey as error:
            return _without_key(stamp, error)

    @staticmethod
    def _half_written(stamp, known, error):
        if not (known and known.key):
            return _without_key(stamp, error)
        if known.until == math.inf:
            LOG.warning('%s. The file may be half written, so the key that '
                        'the file had before stays trusted for %.0f s. To '
                        'revoke a key, remove its file', error, _GRACE)
            return _File(stamp, known.key, time.monotonic() + _GRACE)
        if time.monotonic() < known.until:
            return dataclasses.replace(known, stamp=stamp)
        return _without_key(stamp, error)

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


def _without_key(stamp, error):
    LOG.warning('%s. Nobody with that key is let in', error)
    return _File(stamp, None)


def read_public(path: str) -> bytes:
    """The public key in a file, if the key may be trusted.

    :raises: keys.BadKey, also when every user may change the file; keys.NoKey
        when somebody may be writing the file
    """
    if _is_everybodys(path):
        raise keys.BadKey(
            f'{path}: every user may change this trusted key. Do "chmod o-w '
            f'{path}", and look whether it is still the right one')
    return keys.read_public(path)


def _is_everybodys(path):
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False        # whoever reads it says so
    return stat.S_ISREG(mode) and bool(mode & stat.S_IWOTH)
