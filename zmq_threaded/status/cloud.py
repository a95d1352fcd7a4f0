# SPDX-License-Identifier: Apache-2.0
"""The whole cloud, as its processes and the registry tell of it (pure)."""

import dataclasses
import time
from typing import Any
from urllib import parse

from zmq_threaded.journal import survey
from zmq_threaded.registry import record
from zmq_threaded.registry import shared_facts
from zmq_threaded.registry import stamps
from zmq_threaded.status import facts
from zmq_threaded.status import processes

RPC, NOTIFY = 'rpc', 'notify'


@dataclasses.dataclass
class Process:
    """A driver in a process, or a receiver, as it last told of itself.

    :ivar facts: the document; see status.facts
    :ivar age: seconds since then
    :ivar is_sure: the age does not depend on two clocks that agree
    :ivar state: of status.processes; UNKNOWN of one on another machine
    :ivar is_expired: the registry has not heard of it for the life of a
        record
    :ivar clock: by how many seconds the clock of its host is ahead of that
        of the registry's server; None if nobody knows
    :ivar clock_seen: the same against the clock of this machine, where the
        process was seen to go on though its facts look old, or young

    Thread: any.
    """

    facts: dict[str, Any]
    age: float
    is_sure: bool
    state: str
    is_expired: bool = False
    clock: float | None = None
    clock_seen: float | None = None

    @property
    def host(self) -> str:
        """The name under which its node is known."""
        about = self.facts['process']
        return about['host'] or about['machine']

    def __str__(self) -> str:
        about = self.facts['process']
        return f'{about["name"]} (pid {about["pid"]} on {self.host})'

    def is_gone(self) -> bool:
        """Whether the process has ended without a word; of one on another
        machine, whether its record has expired.
        """
        return self.state == processes.GONE or (
            self.state == processes.UNKNOWN and self.is_expired)


@dataclasses.dataclass
class Listed:
    """An instance that the registry lists.

    :ivar topics: set of (RPC or NOTIFY, exchange, topic)
    :ivar is_expired: it was not renewed for the life of a record

    Thread: any.
    """

    instance: record.Instance
    topics: set[tuple[str, str, str]] = dataclasses.field(
        default_factory=set)
    is_expired: bool = False


@dataclasses.dataclass
class Cloud:
    """All that is known.

    :ivar listed: by the id of an instance
    :ivar place: what the registry is and where
    :ivar ipc_dir: the directory of this node
    :ivar trouble: why the registry does not answer; '' if it does
    :ivar milliseconds: in which the registry answered a small question; None
        if it did not
    :ivar records: how many records are renewed
    :ivar bad: how many records and facts are of no use
    :ivar journals: those that this node can see, of survey.Found
    :ivar journals_dir: where they are
    :ivar journals_trouble: why that cannot be read; '' if it can

    Thread: any.
    """

    place: str
    ipc_dir: str = ''
    processes: list[Process] = dataclasses.field(default_factory=list)
    listed: dict[bytes, Listed] = dataclasses.field(default_factory=dict)
    trouble: str = ''
    milliseconds: float | None = None
    records: int = 0
    bad: int = 0
    journals: list[survey.Found] = dataclasses.field(default_factory=list)
    journals_dir: str = ''
    journals_trouble: str = ''

    def living(self) -> list[Listed]:
        """The instances whose records are renewed."""
        return [listed for listed in self.listed.values()
                if not listed.is_expired]

    def services(self) -> list[tuple[Process, dict[str, Any]]]:
        """All services, each with the process that tells of it."""
        return [(process, service) for process in self.processes
                for service in process.facts['services']]


def put_together(place: str, local: list[dict[str, Any]],
                 everything: shared_facts.Everything) -> Cloud:
    """What is known, from the files of this node and from the registry.

    :param local: documents, as fact_files.read() has them
    """
    cloud = Cloud(place)
    expired = everything.expired
    known = {document['id']: (document, False) for document in local}
    for member, packed in everything.facts.items():
        try:
            document = facts.decode(packed)
        except facts.Malformed:
            cloud.bad += 1
            continue
        mine = known.get(document['id'])
        if mine is None or mine[0]['seq'] < document['seq']:
            if mine is not None:
                # The registry knows nothing of locks.
                document['process']['lives'] = mine[0]['process'].get('lives')
            known[document['id']] = document, member in expired
    cloud.processes = [
        _process(document, is_expired, everything.now)
        for document, is_expired in known.values()]
    for key, members in everything.records.items():
        topic = _topic(key)
        if topic is not None:
            cloud.records += len(members.keys() - expired)
            for member, stored in members.items():
                _list(cloud, topic, stored, member in expired)
    return cloud


def _process(document: dict[str, Any], is_expired: bool,
             now: float | None) -> Process:
    state = processes.state(document['process'])
    age, is_sure = _age(document, now)
    at, server_at = document['at'], document['server_at']
    clock = None if server_at is None or not at else at - server_at
    return Process(document, age, is_sure, state, is_expired, clock)


def _age(document: dict[str, Any], now: float | None) -> tuple[float, bool]:
    age = document.get('silent')
    if age is None:
        age = stamps.age_of_text(document['stamp'])
    if age is not None and age != float('inf'):
        return age, True
    if now is not None and document['server_at'] is not None:
        return max(0.0, now - document['server_at']), True
    return max(0.0, time.time() - document['at']), False


def _list(cloud: Cloud, topic: tuple[str, str, str], stored: Any,
          is_expired: bool) -> None:
    try:
        good, bad = record.sift(stored)
    except record.Malformed:
        cloud.bad += 1
        return
    cloud.bad += len(bad)
    for instance in good:
        listed = cloud.listed.get(instance.id)
        if listed is None or listed.is_expired and not is_expired:
            topics = listed.topics if listed else set()
            listed = cloud.listed[instance.id] = Listed(instance, topics,
                                                        is_expired)
        listed.topics.add(topic)


def _topic(key: str) -> tuple[str, str, str] | None:
    """(kind, exchange, topic) of a key; None of one that is no topic."""
    kind, *parts = key.split(':')
    if kind not in (RPC, NOTIFY) or len(parts) < 2:
        return None
    exchange, name = map(parse.unquote, parts[:2])
    return kind, exchange, name
