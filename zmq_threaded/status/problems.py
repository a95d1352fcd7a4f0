# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a cloud, and what to do, in plain words (pure).

A cause is named once, and what follows from it is not: behind a receiver that
is down nobody asks why its services do not answer.
"""

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any

from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import probe
from zmq_threaded.status import processes

# A process is late when its facts are older than so many times the time
# between two of them, plus seconds for a busy machine.
_LATE, _SLACK = 1.2, 2.0
# Seconds: of messages that nobody takes or acknowledges; by which a clock is
# wrong; for which all workers are at it while messages wait; of an outbox
# that does not answer; in which a new service is listed.
_OLD, _WRONG_CLOCK, _STUCK, _SILENT, _NEW = 10.0, 5.0, 60.0, 20.0, 10.0
_NAMED = 5
_RECEIVER = 'oslo-messaging-zmq-receiver'
# Findings of processes that status sees itself, and better.
_OWN_KINDS = {'unacknowledged'}


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


Outcomes = dict[bytes, probe.Outcome]


def of(cloud: clouds.Cloud, outcomes: Outcomes | None = None
       ) -> list[Problem]:
    """All that is wrong, the worst first.

    :param outcomes: of the instances that were asked
    """
    return [*_registry(cloud), *_receivers(cloud), *_standing(cloud),
            *_gone(cloud), *_found(cloud), *_unanswered(cloud, outcomes or {}),
            *_unlisted(cloud), *_busy(cloud), *_waiting(cloud),
            *_clocks(cloud), *_differences(cloud)]


# The registry

def _registry(cloud: clouds.Cloud) -> Iterable[Problem]:
    if cloud.trouble:
        yield Problem(
            'registry', cloud.place,
            f'The registry does not answer: {cloud.trouble}. What follows is '
            'known of this node alone',
            'see whether the registry runs (a paused one takes connections '
            'and says nothing) and can be reached from here')
        return
    cut_off = [process for process in _alive(cloud)
               if not process.facts['registry']['answers']]
    if cut_off:
        why = cut_off[0].facts['registry']['why']
        yield Problem(
            'registry', cloud.place,
            f'The registry answers here, but not {_names(cut_off)}: {why}',
            'see whether these nodes can reach the registry',
            cut_off[0].host)


# Processes and receivers

def _alive(cloud: clouds.Cloud) -> list[clouds.Process]:
    return [process for process in cloud.processes
            if not process.is_gone() and not is_late(process)
            and process.state != processes.STOPPED]


def _receivers(cloud: clouds.Cloud) -> Iterable[Problem]:
    for host, behind in _without_receiver(cloud).items():
        services = sum(len(each.facts['services']) for each in behind)
        endpoint = behind[0].facts['receiver']['endpoint']
        yield Problem(
            'receiver_down', host,
            f'The receiver of {host} ({endpoint}) is down, so nobody reaches '
            f'the {services} services on it: {_topics_of(behind)}',
            f'start {_RECEIVER} --config-file <the file of the services> on '
            f'{host}', host)


def _without_receiver(cloud: clouds.Cloud
                      ) -> dict[str, list[clouds.Process]]:
    """The processes behind a receiver that is not there, by host."""
    found: dict[str, list[clouds.Process]] = {}
    for process in _alive(cloud):
        receiver = process.facts['receiver']
        if receiver['expected'] and not receiver['there']:
            found.setdefault(process.host, []).append(process)
    return found


def _standing(cloud: clouds.Cloud) -> Iterable[Problem]:
    for process in cloud.processes:
        if process.is_gone():
            continue
        if process.state == processes.STOPPED:
            yield Problem(
                'stopped', str(process),
                f'{process} is stopped (SIGSTOP, or a debugger), for '
                f'{process.age:.0f} s at the most; {_last_said(process)}',
                f'kill -CONT {process.facts["process"]["pid"]} on '
                f'{process.host}', process.host)
        elif is_late(process) and process.is_sure:
            yield Problem(
                'silent', str(process),
                f'{process} has said nothing for {process.age:.0f} s: it '
                f'hangs, was stopped or is cut off; {_last_said(process)}',
                f'see on {process.host} whether it runs (ps, py-spy dump) '
                'and can reach the registry; restart it if it does not go '
                'on', process.host)


def _last_said(process: clouds.Process) -> str:
    said = process.facts
    parts = [f'{len(said["services"])} services']
    busy = [each for each in said['services'] if each['busy']]
    if busy:
        parts.append(f'{sum(each["busy"] for each in busy)} busy workers')
    if said['unacknowledged']:
        parts.append(f'{said["unacknowledged"]} unacknowledged messages')
    return f'it last told of {", ".join(parts)} ({_topics_of([process])})'


def _gone(cloud: clouds.Cloud) -> Iterable[Problem]:
    served = {_name(service) for process, service in cloud.services()
              if not process.is_gone()}
    for process in cloud.processes:
        if not process.is_gone():
            continue
        lost = [service for service in process.facts['services']
                if service['listed'] and _name(service) not in served]
        held = process.facts['unacknowledged']
        if not lost and not held:
            continue
        what = []
        if lost:
            what.append('nobody else serves '
                        + ', '.join(sorted({_label(each)
                                            for each in lost})[:_NAMED]))
        if held:
            what.append(f'{held} messages that were not acknowledged went '
                        'with it')
        yield Problem(
            'died', str(process),
            f'{process} has ended without a word (killed, crashed, or its '
            f'machine did): {"; ".join(what)}',
            f'start it again on {process.host}; see its log and the '
            'journal of the kernel (out of memory?)', process.host)


# What processes find themselves

def _found(cloud: clouds.Cloud) -> Iterable[Problem]:
    found: dict[tuple[str, str], list[tuple[clouds.Process, Any]]] = {}
    down = _without_receiver(cloud)
    for process in _alive(cloud):
        for finding in process.facts['findings']:
            kind = finding['kind']
            if (kind in _OWN_KINDS or kind == 'registry'
                    or kind == 'unreachable' and process.host in down):
                continue
            found.setdefault((kind, finding['subject']), []).append(
                (process, finding))
    for (kind, subject), told in found.items():
        first, finding = told[0]
        more = f' (and {len(told) - 1} other processes)' * (len(told) > 1)
        yield Problem(kind, subject,
                      f'{finding["text"]}; {first} says so{more}, for '
                      f'{finding["since"] + first.age:.0f} s',
                      finding['remedy'], first.host)


# Services

def _unanswered(cloud: clouds.Cloud, outcomes: Outcomes
                ) -> Iterable[Problem]:
    """Those that did not answer this command, and nobody has said why."""
    told = {service['id']: process for process, service in cloud.services()}
    full = {service['id'] for _, service in cloud.services()
            if service['full']}
    named = {*_without_receiver(cloud)}
    failed: dict[tuple[str, str, str], list[clouds.Listed]] = {}
    for instance_id, outcome in outcomes.items():
        listed = cloud.listed.get(instance_id)
        process = told.get(instance_id.hex())
        if (listed is None or listed.is_expired
                or outcome.kind == probe.ANSWERED
                or listed.instance.host in named
                or process is not None and _is_named(process)
                or outcome.kind == probe.SILENT
                and instance_id.hex() in full):
            continue
        key = (outcome.kind, listed.instance.endpoints[-1], outcome.why)
        failed.setdefault(key, []).append(listed)
    for (kind, endpoint, why), those in failed.items():
        host = those[0].instance.host
        yield Problem(
            'no_answer', endpoint,
            f'{_listed_names(those)} {_are(those)} registered, but '
            f'{_do(those)} not answer this command at {endpoint}: {why}',
            _remedy(kind, endpoint, host), host)


def _is_named(process: clouds.Process) -> bool:
    return (process.is_gone() or process.state == processes.STOPPED
            or is_late(process))


def _remedy(kind: str, endpoint: str, host: str) -> str:
    if kind == probe.UNREACHABLE and endpoint.startswith('tcp://'):
        return (f'see whether the receiver or the service on {host} runs, '
                'whether a firewall blocks the port, and whether '
                'rpc_zmq_host leads to that node')
    if kind == probe.ABSENT:
        return (f'see on {host} whether the process runs, and whether it and '
                'the receiver have the same rpc_zmq_ipc_dir')
    if kind == probe.UNREACHABLE:
        return ('see who removes files in rpc_zmq_ipc_dir; the service binds '
                'its socket again within seconds, or restart it')
    return (f'see on {host} at what the process stands (py-spy dump); restart '
            'it')


def _unlisted(cloud: clouds.Cloud) -> Iterable[Problem]:
    if cloud.trouble or not cloud.listed and cloud.bad:
        return
    for process in _alive(cloud):
        lost = [service for service in process.facts['services']
                if service['listed'] and service['up'] > _NEW
                and not _is_listed(cloud, service['id'])]
        if lost and not process.facts['findings']:
            yield Problem(
                'unlisted', str(process),
                f'{process} listens for {_label(lost[0])}'
                + f' and {len(lost) - 1} more' * (len(lost) > 1)
                + ', but the registry does not list it, so nobody finds it',
                'see in its log why it could not register; it tries on by '
                'itself', process.host)


def _is_listed(cloud: clouds.Cloud, instance_id: str) -> bool:
    try:
        return bytes.fromhex(instance_id) in cloud.listed
    except ValueError:
        return True


def _busy(cloud: clouds.Cloud) -> Iterable[Problem]:
    for process in _alive(cloud):
        kinds = {each['kind'] for each in process.facts['findings']}
        for service in process.facts['services']:
            busy, workers = service['busy'], service['workers']
            if 'stuck_workers' in kinds or not workers or not busy:
                continue
            if (busy >= workers and service['longest'] > _STUCK
                    and service['oldest'] > _STUCK):
                yield Problem(
                    'stuck_workers', _label(service),
                    f'All {workers} workers of {_label(service)} in '
                    f'{process} are busy, one for {service["longest"]:.0f} '
                    f's, and {service["backlog"]} messages wait, the oldest '
                    f'for {service["oldest"]:.0f} s',
                    'see at what the workers stand (py-spy dump): a database '
                    'or another service may not answer. Otherwise raise '
                    'executor_thread_pool_size, or start more servers',
                    process.host)
        if process.facts['outbox_silent'] > _SILENT:
            yield Problem(
                'stuck_thread', str(process),
                f'The outbox of {process} has not answered for '
                f'{process.facts["outbox_silent"]:.0f} s',
                'see at what it stands (py-spy dump); restart it',
                process.host)


# Senders

def _waiting(cloud: clouds.Cloud) -> Iterable[Problem]:
    found: dict[tuple[str, ...], list[tuple[clouds.Process, Any]]] = {}
    for process in cloud.processes:
        if process.is_gone():
            continue
        for each in process.facts['pending']:
            oldest = each['oldest'] + min(process.age, limit(process))
            if each['oldest'] > 0 and oldest > _OLD:
                found.setdefault(
                    (each['exchange'], each['topic'], each['server'],
                     'waiting' if each['where'] == 'waiting' else 'sent'),
                    []).append((process, {**each, 'oldest': oldest}))
    for (exchange, topic, server, where), held in found.items():
        count = sum(each['count'] for _, each in held)
        oldest = max(each['oldest'] for _, each in held)
        name = f'{topic}.{server}' if server else topic
        senders = _names([process for process, _ in held])
        text = f'{count} messages have waited for up to {oldest:.0f} s for '
        if where == 'waiting':
            yield Problem(
                'no_listener', name, f'{text}{name} (exchange {exchange}): '
                f'nobody listens there, or can be reached. They are with '
                f'{senders}',
                'start a service that listens there, or stop sending; after '
                'rpc_message_ttl they are dropped')
        else:
            to = next((each['to'] for _, each in held if each['to']), '')
            yield Problem(
                'old_messages', name, f'{text}{name} (exchange {exchange})'
                f' to acknowledge them{to and f", now {to}"}. They are with '
                f'{senders}',
                'see to that service: it is too slow, stands still or is '
                'cut off')


# Clocks and versions

def _clocks(cloud: clouds.Cloud) -> Iterable[Problem]:
    known = sorted(process.clock for process in cloud.processes
                   if process.clock is not None)
    if not known:
        yield from _clocks_by_age(cloud)
        return
    usual = known[len(known) // 2]
    if abs(usual) > _WRONG_CLOCK:
        yield Problem(
            'clock', cloud.place,
            f'The clock of the registry is {_ahead(-usual)} of those of most '
            'nodes', 'set the clock of the machine of the registry (NTP)')
    wrong = {process.host: process.clock - usual
             for process in cloud.processes if process.clock is not None
             and abs(process.clock - usual) > _WRONG_CLOCK}
    for host, seconds in wrong.items():
        yield _clock(host, seconds)


def _clocks_by_age(cloud: clouds.Cloud) -> Iterable[Problem]:
    """Where no server tells the time: facts that are old by their clock, of
    processes of which Look has seen that they go on.
    """
    wrong = {process.host: process.clock_seen for process in cloud.processes
             if process.clock_seen is not None
             and abs(process.clock_seen) > limit(process) + _WRONG_CLOCK}
    for host, seconds in wrong.items():
        yield _clock(host, seconds)


def _clock(host: str, seconds: float) -> Problem:
    return Problem('clock', host,
                   f'The clock of {host} is {_ahead(seconds)} of that of the '
                   'other nodes', f'set the clock of {host} (NTP)', host)


def _ahead(seconds: float) -> str:
    return f'{abs(seconds):.0f} s {"ahead" if seconds > 0 else "behind"}'


def _differences(cloud: clouds.Cloud) -> Iterable[Problem]:
    alive = _alive(cloud)
    for what, field, remedy in (
            ('versions of the protocol', 'protocol',
             'bring all nodes to the same release (docs/upgrades.md)'),
            ('modes of encryption', 'encryption',
             'configure all nodes alike; those that differ do not reach each '
             'other')):
        hosts: dict[str, set[str]] = {}
        for process in alive:
            value = str(process.facts['process'][field])
            hosts.setdefault(value, set()).add(process.host)
        if len(hosts) > 1:
            told = '; '.join(f'{value or "none"} on {_few(of)}'
                             for value, of in sorted(hosts.items()))
            yield Problem(f'different_{field}', field,
                          f'There are {len(hosts)} {what}: {told}', remedy)
    older = older_instances(cloud)
    if older and alive:
        hosts_of = {listed.instance.host for listed in older}
        yield Problem(
            'older_release', 'facts',
            f'{len(older)} services are registered and tell nothing of '
            f'themselves: {_listed_names(older)} on {_few(hosts_of)}. They '
            'are of an older release',
            'upgrade them; until then status knows only their records')


def older_instances(cloud: clouds.Cloud) -> list[clouds.Listed]:
    """The instances that no process tells of. A process that had to leave
    something out may mean those of its host.
    """
    told = {service['id'] for _, service in cloud.services()}
    vague = {process.host for process in cloud.processes
             if process.facts['left_out'].get('services')}
    return [listed for instance_id, listed in cloud.listed.items()
            if instance_id.hex() not in told and not listed.is_expired
            and listed.instance.host not in vague]


# Names

def _name(service: dict[str, Any]) -> tuple[Any, ...]:
    return (service['kind'], tuple(map(tuple, service['topics'])),
            service['server'], service['pool'])


def _label(service: dict[str, Any]) -> str:
    topics = ', '.join(name for _, name in service['topics'][:_NAMED])
    return f'{topics}.{service["server"]}' if service['server'] else topics


def _topics_of(told: Iterable[clouds.Process]) -> str:
    labels = sorted({_label(service) for process in told
                     for service in process.facts['services']})
    more = len(labels) - _NAMED
    return (', '.join(labels[:_NAMED]) + f' and {more} more' * (more > 0)
            or 'no services')


def _names(named: list[clouds.Process]) -> str:
    return _few(map(str, named))


def _few(names: Iterable[str]) -> str:
    names = sorted(set(names))
    more = len(names) - _NAMED
    return ', '.join(names[:_NAMED]) + f' and {more} more' * (more > 0)


def _listed_names(those: list[clouds.Listed]) -> str:
    counts = collections.Counter(
        (f'{name}.{each.instance.server}' if each.instance.server else name)
        for each in those for name in {topic[2] for topic in each.topics})
    return _few(counts)


def _are(those: list[Any]) -> str:
    return 'is' if len(those) == 1 else 'are'


def _do(those: list[Any]) -> str:
    return 'does' if len(those) == 1 else 'do'
