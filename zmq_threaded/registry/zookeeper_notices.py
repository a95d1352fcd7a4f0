# SPDX-License-Identifier: Apache-2.0
"""Which topics of a zookeeper have changed, told by its watches: each tells
of one change, and the look-up that follows sets the next one. They have no
connection of their own.
"""

import functools
from collections.abc import Collection
from typing import Any

from zmq_threaded import mailbox
from zmq_threaded.registry import notices as noticing

_NONE = 'NONE'      # the type of what is no change: the connection is lost


class ZookeeperNotices:
    """The watches of the groups that somebody looks up.

    Thread: any.
    """

    fd: int | None = None

    def __init__(self) -> None:
        self._tell: noticing.Tell = _tell_nobody
        # The same function each time, for kazoo keeps each that it is given.
        self._watchers: dict[str, Any] = {}
        self._awaited: dict[str, Any] = {}

    def bind(self, polled: mailbox.PolledMailbox, tell: noticing.Tell) -> None:
        """As Notices says."""
        self._tell = tell

    def watcher(self, key: str) -> Any:
        """The function to be given to kazoo for a topic."""
        return self._watchers.setdefault(
            key, functools.partial(self._happened, key))

    def _happened(self, key: str, event: Any) -> None:
        """In a thread of kazoo."""
        self._awaited.pop(key, None)
        if event.type != _NONE and key in self._watchers:
            self._tell(key, 0)

    def awaits(self, key: str, client: Any) -> bool:
        """Whether the creation of the group is watched for already."""
        return self._awaited.get(key) is client

    def await_creation(self, key: str, client: Any) -> None:
        """To be called before the creation is watched for."""
        self._awaited[key] = client

    def watch(self, coordinator: Any, key: str) -> bool:
        """The look-up has set the watch."""
        return False

    def read(self) -> None:
        """There is nothing to read."""

    def announce(self, coordinator: Any, keys: Collection[str]) -> None:
        """Zookeeper tells."""

    def forget(self, key: str) -> None:
        """As Notices says: what is still watched is told to nobody."""
        self._watchers.pop(key, None)
        self._awaited.pop(key, None)

    def close(self) -> None:
        """The watches end with the session."""


def _tell_nobody(key: str, told: int) -> None:
    """Before bind()."""
