# SPDX-License-Identifier: Apache-2.0
"""A problem of a cloud, and what the modules that find problems share: who is
heard of, and how things are named (pure).
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import processes

# A process is late when its facts are older than so many times the time
# between two of them, plus seconds for a busy machine.
_LATE, _SLACK = 1.2, 2.0
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    :ivar kind: one word for programs
    :ivar subject: what is concerned
    :ivar text: what happened
    :ivar remedy: what to do
    :ivar host: the node that is concerned, '' for none

    Thread: any.
    """

    kind: str
    subject: str
    text: str
    remedy: str
    host: str = ''

    def document(self) -> dict[str, str]:
        """For programs."""
        return dataclasses.asdict(self)


def limit(process: clouds.Process) -> float:
    """Seconds after which the facts of a process are late."""
    return _LATE * process.facts['every'] + _SLACK


def is_late(process: clouds.Process) -> bool:
    """Whether a process has said nothing for too long."""
    return process.age > limit(process)


def alive(cloud: clouds.Cloud) -> list[clouds.Process]:
    """Those who are heard of, and do not stand still."""
    return [process for process in cloud.processes
            if not process.is_gone() and not is_late(process)
            and process.state != processes.STOPPED]


def without_receiver(cloud: clouds.Cloud
                      ) -> dict[str, list[clouds.Process]]:
    """The processes behind a receiver that is not there, by host."""
    found: dict[str, list[clouds.Process]] = {}
    for process in alive(cloud):
        receiver = process.facts['receiver']
        if receiver['expected'] and not receiver['there']:
            found.setdefault(process.host, []).append(process)
    return found


def untold_instances(cloud: clouds.Cloud) -> list[clouds.Listed]:
    """The instances that no process tells of: of an older version, of a
    process that has just started, or left out of a document that would be too
    long.
    """
    told = {service['id'] for _, service in cloud.services()}
    return [listed for instance_id, listed in cloud.listed.items()
            if instance_id.hex() not in told and not listed.is_expired]


def older_instances(cloud: clouds.Cloud) -> list[clouds.Listed]:
    """Those of an older version, or of a process that has just started. A
    process that had to leave something out may mean those of its host.
    """
    vague = {process.host for process in cloud.processes
             if process.facts['left_out'].get('services')}
    return [listed for listed in untold_instances(cloud)
            if listed.instance.host not in vague]


# Names

def name_of(service: dict[str, Any]) -> tuple[Any, ...]:
    """What a service is to its senders."""
    return (service['kind'], tuple(map(tuple, service['topics'])),
            service['server'], service['pool'])


def label(service: dict[str, Any]) -> str:
    """The topics and the server of a service, for people."""
    topics = ', '.join(name for _, name in service['topics'][:_NAMED])
    return name_at(topics, service['server'])


def name_at(topic: str, server: str | None) -> str:
    """A topic and one of its servers, if one was chosen, for people."""
    return f'{topic}.{server}' if server else topic


def topics_of(told: Iterable[clouds.Process]) -> str:
    """What processes serve, for people."""
    return few(label(service) for process in told
               for service in process.facts['services']) or 'no services'


def names(named: list[clouds.Process]) -> str:
    """The names of processes."""
    return few(map(str, named))


def few(names: Iterable[str]) -> str:
    """The first of some names."""
    names = sorted(set(names))
    more = len(names) - _NAMED
    return ', '.join(names[:_NAMED]) + f' and {more} more' * (more > 0)


def listed_names(those: list[clouds.Listed]) -> str:
    """What instances serve, for people."""
    return few(name_at(topic[2], each.instance.server)
               for each in those for topic in each.topics)
