# SPDX-License-Identifier: Apache-2.0
"""The facts of processes in a shared registry, and a look at all of it.

The facts are in a group of their own, which no topic has for its key. Each
engine has its own way to write them: tooz reads a group before it writes into
it, and a group of thousands changes all the time. They end with the member
whose they are, as records do.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

# No topic has a key like this.
GROUP = b'zmq_threaded.facts'
_TIMEOUT = 5.0
# When nobody has told any facts for so many lives of a record, redis forgets
# all of them.
_LIVES = 10


@dataclasses.dataclass
class Everything:
    """All that a registry holds.

    :ivar facts: the documents, packed, by member
    :ivar records: by key of a topic: the records by member, as they are
        stored
    :ivar expired: the members among them who have expired
    :ivar now: by the clock of the server, seconds since 1970; None if it
        tells no time
    """

    facts: dict[Any, bytes] = dataclasses.field(default_factory=dict)
    records: dict[str, dict[Any, Any]] = dataclasses.field(
        default_factory=dict)
    expired: frozenset[Any] = frozenset()
    now: float | None = None


@dataclasses.dataclass(frozen=True)
class Access:
    """How an engine is told facts, and how all of it is read.

    :ivar write: of (coordinator, member, content, seconds of the life of a
        record): returns the time by the clock of the server, or None
    :ivar remove: of (coordinator, member)
    :ivar read: of (coordinator): Everything

    Thread: registry, or its engine's thread; one at a time.
    """

    write: Callable[[Any, bytes, bytes, float], float | None]
    remove: Callable[[Any, bytes], None]
    read: Callable[[Any], Everything]


# Redis

def _redis_write(coordinator: Any, member: bytes, content: bytes,
                 expire: float) -> float | None:
    key = coordinator._encode_group_id(GROUP)
    pipe = coordinator._client.pipeline(transaction=False)
    pipe.hset(key, member, content)
    pipe.pexpire(key, int(1000 * _LIVES * expire))
    pipe.time()
    return _redis_time(pipe.execute()[-1])


def _redis_remove(coordinator: Any, member: bytes) -> None:
    coordinator._client.hdel(coordinator._encode_group_id(GROUP), member)


def _redis_read(coordinator: Any) -> Everything:
    """In three round trips, however many there are."""
    client = coordinator._client
    pipe = client.pipeline(transaction=False)
    pipe.hgetall(coordinator._encode_group_id(GROUP))
    pipe.smembers(coordinator._groups)
    pipe.time()
    told, groups, now = pipe.execute()
    groups = sorted(groups)
    for group in groups:
        pipe.hgetall(coordinator._encode_group_id(group))
    records = dict(zip(map(_text, groups), pipe.execute()))
    for members in records.values():
        members.pop(coordinator.GROUP_EXISTS, None)
    everybody = list({*told, *(member for members in records.values()
                               for member in members)})
    beats = client.mget([coordinator._encode_beat_id(member)
                         for member in everybody]) if everybody else []
    return Everything(told, records, frozenset(
        member for member, beat in zip(everybody, beats) if beat is None),
        _redis_time(now))


def _redis_time(told: tuple[int, int]) -> float:
    return told[0] + told[1] / 1e6


# etcd

def _etcd_write(coordinator: Any, member: bytes, content: bytes,
                expire: float) -> float | None:
    coordinator.client.put(_etcd_key(coordinator, member), content,
                           lease=coordinator._membership_lease)
    return None


def _etcd_remove(coordinator: Any, member: bytes) -> None:
    coordinator.client.delete(_etcd_key(coordinator, member))


def _etcd_key(coordinator: Any, member: bytes) -> str:
    return (coordinator._prefix_group(GROUP) + member).decode()


def _etcd_read(coordinator: Any) -> Everything:
    everything = Everything()
    prefix = coordinator.GROUP_PREFIX
    for content, meta in coordinator.client.get_prefix(prefix.decode()):
        group, _, member = meta['key'][len(prefix):].partition(b'/')
        if group == GROUP:
            everything.facts[member] = content
        elif member:
            everything.records.setdefault(_text(group), {})[member] = content
    return everything


# ZooKeeper

def _zookeeper_write(coordinator: Any, member: bytes, content: bytes,
                     expire: float) -> float | None:
    from kazoo import exceptions
    client = coordinator._coord
    path = coordinator._path_member(GROUP, member)
    try:
        client.set_async(path, content).get(timeout=_TIMEOUT)
    except exceptions.NoNodeError:
        client.create_async(path, content, ephemeral=True,
                            makepath=True).get(timeout=_TIMEOUT)
    return None


def _zookeeper_remove(coordinator: Any, member: bytes) -> None:
    coordinator._coord.delete_async(
        coordinator._path_member(GROUP, member)).get(timeout=_TIMEOUT)


def _zookeeper_read(coordinator: Any) -> Everything:
    from kazoo import exceptions
    client, everything = coordinator._coord, Everything()
    deadline = time.monotonic() + _TIMEOUT

    def result(reading: Any) -> Any:
        try:
            return reading.get(timeout=max(0.0, deadline - time.monotonic()))
        except exceptions.NoNodeError:
            return None     # left meanwhile

    # All of a kind at once: thousands of round trips take seconds.
    groups = result(client.get_children_async(coordinator._base_path()))
    members = [(group, client.get_children_async(
        coordinator._path_group(group.encode()))) for group in groups or ()]
    nodes = [(group, name, client.get_async(
        f'{coordinator._path_group(group.encode())}/{name}'))
        for group, reading in members for name in result(reading) or ()]
    for group, name, reading in nodes:
        found = result(reading)
        if found is not None and group == GROUP.decode():
            everything.facts[name.encode()] = found[0]
        elif found is not None:
            everything.records.setdefault(group, {})[
                name.encode()] = found[0]
    return everything


def _text(name: bytes) -> str:
    return name.decode('utf-8', 'replace')


REDIS = Access(_redis_write, _redis_remove, _redis_read)
ETCD = Access(_etcd_write, _etcd_remove, _etcd_read)
ZOOKEEPER = Access(_zookeeper_write, _zookeeper_remove, _zookeeper_read)
