# SPDX-License-Identifier: Apache-2.0
"""Turns the results of all contestants into one JSON-able report."""

import os
import platform
import statistics

from load import options as cli

PARTIES = ('client', 'servers', 'broker')
COSTS = ('cpu_seconds', 'voluntary_switches', 'involuntary_switches')


def make_report(contestants, options):
    """Return everything that was measured as a dict.

    The units are in the names of its fields; ratios are those to the baseline.
    """
    return {
        'settings': _settings(options),
        'host': {
            'python': platform.python_version(),
            'machine': platform.machine(),
            'cpus': os.cpu_count(),
        },
        'contestants': [
            _entry(contestant, contestants, options)
            for contestant in contestants
        ],
        'sound': all(contestant.sound() for contestant in contestants),
    }


def spread(values):
    """Return {'median', 'min', 'max'} of the rounds' values.

    All three are None if there are no values.
    """
    if not values:
        return dict.fromkeys(('median', 'min', 'max'))
    return {
        'median': statistics.median(values),
        'min': min(values),
        'max': max(values),
    }


def _settings(options):
    names = (
        'threads',
        'servers',
        'workers',
        'size',
        'seconds',
        'warmup',
        'count',
        'rounds',
        'timeout',
        'drain',
        'baseline',
        'pin',
    )
    return {'mode': options.mode.name} | {
        name: getattr(options, name) for name in names
    }


def _entry(contestant, contestants, options):
    baseline = next(
        each for each in contestants if each.name == options.baseline
    )
    rounds = contestant.rounds
    return {
        'name': contestant.name,
        'url': cli.mask(contestant.url),
        'trouble': contestant.trouble,
        'operations': sum(each.operations for each in rounds),
        'ops_per_second': spread([each.per_second for each in rounds]),
        'delivered_per_second': spread(
            [each.delivered_per_second for each in rounds]
        ),
        'latency_ms': contestant.latencies.summary_ms(),
        **_counts(contestant),
        'failures': {
            name: {'count': failures.count, 'example': failures.example}
            for name, failures in contestant.failures().items()
        },
        'ratio': _ratio(contestant, baseline),
        'cpu_seconds_per_operation': _cpu(rounds),
        'cost_per_operation': _costs(rounds),
        'resources': _resources(rounds),
        'rounds': [_round(each) for each in rounds],
    }


def _counts(contestant):
    """Messages over the whole life of the contestant, warm-up included."""
    tally = contestant.tally
    return {
        'sent': sum(thread.sequence for thread in contestant.workers),
        'delivered': tally.delivered,
        'lost': tally.lost,
        'duplicated': tally.duplicated,
        'wrong': contestant.wrong(),
        'failed': sum(
            failures.count for failures in contestant.failures().values()
        ),
    }


def _ratio(contestant, baseline):
    """Return medians over the rounds of quotients.

    Each quotient divides this contestant's value by the baseline's value in
    the same round.
    """
    pairs = list(zip(contestant.rounds, baseline.rounds))
    return {
        'ops_per_second': _median_quotient(
            (mine.per_second, other.per_second) for mine, other in pairs
        ),
        'delivered_per_second': _median_quotient(
            (mine.delivered_per_second, other.delivered_per_second)
            for mine, other in pairs
        ),
        **{
            level: _median_quotient(
                (mine.latency_ms[level], other.latency_ms[level])
                for mine, other in pairs
            )
            for level in ('p50', 'p99')
        },
    }


def _median_quotient(pairs):
    quotients = [
        mine / other for mine, other in pairs if mine is not None and other
    ]
    return statistics.median(quotients) if quotients else None


def _cpu(rounds):
    operations = sum(each.operations for each in rounds)
    if not operations:
        return {'client': None, 'servers': None}
    return {
        'client': sum(each.client_cpu_seconds() for each in rounds)
        / operations,
        'servers': sum(each.servers_cpu_seconds() for each in rounds)
        / operations,
    }


def _costs(rounds):
    """Return what an operation costs whom.

    None stands for what is not known, as of a broker elsewhere.
    """
    return {who: {what: _per_operation(rounds, who, what) for what in COSTS}
            for who in PARTIES}


def _per_operation(rounds, who, what):
    used = [each.used(who, what) for each in rounds]
    operations = sum(each.operations for each in rounds)
    return None if None in used or not operations else sum(used) / operations


def _resources(rounds):
    if not rounds:
        return None
    first, last = rounds[0], rounds[-1]
    return {
        'client': {
            'after_warmup': _use(first.client_before),
            'end': _use(last.client_after),
            'latency_records_bytes': last.latency_records_bytes,
        },
        'servers': [
            {'after_warmup': _use(before), 'end': _use(after)}
            for before, after in zip(first.servers_before, last.servers_after)
        ],
    }


def _use(sample):
    return {'rss_bytes': sample['rss_bytes'], 'fds': sample['fds']}


def _round(result):
    return {
        'operations': result.operations,
        'seconds': result.seconds,
        'ops_per_second': result.per_second,
        'delivered': result.delivered,
        'delivery_seconds': result.delivery_seconds,
        'delivered_per_second': result.delivered_per_second,
        'latency_ms': result.latency_ms,
    }
