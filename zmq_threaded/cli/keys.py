# SPDX-License-Identifier: Apache-2.0
"""The verb ``keys``: makes and shows the keys of CURVE."""

import argparse
import os
import pathlib

from zmq_threaded.cli import output
from zmq_threaded.security import keys
from zmq_threaded.security import trust

_COLUMNS = ('file', 'kind', 'fingerprint', 'problem')


def add(verbs) -> None:
    """Add the parser of this verb."""
    parser = verbs.add_parser(
        'keys', help='make and show the keys for encryption',
        description='Make and show the keys for rpc_zmq_key_file and '
                    'rpc_zmq_trusted_keys.')
    actions = parser.add_subparsers(metavar='ACTION', required=True)
    _action(actions, 'create', _create, 'make a new pair of keys', (
        ('name', {'metavar': 'NAME', 'help': 'name of the two files, for '
                  'instance that of the node'}),
        ('--directory', {'default': '.', 'help': 'where the two files are '
                         'made (default: here)'})))
    _action(actions, 'list', _list, 'show all keys of a directory', (
        ('directory', {'metavar': 'DIRECTORY'}),))
    _action(actions, 'show', _show, 'show one key', (
        ('file', {'metavar': 'FILE'}),))


def _action(actions, name, run, text, arguments):
    parser = actions.add_parser(name, help=text, description=text)
    for argument, settings in arguments:
        parser.add_argument(argument, **settings)
    output.add_option(parser)
    parser.set_defaults(run=run)


def _create(arguments: argparse.Namespace) -> int:
    if not _is_name(arguments.name):
        raise output.CannotAsk(f'{arguments.name!r} is no name of a file')
    try:
        public, secret = keys.create(arguments.directory, arguments.name)
    except keys.BadKey as error:
        raise output.CannotAsk(str(error)) from None
    except OSError as error:
        raise output.CannotAsk(
            f'no key can be made in {arguments.directory}: {error.strerror}'
        ) from None
    found = keys.fingerprint(keys.read_public(public))
    output.show(arguments, {'public': public, 'secret': secret,
                            'fingerprint': found}, [
        f'The secret key is in {secret}. It goes where rpc_zmq_key_file '
        'points to, and to nobody else.',
        f'The public key is in {public}. It goes into the directory of '
        'rpc_zmq_trusted_keys of all peers.',
        f'Fingerprint: {found}'])
    return 0


def _list(arguments: argparse.Namespace) -> int:
    directory = pathlib.Path(arguments.directory)
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise output.CannotAsk(f'{directory}: the directory cannot be read: '
                               f'{error.strerror}') from None
    found = sorted(directory / name for name in names if name.endswith(
        (keys.PUBLIC_SUFFIX, keys.SECRET_SUFFIX)))
    return _tell(arguments, [_facts(path) for path in found],
                 f'Keys in {directory}')


def _show(arguments: argparse.Namespace) -> int:
    path = pathlib.Path(arguments.file)
    try:
        path.stat()
    except OSError as error:
        raise output.CannotAsk(f'{path}: {error.strerror}') from None
    return _tell(arguments, [_facts(path)], 'Key')


def _facts(path):
    facts = {'file': str(path), 'kind': 'public', 'fingerprint': '',
             'problem': ''}
    try:
        if path.name.endswith(keys.SECRET_SUFFIX):
            facts['kind'] = 'secret'
            facts['fingerprint'] = keys.fingerprint(
                keys.read_pair(str(path)).public)
        else:
            # As a service reads it, which trusts not every file.
            facts['fingerprint'] = keys.fingerprint(
                trust.read_public(str(path)))
    except keys.BadKey as error:
        facts['problem'] = str(error)
    return facts


def _tell(arguments, facts, title):
    output.show(arguments, facts, [output.Table(
        title, _COLUMNS, [[fact[name] for name in _COLUMNS]
                          for fact in facts])])
    return 1 if any(fact['problem'] for fact in facts) else 0


def _is_name(name):
    return bool(name) and os.sep not in name and not name.startswith('.')
