# SPDX-License-Identifier: Apache-2.0
"""The verb ``health``: whether the processes of this node are well, for
probes of containers and for systemd.

It asks nobody but the registry, with one small question, and reads what the
processes of this node have published in their directory.
"""

import argparse
import math
from typing import Any

from zmq_threaded import ipc_directory
from zmq_threaded import options
from zmq_threaded.cli import configuration
from zmq_threaded.cli import green
from zmq_threaded.cli import libraries
from zmq_threaded.cli import output
from zmq_threaded.health import of_node
from zmq_threaded.registry import asking
from zmq_threaded.status import fact_files
from zmq_threaded.status import unwritten

# Seconds within which the registry has to answer; and seconds for which, by
# default, a message may be unacknowledged.
_REGISTRY, _OLDEST = 0.5, 60.0
# Seconds for which the registry has time on the busiest of machines; and what
# the kernel says of this process: nanoseconds on a processor, and of waiting
# for one.
_LONGEST, _SCHEDULED = 10.0, '/proc/self/schedstat'
# A topic of which there is nothing.
_NOTHING = 'zmq_threaded.health'


def add(verbs) -> None:
    """Add the parser of this verb."""
    parser = verbs.add_parser(
        'health', help='say whether the processes of this node are well',
        description='Say whether the processes of this node that use zmq are '
                    'well: their services are registered and can be reached, '
                    'as far as this node can see, the registry answers, '
                    'their threads turn, and no message waits for long. '
                    'Takes less than a second.')
    parser.add_argument(
        '--process', metavar='NAME|PID',
        help='only this process, by its pid or the name of its program')
    parser.add_argument(
        '--oldest', metavar='SECONDS', type=float, default=_OLDEST,
        help='for so long a message may be unacknowledged (default: '
             f'{_OLDEST:.0f})')
    configuration.add_options(parser)
    output.add_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Say it; returns the exit code."""
    green.avoid()
    settings = configuration.read(arguments)[1]
    from zmq_threaded.registry import engines
    try:
        ipc_dir = ipc_directory.find(settings)
        store = engines.opened(settings, ipc_dir)
    except options.InvalidOption as error:
        raise output.CannotAsk(str(error)) from None
    documents = of_node.chosen(fact_files.read(ipc_dir), arguments.process)
    if not documents:
        raise output.CannotAsk(_nobody(arguments.process, ipc_dir))
    # A busy machine takes seconds for these.
    libraries.load(settings)
    found = [of_node.health(each, arguments.oldest) for each in documents]
    trouble = _registry_trouble(store)
    is_well = not trouble and all(each.is_well() for each in found)
    output.show(arguments, _document(found, trouble, store.place, is_well),
                [*_lines(found, trouble, is_well), _table(found)])
    return 0 if is_well else 1


def _nobody(wanted, ipc_dir):
    who = f'no process {wanted}' if wanted else 'no process'
    why = unwritten.explained(ipc_dir)
    cannot_write = f', or cannot write ({why})' if why else ''
    return (f'{who} of this node has said anything in {ipc_dir} '
            '(rpc_zmq_ipc_dir): it does not run, has begun a moment ago, or '
            f'uses another directory{cannot_write}')


def _registry_trouble(store):
    """Why the registry does not answer in time; '' if it does."""
    _, trouble = asking.ask(store, lambda: store.lookup(_NOTHING), _limit())
    # Whoever it waits for ends with this process.
    store.hurry()
    return trouble


def _limit():
    """Seconds for the registry: more where this process gets a processor only
    for a part of the time, for that says nothing of the registry.
    """
    try:
        with open(_SCHEDULED, encoding='ascii') as text:
            ran, waited = map(int, text.read().split()[:2])
        return min(_REGISTRY * (1 + waited / ran), _LONGEST)
    except (OSError, ValueError, ZeroDivisionError):
        return _REGISTRY


def _lines(found, trouble, is_well):
    if is_well:
        yield f'All is well with {_count(found)}.'
    if trouble:
        yield f'The registry does not answer: {trouble}.'
        yield '    What to do: see whether it runs and can be reached.'
    for each in found:
        for wrong in each.troubles:
            note = '' if wrong.is_its_own else ' (a restart mends nothing)'
            yield f'{_name(each.process)}{note}: {wrong.text}.'
            yield f'    What to do: {wrong.remedy}.'


def _count(found):
    count = len({each.process['pid'] for each in found})
    return 'one process' if count == 1 else f'{count} processes'


def _name(process):
    return f'{process["name"]}, process {process["pid"]}'


def _table(found):
    return output.Table(
        'Processes of this node', ('process', 'pid', 'user', 'services',
                                   'last word', 'well'),
        [[each.process['name'], each.process['pid'], each.process['user'],
          each.services, _ago(each.age), 'yes' if each.is_well() else 'NO']
         for each in found])


def _ago(age):
    if age is None:
        return ''
    return 'before this boot' if math.isinf(age) else f'{age:.0f} s ago'


def _document(found, trouble, place, is_well) -> dict[str, Any]:
    return {
        'well': is_well,
        'registry': {'place': place, 'answers': not trouble, 'why': trouble},
        'processes': [{
            'name': each.process['name'], 'pid': each.process['pid'],
            'services': each.services, 'well': each.is_well(),
            'age': None if each.age is None or math.isinf(each.age)
            else round(each.age, 1),
            'troubles': [{'text': wrong.text, 'remedy': wrong.remedy,
                          'of_others': not wrong.is_its_own}
                         for wrong in each.troubles]} for each in found]}
