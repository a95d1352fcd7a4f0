# SPDX-License-Identifier: Apache-2.0
"""Services that do not answer, are not listed, or have too much to do (pure).
"""

from collections.abc import Iterable
from typing import Any

from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import probe
from zmq_threaded.status import problem
from zmq_threaded.status import processes

Outcomes = dict[bytes, probe.Outcome]
# Seconds: for which all workers are at it while messages wait; of an outbox
# that does not answer; in which a new service is listed.
_STUCK, _SILENT, _NEW = 60.0, 20.0, 10.0


def unanswered(cloud: clouds.Cloud, outcomes: Outcomes
                ) -> Iterable[problem.Problem]:
    """Those that did not answer this command, and nobody has said why."""
    told = {service['id']: process for process, service in cloud.services()}
    full = {service['id'] for _, service in cloud.services()
            if service['full']}
    named = {*problem.without_receiver(cloud)}
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
        yield problem.Problem(
            'no_answer', endpoint,
            f'{problem.listed_names(those)} {_are(those)} registered, but '
            f'{_do(those)} not answer this command at {endpoint}: {why}',
            _remedy(kind, endpoint, host), host)


def _is_named(process: clouds.Process) -> bool:
    return (process.is_gone() or process.state == processes.STOPPED
            or problem.is_late(process))


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
        kinds = {each['kind'] for each in process.facts['findings']}
        for service in process.facts['services']:
            busy, workers = service['busy'], service['workers']
            if 'stuck_workers' in kinds or not workers or not busy:
                continue
            if (busy >= workers and service['longest'] > _STUCK
                    and service['oldest'] > _STUCK):
                yield problem.Problem(
                    'stuck_workers', problem.label(service),
                    f'All {workers} workers of {problem.label(service)} in '
                    f'{process} are busy, one for {service["longest"]:.0f} '
                    f's, and {service["backlog"]} messages wait, the oldest '
                    f'for {service["oldest"]:.0f} s',
                    'see at what the workers stand (py-spy dump): a database '
                    'or another service may not answer. Otherwise raise '
                    'executor_thread_pool_size, or start more servers',
                    process.host)
        if process.facts['outbox_silent'] > _SILENT:
            yield problem.Problem(
                'stuck_thread', str(process),
                f'The outbox of {process} has not answered for '
                f'{process.facts["outbox_silent"]:.0f} s',
                'see at what it stands (py-spy dump); restart it',
                process.host)


def _are(those: list[Any]) -> str:
    return 'is' if len(those) == 1 else 'are'


def _do(those: list[Any]) -> str:
    return 'does' if len(those) == 1 else 'do'
