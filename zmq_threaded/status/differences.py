# SPDX-License-Identifier: Apache-2.0
"""Clocks and releases that are not alike on all nodes (pure)."""

from collections.abc import Iterable

from zmq_threaded import options
from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import problem

# Seconds by which a clock is wrong.
_WRONG_CLOCK = 5.0
_MODES = (options.DISABLED, options.CONNECT, options.SERVE, options.REQUIRED)


def clocks(cloud: clouds.Cloud) -> Iterable[problem.Problem]:
    """Nodes, or the registry, whose clock is wrong."""
    known = sorted(process.clock for process in cloud.processes
                   if process.clock is not None)
    if not known:
        yield from _clocks_by_age(cloud)
        return
    usual = known[len(known) // 2]
    if abs(usual) > _WRONG_CLOCK:
        yield problem.Problem(
            'clock', cloud.place,
            f'The clock of the registry is {_ahead(-usual)} of those of most '
            'nodes', 'set the clock of the machine of the registry (NTP)')
    wrong = {process.host: process.clock - usual
             for process in cloud.processes if process.clock is not None
             and abs(process.clock - usual) > _WRONG_CLOCK}
    for host, seconds in wrong.items():
        yield _clock(host, seconds)


def _clocks_by_age(cloud: clouds.Cloud) -> Iterable[problem.Problem]:
    """Where no server tells the time: facts that are old by their clock, of
    processes of which Look has seen that they go on.
    """
    wrong = {process.host: process.clock_seen for process in cloud.processes
             if process.clock_seen is not None
             and abs(process.clock_seen) > (problem.limit(process)
                                            + _WRONG_CLOCK)}
    for host, seconds in wrong.items():
        yield _clock(host, seconds)


def _clock(host: str, seconds: float) -> problem.Problem:
    return problem.Problem('clock', host,
                   f'The clock of {host} is {_ahead(seconds)} of that of the '
                   'other nodes', f'set the clock of {host} (NTP)', host)


def _ahead(seconds: float) -> str:
    return f'{abs(seconds):.0f} s {"ahead" if seconds > 0 else "behind"}'


def releases(cloud: clouds.Cloud) -> Iterable[problem.Problem]:
    """Versions and modes of encryption that differ."""
    alive = problem.alive(cloud)
    for what, field, explain in (
            ('versions of the protocol', 'protocol', _of_protocol),
            ('modes of encryption', 'encryption', _of_encryption)):
        hosts: dict[str, set[str]] = {}
        for process in alive:
            value = str(process.facts['process'][field])
            hosts.setdefault(value, set()).add(process.host)
        if len(hosts) > 1:
            told = '; '.join(f'{value or "none"} on {problem.few(of)}'
                             for value, of in sorted(hosts.items()))
            harm, remedy = explain(hosts)
            yield problem.Problem(f'different_{field}', field,
                          f'There are {len(hosts)} {what}: {told}{harm}',
                          remedy)
    older = problem.older_instances(cloud)
    if older and alive:
        hosts_of = {listed.instance.host for listed in older}
        yield problem.Problem(
            'older_release', 'facts',
            f'{len(older)} services are registered and tell nothing of '
            f'themselves: {problem.listed_names(older)} on '
            f'{problem.few(hosts_of)}. They are of an older release',
            'upgrade them; until then status knows only their records')


def _of_protocol(found: Iterable[str]) -> tuple[str, str]:
    return '', 'bring all nodes to the same release (docs/upgrades.md)'


def _of_encryption(found: Iterable[str]) -> tuple[str, str]:
    """What does not work between processes with these modes, and what to do;
    the table of docs/encryption.md.
    """
    modes = [mode for mode in _MODES if mode in found]
    is_open = (options.DISABLED, options.CONNECT)
    open_ones = [mode for mode in modes if mode in is_open]
    encrypted = [mode for mode in modes if mode not in is_open]
    harm = []
    if options.DISABLED in modes and encrypted:
        harm.append('processes with disabled cannot use the TCP ports of '
                    f'those with {" or ".join(encrypted)}')
    if options.REQUIRED in modes and open_ones:
        harm.append('processes with required do not use the TCP ports of '
                    f'those with {" or ".join(open_ones)}')
    if not harm:
        return '', ('it is as it should be while encryption is being '
                    'introduced (docs/encryption.md); then configure all '
                    'nodes alike')
    below = _MODES.index(modes[-1]) - 1
    low = [mode for mode in modes if mode in _MODES[:below]]
    return f'. So {", and ".join(harm)}', (
        f'set rpc_zmq_encryption = {_MODES[below]} and the keys for the '
        f'processes that have {" or ".join(low)}, and restart them. Only '
        f'neighbours in the order {", ".join(_MODES)} can talk to each other '
        '(docs/encryption.md)')
