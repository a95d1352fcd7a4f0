# SPDX-License-Identifier: Apache-2.0
"""Services that do not answer, are not listed, or have too much to do (pure).
"""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import probe
from zmq_threaded.status import problem
from zmq_threaded.status import processes

Outcomes = dict[bytes, probe.Outcome]
# Seconds: of an outbox that does not answer; in which a new service is listed.
_SILENT, _NEW = 20.0, 10.0
_RECEIVER = 'oslo-messaging-zmq-receiver'
# As record.Instance shows itself.
_INSTANCE = re.compile(r'\(instance ([0-9a-f]{32})\)')


@dataclasses.dataclass(frozen=True)
class Explained:
    """Whose trouble merely follows from a cause that is named.

    :ivar hosts: the nodes whose receiver is of no use
    :ivar behind: ids of the instances behind these receivers, hexadecimal
    :ivar idle: ids of the instances of processes that stand still, and of
        those whose workers are stuck
    :ivar endpoints: at which nobody answers for one of these causes

    Thread: any.
    """

    hosts: frozenset[str]
    behind: frozenset[str]
    idle: frozenset[str]
    endpoints: frozenset[str]

    def has(self, process: clouds.Process, finding: dict[str, Any]) -> bool:
        """Whether a finding of a process is explained."""
        kind, subject = finding['kind'], finding['subject']
        if kind in ('unreachable', 'others_cannot_reach'):
            return process.host in self.hosts
        if kind == 'unanswered':
            return self.is_behind(subject) or _id_in(subject) in self.idle
        return kind == 'cannot_reach' and subject in self.endpoints

    def is_behind(self, instance: str) -> bool:
        """Whether an instance, as text, is behind a receiver of no use."""
        return _id_in(instance) in self.behind


def _id_in(text: str) -> str:
    found = _INSTANCE.search(text)
    return found[1] if found else ''


def explained(cloud: clouds.Cloud, outcomes: Outcomes) -> Explained:
    """What follows from receivers and processes that are named."""
    hosts = {*problem.without_receiver(cloud),
             *problem.standing_receivers(cloud), *_mute(cloud, outcomes)}
    standing = {service['id'] for process, service in cloud.services()
                if not process.is_gone() and (
                    process.is_sure and problem.stands_still(process, cloud)
                    or process.state == processes.STOPPED)}
    behind, endpoints = set(), set()
    for instance_id, listed in cloud.listed.items():
        is_behind = listed.instance.host in hosts
        if is_behind:
            behind.add(instance_id.hex())
        # Other services share the endpoint of a receiver.
        if is_behind or (instance_id.hex() in standing
                         and not listed.instance.receiver):
            endpoints.add(listed.instance.endpoints[-1])
    stuck = {service['id'] for process in problem.alive(cloud)
             for service in _stuck(process)}
    return Explained(frozenset(hosts), frozenset(behind),
                     frozenset(standing | stuck), frozenset(endpoints))


def _mute(cloud: clouds.Cloud, outcomes: Outcomes
          ) -> dict[str, list[clouds.Process]]:
    """The processes behind a receiver that answers neither them nor this
    command, by host.
    """
    asked: dict[str, set[str]] = {}
    for instance_id, outcome in outcomes.items():
        if instance_id in cloud.listed:
            endpoint = cloud.listed[instance_id].instance.endpoints[-1]
            asked.setdefault(endpoint, set()).add(outcome.kind)
    standing = problem.standing_receivers(cloud)
    return {
        host: behind for host, behind in problem.mute_receivers(cloud).items()
        if host not in standing
        and (kinds := asked.get(behind[0].facts['receiver']['endpoint']))
        and kinds <= {probe.SILENT, probe.UNREACHABLE}}


def receivers(cloud: clouds.Cloud, outcomes: Outcomes
              ) -> Iterable[problem.Problem]:
    """Receivers that are down, or there and of no use. What is known to stand
    still is named as a process.
    """
    for host, behind in problem.without_receiver(cloud).items():
        yield problem.Problem(
            'receiver_down', host,
            f'The receiver of {host} ({_endpoint(behind)}) is down, so '
            f'nobody reaches {_services(behind)}',
            f'start {_RECEIVER} --config-file <the file of the services> on '
            f'{host}', host)
    for host, behind in _mute(cloud, outcomes).items():
        yield problem.Problem(
            'receiver_silent', host,
            f'The receiver of {host} ({_endpoint(behind)}) is there and does '
            f'not answer, neither this command nor the services of {host}, '
            f'so nobody reaches {_services(problem.behind(cloud, host))}: it '
            'stands still, or its port is blocked',
            f'see on {host} whether {_RECEIVER} is stopped (kill -CONT) or '
            'hangs (restart it); if it runs, see whether a firewall of that '
            'node blocks the port', host)


def _endpoint(behind: list[clouds.Process]) -> str:
    return behind[0].facts['receiver']['endpoint']


def _services(behind: list[clouds.Process]) -> str:
    count = sum(len(each.facts['services']) for each in behind)
    return f'the {count} services on it: {problem.topics_of(behind)}'


def cut_off(cloud: clouds.Cloud, host: str) -> str:
    """What nobody reaches while the receiver of a host is of no use, as an
    end of a sentence.
    """
    return f'nobody reaches {_services(problem.behind(cloud, host))}'


def unanswered(cloud: clouds.Cloud, outcomes: Outcomes, cause: Explained
                ) -> Iterable[problem.Problem]:
    """Those that did not answer this command, and nobody has said why."""
    told = {service['id']: process for process, service in cloud.services()}
    full = {service['id'] for _, service in cloud.services()
            if service['full']}
    failed: dict[tuple[str, str, str], list[clouds.Listed]] = {}
    for instance_id, outcome in outcomes.items():
        listed = cloud.listed.get(instance_id)
        process = told.get(instance_id.hex())
        if (listed is None or listed.is_expired
                or outcome.kind == probe.ANSWERED
                or listed.instance.host in cause.hosts
                or process is not None and (
                    process.is_gone() or problem.stands_still(process, cloud))
                or outcome.kind == probe.SILENT
                and instance_id.hex() in full):
            continue
        key = (outcome.kind, listed.instance.endpoints[-1], outcome.why)
        failed.setdefault(key, []).append(listed)
    for (kind, endpoint, why), those in failed.items():
        host = those[0].instance.host
        yield problem.Problem(
            'no_answer', endpoint,
            f'{problem.listed_names(those)} {_are(those)} registered, but '
            f'{_do(those)} not answer this command at {endpoint}: {why}',
            _remedy(kind, endpoint, host), host)


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


def unlisted(cloud: clouds.Cloud) -> Iterable[problem.Problem]:
    """Those that mean to be registered, and are not."""
    if cloud.trouble or not cloud.listed and cloud.bad:
        return
    for process in problem.alive(cloud):
        lost = [service for service in process.facts['services']
                if service['listed'] and service['up'] > _NEW
                and not _is_listed(cloud, service['id'])]
        if lost and not process.facts['findings']:
            yield problem.Problem(
                'unlisted', str(process),
                f'{process} listens for {problem.label(lost[0])}'
                + f' and {len(lost) - 1} more' * (len(lost) > 1)
                + ', but the registry does not list it, so nobody finds it',
                'see in its log why it could not register; it tries on by '
                'itself', process.host)


def _is_listed(cloud: clouds.Cloud, instance_id: str) -> bool:
    try:
        return bytes.fromhex(instance_id) in cloud.listed
    except ValueError:
        return True


def busy(cloud: clouds.Cloud) -> Iterable[problem.Problem]:
    """Those whose workers are stuck, and senders whose outbox is."""
    for process in problem.alive(cloud):
        said = _said_to_be_stuck(process)
        for service in _stuck(process):
            if service['id'] in said:
                continue
            yield problem.Problem(
                'stuck_workers', problem.label(service),
                f'All {service["workers"]} workers of '
                f'{problem.label(service)} in {process} are busy, one for '
                f'{service["longest"]:.0f} s, and {service["backlog"]} '
                f'messages wait, the oldest for {service["oldest"]:.0f} s',
                'see at what the workers stand (py-spy dump): a database '
                'or another service may not answer. Otherwise raise '
                'executor_thread_pool_size, or start more servers. If the '
                'work takes so long rightfully, raise '
                'rpc_zmq_stuck_workers_after', process.host)
        if process.facts['outbox_silent'] > _SILENT:
            yield problem.Problem(
                'stuck_thread', str(process),
                f'The outbox of {process} has not answered for '
                f'{process.facts["outbox_silent"]:.0f} s',
                'see at what it stands (py-spy dump); restart it',
                process.host)


def _stuck(process: clouds.Process) -> list[dict[str, Any]]:
    """The services all of whose workers are at it for too long."""
    limit, said = process.facts['stuck_after'], _said_to_be_stuck(process)
    return [each for each in process.facts['services'] if each['id'] in said
            or each['workers'] and (each['busy'] or 0) >= each['workers']
            and each['longest'] > limit and each['oldest'] > limit]


def _said_to_be_stuck(process: clouds.Process) -> set[str]:
    """The ids of the services of which their process says so itself."""
    return {_id_in(finding['subject']) for finding in process.facts['findings']
            if finding['kind'] == 'stuck_workers'}


def _are(those: list[Any]) -> str:
    return 'is' if len(those) == 1 else 'are'


def _do(those: list[Any]) -> str:
    return 'does' if len(those) == 1 else 'do'
