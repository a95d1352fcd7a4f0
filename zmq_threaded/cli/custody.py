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
from zmq_threaded.journal import locks
from zmq_threaded.journal import place as places
from zmq_threaded.journal import survey

_COLUMNS = ('journal', 'owner', 'messages', 'bytes', 'oldest', 'topics',
            'problem')
# Seconds in which a living owner does what he is asked for.
_ANSWER, _POLL = 5.0, 0.05


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What ``drop`` has done in one journal.

    :ivar dropped: how many messages are gone, or for a pool how many copies
    :ivar is_found: whether the journal had anything of the topic or the pool
    :ivar is_failure: whether the journal could not be used

    Thread: any.
    """

    path: str
    outcome: str
    dropped: int = 0
    is_found: bool = True
    is_failure: bool = False


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
        'only the copies of that pool, which is forgotten, too. Exit code 1: '
        'nothing of that topic was there, or a journal cannot be used')
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
        if not os.path.exists(arguments.directory):
            raise output.CannotAsk(
                f'There is no directory {arguments.directory} (--directory)')
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
    output.show(
        arguments,
        [{**dataclasses.asdict(each), 'alive': each.is_alive}
         for each in found], [
            output.Table(f'Journals in {directory}', _COLUMNS,
                         [_row(each) for each in found]),
            *_pools(found)] if found else [_none_in(directory)])
    return 1 if any(each.problem for each in found) else 0


def _none_in(directory):
    # The first process that keeps a message makes the directory.
    return f'There are no journals in {directory}' + (
        '.' if os.path.exists(directory) else ': it does not exist, or not '
        'yet. The first process that keeps a message there makes it.')


def _row(found):
    return (os.path.basename(found.path), found.shown_owner,
            found.count, found.bytes, f'{found.oldest:.0f} s',
            ', '.join(f'{count} for {topic}'
                      for topic, count in found.topics.items()),
            found.problem)


def _pools(found):
    known = sorted({pool for each in found for pool in each.pools})
    return [f'The pool {pool!r} of {topic} gets its copies'
            for topic, pool in known]


def _drop(arguments: argparse.Namespace) -> int:
    directory = _directory(arguments)
    name, pool = arguments.topic, arguments.pool
    outcomes = [_drop_in(each, name, pool) for each in _found(directory)]
    is_found = any(each.is_found for each in outcomes)
    lines = [f'{os.path.basename(each.path)}: {each.outcome}'
             for each in outcomes] or [_none_in(directory)]
    if outcomes and not is_found:
        lines.append(f'Nothing was dropped: {_meant(name, pool)} is in no '
                     'journal that can be used. The action list shows the '
                     'topics and the pools')
    output.show(arguments, [dataclasses.asdict(each) for each in outcomes],
                lines)
    return 1 if not is_found or any(
        each.is_failure for each in outcomes) else 0


def _meant(name, pool):
    return (f'the topic {name!r}' if pool is None
            else f'the pool {pool!r} of {name!r}')


def _drop_in(found, name, pool):
    try:
        lock = places.lock_of(found.path)
        if found.owner is None and locks.take(lock):
            try:
                return _drop_at_once(found.path, name, pool)
            finally:
                locks.release(lock)
        return _ask_owner(found.path, name, pool)
    except (sqlite3.Error, OSError, ValueError, database.Unusable) as error:
        return _Outcome(found.path, f'it cannot be used: {error}',
                        is_found=False, is_failure=True)


def _drop_at_once(path, name, pool):
    file = files.JournalFile(path)
    try:
        # Nobody else changes it: its lock is ours.
        before = survey.stock(path, name, pool)
        if not before:
            return _nothing(path, name, pool)
        file.drop(name, pool)
    finally:
        file.close()
    return _Outcome(path, _said(before.count, pool), before.count)


def _nothing(path, name, pool):
    return _Outcome(path, f'it has nothing of {_meant(name, pool)}',
                    is_found=False)


def _said(count, pool, knows_pool=False):
    if pool is None:
        return f'{_many(count, "message")} dropped'
    return f'{_many(count, "copy")} dropped, and the pool is ' + (
        'known still, or known again because it has listeners'
        if knows_pool else 'forgotten')


def _many(count, what):
    many = what[:-1] + 'ies' if what.endswith('y') else what + 's'
    return f'1 {what} was' if count == 1 else f'{count} {many} were'


def _ask_owner(path, name, pool):
    before = survey.stock(path, name, pool)
    if not before:
        return _nothing(path, name, pool)
    deadline = time.monotonic() + _ANSWER
    asking = database.Database(path)
    connection = asking.connection
    try:
        asking.remove(lambda: drops.ask(connection, name, pool))
        while drops.asked(connection):
            if time.monotonic() > deadline:
                return _Outcome(path, 'its owner has been asked, and has not '
                                'answered yet. It drops them as soon as it '
                                'can, and reports it')
            time.sleep(_POLL)
    finally:
        asking.close()
    return _answered(path, name, pool, before.count, deadline)


def _answered(path, name, pool, before, deadline):
    """What the owner has done; it writes later than it answers."""
    after = survey.stock(path, name, pool)
    while after and time.monotonic() < deadline:
        time.sleep(_POLL)
        after = survey.stock(path, name, pool)
    dropped = max(0, before - after.count)
    text = f'its owner has answered: {_said(dropped, pool, after.knows_pool)}'
    if after.count:
        text += f'; {after.count} are there still, or have come since'
    return _Outcome(path, text, dropped)
