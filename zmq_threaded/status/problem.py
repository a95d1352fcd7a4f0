# SPDX-License-Identifier: Apache-2.0
"""A problem of a cloud, and what the modules that find problems share: who is
heard of, and how things are named (pure).
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from zmq_threaded.health import probe
from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import processes

# A process is late when its facts are older than so many times the time
# between two of them, plus seconds for a busy machine.
_LATE, _SLACK = 1.2, 2.0
# Seconds for which the thread that publishes the facts may wait for a registry
# that does not answer.
_REGISTRY_WAIT = 10.0
_NAMED = 5
# In the text of a finding of which the receiver is not to blame.
_NO_NAME = probe.Answer.UNRESOLVED.value


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


def is_late(process: clouds.Process, trouble: str = '') -> bool:
    """Whether a process has said nothing for too long.

    :param trouble: why the registry does not answer; '' if it does. The
        process itself may have met the trouble first, or last.
    """
    waits = trouble or not process.facts['registry']['answers']
    return process.age > limit(process) + _REGISTRY_WAIT * bool(waits)


def alive(cloud: clouds.Cloud) -> list[clouds.Process]:
    """Those who are heard of, and do not stand still."""
    return [process for process in cloud.processes
            if not process.is_gone() and not stands_still(process, cloud)]


def stands_still(process: clouds.Process, cloud: clouds.Cloud) -> bool:
    """Whether a process is stopped, or has said nothing for too long."""
    return (process.state == processes.STOPPED
            or is_late(process, cloud.trouble))


def without_receiver(cloud: clouds.Cloud
                      ) -> dict[str, list[clouds.Process]]:
    """The processes behind a receiver that is not there, by host."""
    found: dict[str, list[clouds.Process]] = {}
    for process in alive(cloud):
        receiver = process.facts['receiver']
        if receiver['expected'] and not receiver['there']:
            found.setdefault(process.host, []).append(process)
    return found


def behind(cloud: clouds.Cloud, host: str) -> list[clouds.Process]:
    """The processes of a host that are heard of and expect a receiver."""
    return [process for process in alive(cloud) if process.host == host
            and process.facts['kind'] != 'receiver'
            and process.facts['receiver']['expected']]


def standing_receivers(cloud: clouds.Cloud) -> dict[str, clouds.Process]:
    """The receivers that stand still, by host; those alone in whose place no
    other receiver of the host has come.
    """
    standing, well = {}, set()
    for process in cloud.processes:
        if process.facts['kind'] != 'receiver' or process.is_gone():
            continue
        if (process.state == processes.STOPPED or process.is_sure
                and is_late(process, cloud.trouble)):
            standing[process.host] = process
        else:
            well.add(process.host)
    return {host: process for host, process in standing.items()
            if host not in well}


def mute_receivers(cloud: clouds.Cloud) -> dict[str, list[clouds.Process]]:
    """The processes behind a receiver that is there and does not answer them,
    by host. Only the machine of a receiver has the facts of the receiver.
    """
    found: dict[str, list[clouds.Process]] = {}
    for process in alive(cloud):
        receiver = process.facts['receiver']
        if receiver['expected'] and receiver['there'] and any(
                finding['kind'] == 'unreachable'
                and finding['subject'] == receiver['endpoint']
                and _NO_NAME not in finding['text']
                for finding in process.facts['findings']):
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
