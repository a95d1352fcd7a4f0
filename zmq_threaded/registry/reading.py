# SPDX-License-Identifier: Apache-2.0
"""Reading the records of a group as they are stored.

tooz gives records unpacked: one that cannot be unpacked hides all others, and
some make objects of any size. So each engine has its own way here to the
bytes.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from collections.abc import Collection
from typing import Any

from tooz import coordination

from zmq_threaded.registry import zookeeper_notices

_TIMEOUT = 5.0
# Records of a group of zookeeper that are watched one by one.
_WATCHED = 100
# A group may come and go while it is read.
_TRIES = 3
# Records by member, and the members among them who have expired.
Group = tuple[dict[Any, Any], frozenset[Any]]


@dataclasses.dataclass(frozen=True)
class Reader:
    """How the records of an engine are read; each function is given the
    coordinator of tooz.

    :ivar group: of (coordinator, group): dict of member to record, and the
        set of those members among them who have expired
    :ivar own: of (coordinator, group, member): the record of this process
    :ivar watch: of (coordinator, group): notice who in it may be dead
    :ivar tend: of (coordinator): remove them, where the engine does not

    They raise what tooz raises when there is no such group, or member.

    Thread: registry, or its engine's thread; one at a time.
    """

    group: Callable[[Any, bytes], Group]
    own: Callable[[Any, bytes, bytes], Any]
    watch: Callable[[Any, bytes], None] = lambda coordinator, group: None
    tend: Callable[[Any], None] = lambda coordinator: None


def _group(coordinator: Any, group: bytes) -> Group:
    result = coordinator.get_members_with_capabilities(group)
    return result.get(timeout=_TIMEOUT), frozenset()


def _own(coordinator: Any, group: bytes, member: bytes) -> Any:
    return coordinator.get_member_capabilities(group, member).get(
        timeout=_TIMEOUT)


class Expired:
    """Members of a redis who are in a group and do not beat.

    Redis lets beats expire by a wall clock, which may be set forward; then
    all members are gone at once, until each beats again. A member that is
    dead does not come back. So members are removed only when they were seen
    without a beat for the life of a record.

    :param expire: seconds of that
    :param removed: called with the coordinator, and the keys of the groups
        from which members were removed

    Thread: registry, or its engine's thread; one at a time.
    """

    def __init__(self, expire: float,
                 removed: Callable[[Any, list[str]], None]) -> None:
        self._expire = expire
        self._removed = removed
        # Since when, by group and member.
        self._since: dict[tuple[Any, Any], float] = {}

    def group(self, coordinator: Any, group: bytes) -> Group:
        """As Reader says."""
        key = coordinator._encode_group_id(group)
        records = coordinator._client.hgetall(key)
        if not records:
            raise coordination.GroupNotCreated(group)
        records.pop(coordinator.GROUP_EXISTS, None)
        expired = self._without_beat(coordinator, records)
        self._watch(key, expired, records)
        self._remove_old(coordinator, key)
        return records, expired

    def watch(self, coordinator: Any, group: bytes) -> None:
        """As Reader says."""
        key = coordinator._encode_group_id(group)
        members = set(coordinator._client.hkeys(key))
        members.discard(coordinator.GROUP_EXISTS)
        self._watch(key, self._without_beat(coordinator, members), members)
        self._remove_old(coordinator, key)

    def own(self, coordinator: Any, group: bytes, member: bytes) -> Any:
        """As Reader says."""
        record = coordinator._client.hget(
            coordinator._encode_group_id(group), member)
        if record is None:
            raise coordination.MemberNotJoined(group, member)
        return record

    def tend(self, coordinator: Any) -> None:
        """Remove those who are dead."""
        for key in {key for key, _ in self._since}:
            self._remove_old(coordinator, key)

    @staticmethod
    def _without_beat(coordinator: Any,
                      members: Collection[Any]) -> frozenset[Any]:
        members = list(members)
        if not members:
            return frozenset()
        beats = coordinator._client.mget(
            [coordinator._encode_beat_id(member) for member in members])
        return frozenset(member for member, beat in zip(members, beats)
                         if beat is None
                         and member != coordinator._member_id)

    def _watch(self, key: Any, expired: frozenset[Any],
               members: Collection[Any]) -> None:
        for member in members:
            if member not in expired:
                self._since.pop((key, member), None)
        now = time.monotonic()
        for member in expired:
            self._since.setdefault((key, member), now)

    def _remove_old(self, coordinator: Any, key: Any) -> None:
        before = time.monotonic() - self._expire
        old = [member for of, member in self._since
               if of == key and self._since[of, member] < before]
        if not old:
            return
        dead = self._without_beat(coordinator, old)
        for member in old:
            del self._since[key, member]
        if dead:
            coordinator._client.hdel(key, *dead)
            self._removed(coordinator, [_group_of(coordinator, key)])


def _group_of(coordinator: Any, encoded: bytes) -> str:
    return encoded[len(coordinator._encode_group_id(b'')):].decode()


def _etcd_group(coordinator: Any, group: bytes) -> Group:
    prefix = coordinator._prefix_group(group)
    found = {meta['key']: record for record, meta
             in coordinator.client.get_prefix(prefix.decode())}
    if found.pop(prefix, None) is None:
        raise coordination.GroupNotCreated(group)
    return {key[len(prefix):]: record
            for key, record in found.items()}, frozenset()


def _etcd_own(coordinator: Any, group: bytes, member: bytes) -> Any:
    # Somebody may have deleted the group while we were joining it; what is
    # then in it is found by nobody, but by ourselves.
    with contextlib.suppress(coordination.GroupAlreadyExist):
        coordinator.create_group(group).get(timeout=_TIMEOUT)
    found = coordinator.client.get(
        (coordinator._prefix_group(group) + member).decode())
    if not found:
        raise coordination.MemberNotJoined(group, member)
    return found[0]


def _zookeeper_group(watches: zookeeper_notices.ZookeeperNotices,
                     coordinator: Any, group: bytes) -> Group:
    from kazoo import exceptions
    client, path = coordinator._coord, coordinator._path_group(group)
    watcher = watches.watcher(group.decode())
    names = _zookeeper_names(watches, client, path, group)
    found = {}
    # A record that changes is seen by a watch of its own, which the server
    # keeps for each process that has looked it up.
    watched = watcher if len(names) <= _WATCHED else None
    # All at once: thousands of round trips take seconds.
    for name, reading in [(name, client.get_async(f'{path}/{name}', watched))
                          for name in names]:
        try:
            found[name.encode()] = reading.get(timeout=_TIMEOUT)[0]
        except exceptions.NoNodeError:
            pass    # left meanwhile
    return found, frozenset()


def _zookeeper_names(watches: zookeeper_notices.ZookeeperNotices, client: Any,
                     path: str, group: bytes) -> list[str]:
    from kazoo import exceptions
    key = group.decode()
    watcher = watches.watcher(key)
    for _ in range(_TRIES):
        with contextlib.suppress(exceptions.NoNodeError):
            return client.get_children_async(path, watcher).get(
                timeout=_TIMEOUT)
        if watches.awaits(key, client):
            break
        watches.await_creation(key, client)
        if client.exists_async(path, watcher).get(timeout=_TIMEOUT) is None:
            break
    raise coordination.GroupNotCreated(group)


def _zookeeper_own(coordinator: Any, group: bytes, member: bytes) -> Any:
    from kazoo import exceptions
    path = coordinator._path_member(group, member)
    try:
        return coordinator._coord.get_async(path).get(timeout=_TIMEOUT)[0]
    except exceptions.NoNodeError:
        raise coordination.MemberNotJoined(group, member) from None


FILES = Reader(_group, _own)
ETCD = Reader(_etcd_group, _etcd_own)


def zookeeper(watches: zookeeper_notices.ZookeeperNotices) -> Reader:
    """The Reader of a zookeeper, which sets watches as it reads."""
    return Reader(functools.partial(_zookeeper_group, watches),
                  _zookeeper_own)
