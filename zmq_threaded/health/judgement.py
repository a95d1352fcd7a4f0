# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the services of this process, and what to do (pure)."""

import dataclasses
from collections.abc import Iterable
from collections.abc import Sequence
from typing import TypeAlias

from zmq_threaded.health import probe
from zmq_threaded.health import telling
from zmq_threaded.health import vitals
from zmq_threaded.registry import complaints

Answer = probe.Answer
Key: TypeAlias = telling.Key
Verdict: TypeAlias = telling.Verdict
Verdicts = dict[Key, Verdict]

# Seconds. Each thread has a turn in each second, if only for a moment; but a
# machine may have much more to do than it can.
MUTE = 10.0
# Services, or processes, that one text names.
_NAMED = 3
_COMMAND = 'oslo-messaging-zmq-receiver'
_RESTART = ('see in the log whether this process lacks memory or processor '
            'time, and at what its threads stand (a Guru Meditation Report, '
            'or py-spy dump --pid); restart it if the threads do not go on')


@dataclasses.dataclass(frozen=True)
class Place:
    """An endpoint of services of this process at which they do not answer.

    :ivar endpoint: of their records
    :ivar finding: what came of asking
    :ivar services: those that were asked there in vain
    :ivar is_told: another part of the driver tells the log of the cause

    Thread: any.
    """

    endpoint: str
    finding: probe.Finding
    services: Sequence[vitals.Vitals]
    is_told: bool = False


def names(services: Sequence[vitals.Vitals]) -> str:
    """The names of some services, as text of bounded length."""
    text = '; '.join(each.name for each in services[:_NAMED])
    more = len(services) - _NAMED
    return f'{text} and {more} more' if more > 0 else text


def mute_threads(services: Iterable[vitals.Vitals], now: float) -> Verdicts:
    """Services one of whose threads has not had a turn for too long."""
    late: dict[str, list[tuple[float, vitals.Vitals]]] = {}
    for each in services:
        for name, seconds in each.is_mute_for(now).items():
            if seconds > MUTE:
                late.setdefault(name, []).append((seconds, each))
    return {Key('stuck_thread', name): Verdict(
        f'The {name} thread of {names([each for _, each in found])} has not '
        f'had a turn for {max(seconds for seconds, _ in found):.0f} s, so '
        'nobody is served there',
        _RESTART, deaf=_ids(each for _, each in found))
        for name, found in late.items()}


def mute_loops(loops: Iterable[tuple[str, float, float]], now: float
               ) -> Verdicts:
    """Threads of the process that have not had a turn for too long.

    :param loops: of (name, when its last turn was in monotonic seconds,
        seconds that a turn may take)
    """
    return {Key('stuck_thread', name): Verdict(
        f'The thread {name} of this process has not had a turn for '
        f'{now - turned_at:.0f} s', _RESTART)
        for name, turned_at, limit in loops if now - turned_at > limit}


def stuck_workers(services: Iterable[vitals.Vitals], now: float, limit: float
                  ) -> Verdicts:
    """Services of which no worker was free for too long."""
    return {Key('stuck_workers', each.name): Verdict(
        f'No worker of {each.name} was free for {each.has_waited(now):.0f} s; '
        f'{each.waiting()} messages wait for '
        f'{each.workers or "its"} workers',
        'see at what the workers stand (a Guru Meditation Report, or py-spy '
        'dump --pid): a database or another service may not answer. Restart '
        'this process if they do not go on. If calls take so long '
        'rightfully, raise executor_thread_pool_size or '
        'rpc_zmq_stuck_workers_after', deaf=_ids([each]))
        for each in services if each.has_waited(now) > limit}


def unreachable(places: Iterable[Place]) -> Verdicts:
    """Services that do not answer at an endpoint of their records."""
    return {Key('unreachable', each.endpoint): Verdict(
        f'Others cannot reach {names(each.services)} at {each.endpoint}, as '
        f'this process has tried itself: {_what(each)}', _remedy(each),
        each.is_told, _ids(each.services)) for each in places}


def _what(place):
    answer, why = place.finding
    if answer is Answer.REFUSED:
        return f'the receiver answers there, and says: {why}'
    return f'{answer.value} ({why})' if why else answer.value


def _remedy(place):
    answer = place.finding.answer
    is_behind = any(each.instance.receiver for each in place.services)
    if answer is Answer.UNRESOLVED:
        return ('set rpc_zmq_host to a name or an address of this machine '
                'that the other hosts know, or mend the name in DNS or '
                '/etc/hosts')
    if answer is Answer.REFUSED:
        return ('give the receiver of this node and its services the same '
                'rpc_zmq_ipc_dir, and see whether this process has stood '
                'still')
    if is_behind:
        return (f'start the receiver of this node ({_COMMAND} --config-file '
                '<the file of this service>), or restart it if it stands '
                'still, or see why its port cannot be reached: a firewall, '
                'another rpc_zmq_host, rpc_zmq_port or rpc_zmq_bind_address')
    if answer is Answer.SILENT:
        return _RESTART
    return ('see whether a firewall blocks the address, whether it still is '
            'an address of this machine (rpc_zmq_host, rpc_zmq_bind_address) '
            'and, for a socket file, who removes it')


def complained_of(services: Iterable[vitals.Vitals],
                  heard: complaints.Heard) -> Verdicts:
    """Services that others cannot reach, by what those others published.

    :param heard: the complaints, by the endpoints of the service
    """
    by_way: dict[tuple[str, ...], list[vitals.Vitals]] = {}
    for each in services:
        if each.instance.endpoints in heard:
            by_way.setdefault(each.instance.endpoints, []).append(each)
    return dict(_complaint(way, those, heard[way])
                for way, those in by_way.items())


def _complaint(way, services, said):
    where = way[-1]
    who = '; '.join(f'{each.who}: {each.why}' for each in said[:_NAMED])
    count = 'One process' if len(said) == 1 else f'{len(said)} processes'
    verb = 'says that it' if len(said) == 1 else 'say that they'
    return Key('others_cannot_reach', where), Verdict(
        f'{count} {verb} cannot reach {names(services)} at {where} ({who})',
        'see whether a firewall of this node or between the nodes blocks the '
        'address, and whether the name rpc_zmq_host leads to this node from '
        'there', deaf=_ids(services))


def unlisted(services: Sequence[vitals.Vitals], confirmed_at: float,
             now: float, expire: float, trouble: str) -> Verdicts:
    """Services that the registry does not list, or no longer.

    :param confirmed_at: when the registry last took the records of this
        process or renewed them, in monotonic seconds
    :param expire: seconds of life of a record that is not renewed
    :param trouble: why the registry does not answer; '' if it does
    """
    late = [each for each in services
            if now - max(confirmed_at, each.began_at) > expire]
    if not late:
        return {}
    return {Key('unlisted', 'registry'): Verdict(
        f'The registry has not confirmed the records of {names(late)} for '
        f'{now - max(confirmed_at, late[0].began_at):.0f} s, so new senders '
        f'do not find them: {trouble or "it is busy"}',
        'see to the registry: whether it runs, can be reached from this '
        'node, and takes writes', deaf=_ids(late))}


def registry_trouble(place: str, since: float, why: str, now: float
                     ) -> Verdicts:
    """The registry does not answer."""
    return {Key('registry', place): Verdict(
        f'The registry {place} has not answered for {now - since:.0f} s: '
        f'{why}', 'see whether it runs and can be reached from this node',
        is_told=True)}


def wrong_name(host: str, problem: str) -> Verdicts:
    """The name of this node leads elsewhere; see receiver/published.py."""
    return {Key('wrong_name', host): Verdict(
        f'rpc_zmq_host is {host}, but {problem}',
        'set rpc_zmq_host to a name or an address of this machine that the '
        'other hosts know, or mend the name in DNS or /etc/hosts',
        is_told=True)}


def deaf(verdicts: Verdicts) -> int:
    """How many services are of no use to others, for any reason."""
    return len(frozenset().union(*(each.deaf for each in verdicts.values())))


def _ids(services):
    return frozenset(each.instance.id for each in services)
