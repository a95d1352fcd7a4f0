# SPDX-License-Identifier: Apache-2.0
"""Which file of the package imports what."""

import ast
import pathlib
import sys

import pytest

import zmq_threaded

PACKAGE = pathlib.Path(zmq_threaded.__file__).parent
FILES = sorted(str(path.relative_to(PACKAGE))
               for path in PACKAGE.rglob('*.py'))

ALLOWED = {
    'zmq': {'sockets.py', 'client/requests.py', 'client/dealer_connection.py',
            'receiver/backend.py', 'receiver/receiver.py'},
    'tooz': {'registry/engines.py', 'registry/files.py',
             'registry/member.py', 'registry/reading.py',
             'registry/troubles.py'},
    'oslo_messaging': {'driver.py', 'errors.py', 'service/failures.py',
                       'service/guard.py', 'service/incoming.py',
                       'service/listener.py'},
}
NOWHERE = {'eventlet', 'greenlet', 'gevent', 'pickle', 'cPickle', 'dill',
           'cloudpickle', 'marshal', 'shelve'}


def imported(name):
    """Top-level names that a file imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / name).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{name}: a relative import'
            found.add(node.module.partition('.')[0])
    return found


def test_there_are_files():
    assert {'driver.py', 'wire.py', 'service/poller.py'} < set(FILES)


@pytest.mark.parametrize('module', ALLOWED)
def test_only_some_files_import(module):
    importing = {name for name in FILES if module in imported(name)}
    assert importing <= ALLOWED[module]


@pytest.mark.parametrize('name', FILES)
def test_no_green_threads_and_no_pickle(name):
    assert not imported(name) & NOWHERE


def test_wire_needs_the_standard_library_alone():
    assert imported('wire.py') <= sys.stdlib_module_names


@pytest.mark.parametrize('name', FILES)
def test_every_file_says_its_licence_and_what_it_is(name):
    text = (PACKAGE / name).read_text()
    assert text.startswith('# SPDX-License-Identifier: Apache-2.0\n')
    assert ast.get_docstring(ast.parse(text))
