# SPDX-License-Identifier: Apache-2.0
"""Which topics of the embedded registry have changed, told by the kernel."""

import contextlib
import os
from collections.abc import Collection
from typing import Any

from zmq_threaded.net import inotify
from zmq_threaded.registry import notices as noticing
from zmq_threaded.registry import record_files

_IN_A_GROUP = inotify.MOVED_TO | inotify.MOVED_FROM | inotify.DELETED
_OF_GROUPS = _IN_A_GROUP | inotify.CREATED


class FolderNotices(noticing.Readable):
    """The folders of the groups that somebody looks up, and their parent.

    :param groups: path of the folder of all groups

    Thread: as notices.Notices says.
    """

    def __init__(self, groups: str) -> None:
        self._groups = groups
        self._inotify: inotify.Inotify | None = None
        self._above: int | None = None
        self._parent: int | None = None
        self._keys: dict[str, str] = {}
        self._watched: dict[int, str] = {}

    def watch(self, coordinator: Any, key: str) -> bool:
        """As Notices says. The kernel limits the notices of each user.

        By path, each time: the folders may be others than before.
        """
        name = record_files.safe(key.encode())
        self._keys[name] = key
        kernel = self._inotify or self._open()
        try:
            is_new = self._watch_all_groups(kernel)
        except FileNotFoundError:
            # It is being made anew; nothing is wrong with the notices.
            self._listen()
            return False
        group = None
        with contextlib.suppress(OSError):      # nobody is in the group
            group = kernel.watch(os.path.join(self._groups, name),
                                 _IN_A_GROUP)
        if is_new or group not in self._watched:
            is_new |= group is not None
            self._unwatch(key, group)
        if group is not None:
            self._watched[group] = key
        self._listen()
        return is_new

    def _watch_all_groups(self, kernel: inotify.Inotify) -> bool:
        """The folder of all groups, and the one above: a folder that somebody
        has open does not tell that it was removed.

        :returns: whether they are others than before
        """
        before = self._above, self._parent
        self._above = kernel.watch(os.path.dirname(self._groups), _OF_GROUPS)
        self._parent = kernel.watch(self._groups, _OF_GROUPS)
        for number in before:
            # One that was renamed would be watched for ever.
            if number not in (None, self._above, self._parent):
                kernel.unwatch(number)
        return before != (self._above, self._parent)

    def _unwatch(self, key: str, but: int | None = None) -> None:
        """Folders that were those of a key, but for one."""
        for number, watched in list(self._watched.items()):
            if watched == key and number != but and self._inotify is not None:
                self._watched.pop(number, None)
                self._inotify.unwatch(number)

    def _open(self) -> inotify.Inotify:
        opened = self._inotify = inotify.Inotify()
        self.fd = opened.fd
        return opened

    def read(self) -> None:
        """As Notices says."""
        found: set[str | None] = set()
        for notice in self._inotify.read() if self._inotify else ():
            found |= self._changed(*notice)
        for key in found:
            if key is not None:
                self._tell(key, 0)
        self._listen()

    def _changed(self, number: int, event: int,
                 name: str) -> set[str | None]:
        if event & inotify.OVERFLOW:
            return set(self._keys.values())
        if event & inotify.IGNORED:     # the folder is gone
            if number == self._parent:
                self._parent = None
                return set(self._keys.values())
            return {self._watched.pop(number, None)}
        if number == self._above:
            return (set(self._keys.values())
                    if name == os.path.basename(self._groups) else set())
        if number == self._parent:
            return {self._keys.get(name)}
        if name.endswith(record_files.SUFFIX):
            return {self._watched.get(number)}
        return set()

    def announce(self, coordinator: Any, keys: Collection[str]) -> None:
        """The kernel has seen it."""

    def forget(self, key: str) -> None:
        """As Notices says."""
        self._keys.pop(record_files.safe(key.encode()), None)
        self._unwatch(key)

    def close(self) -> None:
        """As Notices says."""
        closing, self._inotify = self._inotify, None
        self._listen_no_more()
        if closing is not None:
            closing.close()
