# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a cloud, and what to do, in plain words (pure).

A cause is named once, and what follows from it is not: behind a receiver that
is down nobody asks why its services do not answer.
"""

from collections.abc import Iterable
from typing import Any

from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import differences
from zmq_threaded.status import journals
from zmq_threaded.status import problem
from zmq_threaded.status import processes
from zmq_threaded.status import services_in_trouble

Outcomes = services_in_trouble.Outcomes
# Seconds: of messages that nobody takes or acknowledges; of which these had
# waited when their process last told of itself; and for which a process has
# not reached the registry.
_OLD, _LASTING, _FAILING = 10.0, 5.0, 5.0
_NAMED = 5
# What becomes of messages without a listener.
_DROPPED = {
    'waiting': 'after rpc_message_ttl they are dropped',
    'kept': 'their journal keeps them for rpc_zmq_custody_ttl, whatever '
    'becomes of the sender; oslo-messaging-zmq custody drop drops them'}
# Findings of processes that status sees itself, and better.
_OWN_KINDS = {'unacknowledged', 'registry'}
# What has an endpoint for its subject: who knows most of the cause is first.
_NOT_REACHED = ('unreachable', 'others_cannot_reach', 'no_answer',
                'cannot_reach')


def of(cloud: clouds.Cloud, outcomes: Outcomes | None = None
       ) -> list[problem.Problem]:
    """All that is wrong, the worst first.

    :param outcomes: of the instances that were asked
    """
    outcomes = outcomes or {}
    cause = services_in_trouble.explained(cloud, outcomes)
    return _without_echoes([
        *_nobody(cloud), *_registry(cloud), *_nodes(cloud),
        *services_in_trouble.receivers(cloud, outcomes),
        *_standing(cloud), *_gone(cloud), *_found(cloud, cause),
        *services_in_trouble.unanswered(cloud, outcomes, cause),
        *services_in_trouble.unlisted(cloud),
        *services_in_trouble.busy(cloud), *_waiting(cloud, cause),
        *journals.problems(cloud),
        *differences.clocks(cloud), *differences.releases(cloud)])


def _without_echoes(found: list[problem.Problem]) -> list[problem.Problem]:
    """Of those that say of one endpoint that nobody answers there, the one
    that knows most.
    """
    told = {(each.kind, each.subject) for each in found}
    return [each for each in found if each.kind not in _NOT_REACHED or not any(
        (better, each.subject) in told
        for better in _NOT_REACHED[:_NOT_REACHED.index(each.kind)])]


def _nobody(cloud: clouds.Cloud) -> Iterable[problem.Problem]:
    if not (cloud.trouble or cloud.processes or cloud.listed):
        yield problem.Problem(
            'nobody', cloud.place, 'Nobody is there: no service is '
            f'registered ({cloud.place}), and no process tells of itself',
            'see whether this is the configuration of the services '
            '(--config-file): transport_url and rpc_zmq_ipc_dir; otherwise '
            'start them')


# The registry

def _registry(cloud: clouds.Cloud) -> Iterable[problem.Problem]:
    if cloud.trouble:
        yield problem.Problem(
            'registry', cloud.place,
            f'The registry does not answer: {cloud.trouble}. What follows is '
            'known of this node alone',
            'see whether the registry runs (a paused one takes connections '
            'and says nothing) and can be reached from here')
        return
    cut_off = [process for process in problem.alive(cloud)
               if not process.facts['registry']['answers']
               and process.facts['registry']['failing'] > _FAILING]
    if cut_off:
        why = cut_off[0].facts['registry']['why']
        yield problem.Problem(
            'registry', cloud.place,
            'The registry answers here, but not '
            f'{problem.names(cut_off)}: {why}',
            'see whether these nodes can reach the registry',
            cut_off[0].host)


# Processes

def _nodes(cloud: clouds.Cloud) -> Iterable[problem.Problem]:
    for host, there in _silent_nodes(cloud).items():
        seconds = min(process.age for process in there)
        yield problem.Problem(
            'node_silent', host,
            f'Nothing of {host} has said anything for {seconds:.0f} s: it is '
            f'down, or cut off. Its {len(there)} processes served '
            f'{problem.topics_of(there)}',
            f'see whether {host} runs, and reaches the registry', host)


def _silent_nodes(cloud: clouds.Cloud) -> dict[str, list[clouds.Process]]:
    """The processes of nodes with several of them, none of which is heard."""
    of_host: dict[str, list[clouds.Process]] = {}
    for process in cloud.processes:
        of_host.setdefault(process.host, []).append(process)
    return {host: there for host, there in of_host.items()
            if len(there) > 1
            and all(_is_silent(each, cloud) for each in there)}


def _is_silent(process: clouds.Process, cloud: clouds.Cloud) -> bool:
    return process.state == processes.UNKNOWN and (
        process.is_expired
        or problem.is_late(process, cloud.trouble) and process.is_sure)


def _standing(cloud: clouds.Cloud) -> Iterable[problem.Problem]:
    named = _silent_nodes(cloud)
    for process in cloud.processes:
        if process.is_gone() or process.host in named:
            continue
        if process.state == processes.STOPPED:
            yield problem.Problem(
                'stopped', str(process),
                f'{process} is stopped (SIGSTOP, or a debugger), for '
                f'{process.age:.0f} s at the most; '
                f'{_what_of(process, cloud)}',
                f'kill -CONT {process.facts["process"]["pid"]} on '
                f'{process.host}', process.host)
        elif problem.is_late(process, cloud.trouble) and process.is_sure:
            yield problem.Problem(
                'silent', str(process),
                f'{process} has said nothing for {process.age:.0f} s: it '
                'hangs, was stopped or is cut off; '
                f'{_what_of(process, cloud)}',
                f'see on {process.host} whether it runs (ps, py-spy dump) '
                'and can reach the registry; restart it if it does not go '
                'on', process.host)


def _what_of(process: clouds.Process, cloud: clouds.Cloud) -> str:
    if process.facts['kind'] == 'receiver':
        return services_in_trouble.cut_off(cloud, process.host)
    return _last_said(process)


def _last_said(process: clouds.Process) -> str:
    said = process.facts
    parts = [f'{len(said["services"])} services']
    busy = [each for each in said['services'] if each['busy']]
    if busy:
        parts.append(f'{sum(each["busy"] for each in busy)} busy workers')
    if said['unacknowledged']:
        parts.append(f'{said["unacknowledged"]} unacknowledged messages')
    return (f'it last told of {", ".join(parts)} '
            f'({problem.topics_of([process])})')


def _gone(cloud: clouds.Cloud) -> Iterable[problem.Problem]:
    served = {problem.name_of(service) for process, service in cloud.services()
              if not process.is_gone()}
    listed = {instance_id.hex() for instance_id in cloud.listed}
    named = _silent_nodes(cloud)
    for process in cloud.processes:
        if not process.is_gone() or process.host in named:
            continue
        # A process may end between its registration and its next document.
        lost = [service for service in process.facts['services']
                if (service['listed'] or service['id'] in listed)
                and problem.name_of(service) not in served]
        held = process.facts['unacknowledged']
        if not lost and not held:
            continue
        what = []
        if lost:
            what.append('nobody else serves '
                        + ', '.join(sorted({problem.label(each)
                                            for each in lost})[:_NAMED]))
        if held:
            what.append(f'{held} messages that were not acknowledged went '
                        'with it, but for those that rpc_zmq_custody keeps '
                        'on disk')
        yield _end(process, '; '.join(what))


def _end(process: clouds.Process, what: str) -> problem.Problem:
    if process.state == processes.GONE:
        return problem.Problem(
            'died', str(process),
            f'{process} has ended without a word (killed, or crashed): {what}',
            f'start it again on {process.host}; see its log and the '
            'journal of the kernel (out of memory?)', process.host)
    return problem.Problem(
        'silent', str(process),
        f'{process} has said nothing for {process.age:.0f} s, and its record '
        f'has expired: it was killed, hangs, or is cut off; {what}; '
        f'{_last_said(process)}',
        f'see on {process.host} whether it runs, and whether the node and '
        'the registry reach each other; start it again', process.host)


# What processes find themselves

def _found(cloud: clouds.Cloud, cause: services_in_trouble.Explained
           ) -> Iterable[problem.Problem]:
    found: dict[tuple[str, str], list[tuple[clouds.Process, Any]]] = {}
    for process in problem.alive(cloud):
        for finding in process.facts['findings']:
            kind = finding['kind']
            # A registry that does not answer confirms no records.
            if (kind in _OWN_KINDS or cause.has(process, finding)
                    or kind == 'unlisted' and _lacks_registry(process, cloud)):
                continue
            found.setdefault((kind, finding['subject']), []).append(
                (process, finding))
    for (kind, subject), told in found.items():
        first, finding = told[0]
        more = f' (and {len(told) - 1} other processes)' * (len(told) > 1)
        yield problem.Problem(kind, subject,
                      f'{finding["text"]}; {first} says so{more}, for '
                      f'{finding["since"] + first.age:.0f} s',
                      finding['remedy'], first.host)


def _lacks_registry(process: clouds.Process, cloud: clouds.Cloud) -> bool:
    registry = process.facts['registry']
    return bool(cloud.trouble) or (not registry['answers']
                                   and registry['failing'] > _FAILING)


# Senders

def _waiting(cloud: clouds.Cloud, cause: services_in_trouble.Explained
             ) -> Iterable[problem.Problem]:
    found: dict[tuple[str, ...], list[tuple[clouds.Process, Any]]] = {}
    for process in cloud.processes:
        if process.is_gone():
            continue
        for each in process.facts['pending']:
            # What had only just been sent is acknowledged by now, perhaps.
            if (each['oldest'] < _LASTING or cause.is_behind(each['to'])
                    or _is_cut_off(each, cloud, cause)):
                continue
            oldest = each['oldest'] + min(process.age, problem.limit(process))
            if oldest > _OLD:
                found.setdefault(
                    (each['exchange'], each['topic'], each['server'],
                     'kept' if each.get('kept') else 'waiting'
                     if each['where'] == 'waiting' else 'sent'),
                    []).append((process, {**each, 'oldest': oldest}))
    for (exchange, topic, server, where), held in found.items():
        count = sum(each['count'] for _, each in held)
        oldest = max(each['oldest'] for _, each in held)
        name = problem.name_at(topic, server)
        senders = problem.names([process for process, _ in held])
        text = f'{count} messages have waited for up to {oldest:.0f} s for '
        if where in _DROPPED:
            yield problem.Problem(
                'no_listener', name, f'{text}{name} (exchange {exchange}): '
                f'nobody listens there, or can be reached. They are with '
                f'{senders}',
                'start a service that listens there, or stop sending; '
                + _DROPPED[where])
        else:
            to = next((each['to'] for _, each in held if each['to']), '')
            yield problem.Problem(
                'old_messages', name, f'{text}{name} (exchange {exchange})'
                f' to acknowledge them{to and f", now {to}"}. They are with '
                f'{senders}',
                'see to that service: it is too slow, stands still or is '
                'cut off')


def _is_cut_off(pending: dict[str, Any], cloud: clouds.Cloud,
                cause: services_in_trouble.Explained) -> bool:
    """Whether all who listen there are behind receivers of no use."""
    if not cause.hosts or pending['kept']:
        return False
    there = [listed.instance for listed in cloud.living()
             if pending['server'] in ('', listed.instance.server)
             and any(topic[1:] == (pending['exchange'], pending['topic'])
                     for topic in listed.topics)]
    return bool(there) and all(each.host in cause.hosts for each in there)
