# SPDX-License-Identifier: Apache-2.0
"""Which topics of the embedded registry have changed, told by the kernel.

Nothing depends on a notice: who misses one looks the topic up later.
"""

import contextlib
import os

from zmq_threaded import logs
from zmq_threaded.net import inotify
from zmq_threaded.registry import record_files

LOG = logs.get(__name__)

_IN_A_GROUP = inotify.MOVED_TO | inotify.MOVED_FROM | inotify.DELETED
_OF_GROUPS = _IN_A_GROUP | inotify.CREATED


class NoNotices:
    """Those of an engine that gives none.

    Thread: any.
    """

    fd: int | None = None

    def watch(self, key: str) -> bool:
        """Nothing is told of this topic."""
        return True

    def forget(self, key: str) -> None:
        """Nothing is told of this topic."""

    def read(self) -> set[str]:
        """No topics."""
        return set()

    def close(self) -> None:
        """Nothing is open."""


class FolderNotices:
    """The folders of the groups that somebody looks up, and their parent.

    :param groups: path of the folder of all groups
    :ivar fd: readable when there is a notice; None when there are none to be
        had, for the kernel limits them for each user

    Thread: registry; also its engine's thread for watch().
    """

    def __init__(self, groups: str) -> None:
        self._groups = groups
        self._parent: int | None = None
        self._keys: dict[str, str] = {}
        self._watched: dict[int, str] = {}
        self.fd: int | None = None
        try:
            self._inotify: inotify.Inotify | None = inotify.Inotify()
            self.fd = self._inotify.fd
        except OSError as error:
            self._inotify = None
            LOG.debug('zmq: services that come back are found later, for '
                      'the kernel gives no notice of files: %s', error)

    def watch(self, key: str) -> bool:
        """Tell of this topic. To be called before each look-up of it, for
        the folders may be others than before.

        :returns: False if the folder of all groups is missing
        """
        name = record_files.safe(key.encode())
        self._keys[name] = key
        if self._inotify is None:
            return True
        try:
            self._parent = self._inotify.watch(self._groups, _OF_GROUPS)
        except OSError:
            return False
        with contextlib.suppress(OSError):      # nobody is in the group
            self._watched[self._inotify.watch(
                os.path.join(self._groups, name), _IN_A_GROUP)] = key
        return True

    def forget(self, key: str) -> None:
        """Tell nothing of this topic any more."""
        self._keys.pop(record_files.safe(key.encode()), None)
        for number, watched in list(self._watched.items()):
            if watched == key and self._inotify is not None:
                del self._watched[number]
                self._inotify.unwatch(number)

    def read(self) -> set[str]:
        """The keys of the topics that may have changed."""
        found: set[str | None] = set()
        for notice in self._inotify.read() if self._inotify else ():
            found |= self._changed(*notice)
        return {key for key in found if key is not None}

    def _changed(self, number: int, event: int,
                 name: str) -> set[str | None]:
        if event & inotify.OVERFLOW:
            return set(self._keys.values())
        if event & inotify.IGNORED:     # the folder is gone
            if number == self._parent:
                return set(self._keys.values())
            return {self._watched.pop(number, None)}
        if number == self._parent:
            return {self._keys.get(name)}
        if name.endswith(record_files.SUFFIX):
            return {self._watched.get(number)}
        return set()

    def close(self) -> None:
        """Tell nothing any more; twice is fine."""
        closing, self._inotify = self._inotify, None
        if closing is not None:
            closing.close()
