# SPDX-License-Identifier: Apache-2.0
"""The verb ``custody``: shows and drops what lies in journals."""

import argparse
import dataclasses
import os
import sqlite3
import time

from zmq_threaded import ipc_directory
from zmq_threaded import options
from zmq_threaded.cli import configuration
from zmq_threaded.cli import output
from zmq_threaded.journal import database
from zmq_threaded.journal import drops
from zmq_threaded.journal import file as files
from zmq_threaded.journal import guard
from zmq_threaded.journal import locks
from zmq_threaded.journal import place as places
from zmq_threaded.journal import survey

_COLUMNS = ('journal', 'owner', 'messages', 'bytes', 'oldest', 'topics',
            'problem')
# Seconds in which a living owner does what he is asked for.
_ANSWER, _POLL = 5.0, 0.05


def add(verbs) -> None:
    """Add the parser of this verb."""
    parser = verbs.add_parser(
        'custody', help='show and drop the messages in journals',
        description='Show and drop the messages that lie in the journals of '
                    'this machine (rpc_zmq_custody).')
    actions = parser.add_subparsers(metavar='ACTION', required=True)
    _action(actions, 'list', _list, 'show all journals of the directory')
    drop = _action(
        actions, 'drop', _drop, 'drop the messages of a topic; with --pool '
        'only the copies of that pool, which is forgotten, too')
    drop.add_argument('topic', metavar='TOPIC', help='name of the topic, for '
                      'notifications with its priority: notifications.info')
    drop.add_argument('--pool', metavar='POOL', help="name of the pool; '' "
                      'for the listeners without a pool')


def _action(actions, name, run, text):
    parser = actions.add_parser(name, help=text, description=text)
    parser.add_argument(
        '--directory', metavar='DIRECTORY', help='of the journals, in place '
        'of that which the configuration names')
    configuration.add_options(parser)
    output.add_option(parser)
    parser.set_defaults(run=run)
    return parser


def _directory(arguments):
    if arguments.directory:
        return arguments.directory
    _, settings = configuration.read(arguments)
    try:
        return settings.custody_dir or os.path.join(
            ipc_directory.find(settings), places.FOLDER)
    except options.InvalidOption as error:
        raise output.CannotAsk(str(error)) from None


def _found(directory):
    try:
        return survey.survey(directory)
    except OSError as error:
        raise output.CannotAsk(
            f'The directory of the journals, {directory}, cannot be read: '
            f'{error.strerror}. Ask as the user of the services, or name '
            'another one (--directory)') from None


def _list(arguments: argparse.Namespace) -> int:
    directory = _directory(arguments)
    found = _found(directory)
    output.show(arguments, [dataclasses.asdict(each) for each in found], [
        output.Table(f'Journals in {directory}', _COLUMNS,
                     [_row(each) for each in found]),
        *_pools(found)])
    return 1 if any(each.problem for each in found) else 0


def _row(found):
    return (os.path.basename(found.path), found.owner or 'has ended',
            found.count, found.bytes, f'{found.oldest:.0f} s',
            ', '.join(f'{count} for {topic}'
                      for topic, count in found.topics.items()),
            found.problem)


def _pools(found):
    known = sorted({pool for each in found for pool in each.pools})
    return [f'The pool {pool!r} of {topic} gets its copies'
            for topic, pool in known]


def _drop(arguments: argparse.Namespace) -> int:
    outcomes = [(each.path, _drop_in(each, arguments.topic, arguments.pool))
                for each in _found(_directory(arguments))]
    output.show(arguments, [
        {'path': path, 'outcome': outcome} for path, outcome in outcomes], [
        f'{os.path.basename(path)}: {outcome}' for path, outcome in outcomes]
        or ['There are no journals.'])
    return 1 if any('cannot' in outcome for _, outcome in outcomes) else 0


def _drop_in(found, topic, pool):
    try:
        lock = places.lock_of(found.path)
        if found.owner is None and locks.take(lock):
            try:
                return _drop_at_once(found.path, topic, pool)
            finally:
                locks.release(lock)
        return _ask_owner(found.path, topic, pool)
    except (sqlite3.Error, OSError, database.Unusable) as error:
        return f'it cannot be used: {error}'


def _drop_at_once(path, topic, pool):
    file = files.JournalFile(path)
    try:
        return f'{file.drop(topic, pool)} messages were dropped'
    finally:
        file.close()


def _ask_owner(path, topic, pool):
    connection = guard.connect(path, _ANSWER)
    try:
        drops.ask(connection, topic, pool)
        deadline = time.monotonic() + _ANSWER
        while drops.asked(connection):
            if time.monotonic() > deadline:
                return 'its owner does it as soon as he can'
            time.sleep(_POLL)
        return 'its owner drops them, and reports it'
    finally:
        guard.close(connection)
