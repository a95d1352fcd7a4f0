# SPDX-License-Identifier: Apache-2.0
"""The verb ``status``: the whole cloud on one screen, and first of all what
is wrong and what to do.
"""

import argparse
import contextlib
from typing import Any

from zmq_threaded import options
from zmq_threaded.cli import bridge
from zmq_threaded.cli import configuration
from zmq_threaded.cli import details
from zmq_threaded.cli import looks
from zmq_threaded.cli import output
from zmq_threaded.cli import overview
from zmq_threaded.journal import place as places
from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import journals
from zmq_threaded.status import probe
from zmq_threaded.status import problem
from zmq_threaded.status import problems

# Problems that people are shown.
_SHOWN = 20
# Seconds: for an answer of one service, and for a second answer of one that
# gave none.
_ANSWER, _PATIENT = 1.0, 3.0


def add(verbs) -> None:
    """Add the parser of this verb."""
    parser = verbs.add_parser(
        'status', help='show what is wrong, and the whole cloud',
        description='Show what is wrong and what to do; then the registry, '
                    'the nodes, the topics, the senders whose messages are '
                    'not acknowledged, and the journals of this node.')
    parser.add_argument('topic', nargs='?', metavar='TOPIC',
                        help='show this topic in detail: '
                             + overview.TOPIC_HELP)
    parser.add_argument('--node', metavar='NAME',
                        help='show this node in detail')
    parser.add_argument('--process', metavar='PID',
                        help='show this process in detail: its pid, or a '
                             'part of its name')
    parser.add_argument('--no-ask', action='store_true',
                        help='do not ask the services themselves whether '
                             'they answer')
    configuration.add_options(parser)
    output.add_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show it; returns the exit code."""
    conf, settings = configuration.read(arguments)
    cloud, found = looked(settings, not arguments.no_ask)
    if cloud.trouble and not cloud.processes:
        raise output.CannotAsk(
            f'{cloud.trouble}. Nothing is known of this node either, by the '
            f'files in {cloud.ipc_dir}')
    chosen = details.Chosen(arguments.topic, arguments.node,
                            arguments.process)
    known = bridge.of(conf, settings.bridge, cloud)
    output.show(arguments, {**_document(cloud, found, chosen),
                            **({'bridge': known} if known else {})},
                [*_lines(found), *_tables(cloud, chosen),
                 *bridge.parts(known)])
    return 1 if found else 0


def looked(settings: options.Settings, asks: bool
           ) -> tuple[clouds.Cloud, list[problem.Problem]]:
    """The cloud, and what is wrong with it.

    :param asks: ask the services whether they answer
    :raises: output.CannotAsk
    """
    with looks.opened(settings) as look:
        cloud = look.look_twice()
        cloud.ipc_dir = look.ipc_dir
    journals.look(cloud, places.of(settings, cloud.ipc_dir).path)
    outcomes = _asked(settings, cloud) if asks else {}
    return cloud, problems.of(cloud, outcomes)


def _asked(settings: options.Settings, cloud: clouds.Cloud
           ) -> dict[bytes, probe.Outcome]:
    wanted = [listed.instance for listed in cloud.listed.values()
              if not listed.is_expired]
    found: dict[bytes, probe.Outcome] = {}
    for limit in (_ANSWER, _PATIENT):
        with contextlib.closing(probe.Prober(settings, limit)) as prober:
            for instance, outcomes in prober.ask_all(wanted):
                found[instance.id] = outcomes[-1]
        # A busy machine, or one that was just starting: once more.
        wanted = [instance for instance in wanted
                  if found[instance.id].kind != probe.ANSWERED]
        if not wanted:
            break
    return found


def _lines(found: list[problem.Problem]) -> list[str]:
    if not found:
        return ['All is well.']
    lines = [f'{len(found)} {"thing is" if len(found) == 1 else "things are"}'
             ' wrong:']
    for number, each in enumerate(found[:_SHOWN], 1):
        lines += [f'{number:>3}. {each.text}.',
                  f'     What to do: {each.remedy}.']
    if len(found) > _SHOWN:
        lines.append(f'     And {len(found) - _SHOWN} more: -o json has all.')
    return lines


def _tables(cloud: clouds.Cloud, chosen: details.Chosen) -> list[Any]:
    return details.parts(cloud, chosen) if chosen else overview.parts(cloud)


def _document(cloud: clouds.Cloud, found: list[problem.Problem],
              chosen: details.Chosen) -> dict[str, Any]:
    shown = (details.document(cloud, chosen) if chosen
             else overview.document(cloud))
    return {'problems': [each.document() for each in found], **shown}
