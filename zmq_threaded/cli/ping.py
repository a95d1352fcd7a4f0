# SPDX-License-Identifier: Apache-2.0
"""The verb ``ping``: asks the instances of a topic, over the same way as a
call, whether they are there.
"""

import argparse
import contextlib
import statistics
from typing import Any

from zmq_threaded import options
from zmq_threaded.cli import configuration
from zmq_threaded.cli import looks
from zmq_threaded.cli import output
from zmq_threaded.cli import overview
from zmq_threaded.registry import record
from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import probe

_ANSWER = 3.0
_COLUMNS = ('instance', 'server', 'host', 'endpoint', 'answers', 'min',
            'p50', 'p99', 'why not')


def add(verbs) -> None:
    """Add the parser of this verb."""
    parser = verbs.add_parser(
        'ping', help='ask the services of a topic whether they answer',
        description='Ask each instance of a topic, over the same way as a '
                    'call, whether it is there. No handler hears of it.')
    parser.add_argument('topic', metavar='TOPIC', help=overview.TOPIC_HELP)
    parser.add_argument('--exchange', metavar='NAME',
                        help='only this exchange; all by default')
    parser.add_argument('--server', metavar='NAME', help='only this server')
    parser.add_argument('--count', metavar='N', default=5, type=output.count,
                        help='questions to each (default: 5)')
    configuration.add_options(parser)
    output.add_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask them; returns the exit code."""
    settings = configuration.read(arguments)[1]
    cloud = _looked(settings)
    wanted = _wanted(cloud, arguments)
    if not wanted:
        output.show(arguments, [], [f'Nobody is registered for '
                                    f'{_what(arguments)}.'])
        return 1
    with contextlib.closing(probe.Prober(settings, _ANSWER)) as prober:
        rows = sorted(
            (_row(cloud.listed[instance.id], outcomes)
             for instance, outcomes in prober.ask_all(
                 wanted, arguments.count)),
            key=lambda row: (row['server'], row['host'], row['instance']))
    output.show(arguments, rows, [
        overview.table(_what(arguments), _COLUMNS, rows)])
    return 1 if any(row['why not'] for row in rows) else 0


def _looked(settings: options.Settings) -> clouds.Cloud:
    with looks.opened(settings) as look:
        cloud = look.look()
    if cloud.trouble:
        raise output.CannotAsk(
            f'the registry does not answer: {cloud.trouble}')
    return cloud


def _wanted(cloud: clouds.Cloud, arguments: argparse.Namespace
            ) -> list[record.Instance]:
    """The instances that are asked: those that are registered; of one that
    died only if there is no other.
    """
    found = [listed for listed in cloud.listed.values()
             if any(overview.is_named(topic, arguments.topic)
                    and arguments.exchange in (None, exchange)
                    for _, exchange, topic in listed.topics)
             and arguments.server in (None, listed.instance.server)]
    living = [listed for listed in found if not listed.is_expired]
    return [listed.instance for listed in living or found]


def _what(arguments: argparse.Namespace) -> str:
    name = arguments.topic
    if arguments.server:
        name += f', server {arguments.server}'
    if arguments.exchange:
        name += f', exchange {arguments.exchange}'
    return name


def _row(listed: clouds.Listed, outcomes: list[probe.Outcome]
         ) -> dict[str, Any]:
    instance = listed.instance
    times = sorted(each.seconds for each in outcomes
                   if each.kind == probe.ANSWERED)
    failed = [each.why for each in outcomes if each.kind != probe.ANSWERED]
    why = failed[-1] if failed else ''
    if why and listed.is_expired:
        why += '; its record has expired'
    return {'instance': instance.id.hex(), 'server': instance.server,
            'host': instance.host, 'endpoint': instance.endpoints[-1],
            'answers': f'{len(times)} of {len(outcomes)}',
            'min': times[0] if times else None,
            'p50': statistics.median(times) if times else None,
            'p99': times[int(0.99 * (len(times) - 1) + 0.5)] if times
            else None, 'why not': why}
