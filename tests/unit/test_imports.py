# SPDX-License-Identifier: Apache-2.0
"""Which file of the package imports what."""

import ast
import pathlib
import subprocess
import sys

import pytest

import zmq_threaded
from tests.support import processes

PACKAGE = pathlib.Path(zmq_threaded.__file__).parent
FILES = sorted(str(path.relative_to(PACKAGE))
               for path in PACKAGE.rglob('*.py'))

ALLOWED = {
    'zmq': {'sockets.py', 'client/requests.py', 'client/dealer_connection.py',
            'net/binding.py', 'net/multiparts.py', 'receiver/backend.py',
            'receiver/receiver.py', 'security/curve.py',
            'security/keys.py'},
    'tooz': {'registry/engines.py', 'registry/epochs.py',
             'registry/files.py', 'registry/member.py',
             'registry/reading.py', 'registry/troubles.py'},
    'oslo_messaging': {'bridge/driver.py', 'bridge/listener.py',
                       'bridge/other.py', 'cli/configuration.py',
                       'driver.py', 'errors.py',
                       'service/failures.py', 'service/guard.py',
                       'service/incoming.py',
                       'service/listener.py'},
}
NOWHERE = {'eventlet', 'greenlet', 'gevent', 'pickle', 'cPickle', 'dill',
           'cloudpickle', 'marshal', 'shelve'}


def modules(name):
    """What a file imports from, in functions too, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / name).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{name}: a relative import'
            found.add(node.module)
    return found


def imported(name):
    """Top-level names that a file imports, in functions too."""
    return {each.partition('.')[0] for each in modules(name)}


def test_there_are_files():
    assert {'driver.py', 'wire/frames.py', 'service/poller.py'} < set(FILES)


@pytest.mark.parametrize('module', ALLOWED)
def test_only_some_files_import(module):
    importing = {name for name in FILES if module in imported(name)}
    assert importing <= ALLOWED[module]


def test_nothing_outside_of_the_bridge_knows_of_it():
    knowing = {name for name in FILES if any(
        module.startswith('zmq_threaded.bridge') for module in modules(name))}
    # The verb `status` says whether the next step is safe.
    assert {name for name in knowing if not name.startswith('bridge/')} == {
        'cli/bridge.py'}


@pytest.mark.parametrize('name', FILES)
def test_no_green_threads_and_no_pickle(name):
    assert not imported(name) & NOWHERE


@pytest.mark.parametrize('name', [each for each in FILES
                                  if not each.startswith('wire/')])
def test_only_the_wire_knows_which_part_of_a_body_is_what(name):
    for node in ast.walk(ast.parse((PACKAGE / name).read_text())):
        assert not (isinstance(node, ast.Subscript)
                    and isinstance(node.value, ast.Attribute)
                    and node.value.attr == 'body'), node.lineno


def test_wire_needs_the_standard_library_alone():
    for name in ('__init__', 'bodies', 'frames'):
        others = {each.partition('.')[0]
                  for each in modules(f'wire/{name}.py')
                  if not each.startswith('zmq_threaded.wire')}
        assert others <= sys.stdlib_module_names


@pytest.mark.parametrize('name', FILES)
def test_every_file_says_its_licence_and_what_it_is(name):
    text = (PACKAGE / name).read_text()
    assert text.startswith('# SPDX-License-Identifier: Apache-2.0\n')
    assert ast.get_docstring(ast.parse(text))


# Modules that still have several names; nothing is to be added here.
SEVERAL_NAMES = {
    'socket',
    'zmq_threaded.counters',
    'zmq_threaded.registry.avoided',
    'zmq_threaded.registry.back_off',
    'zmq_threaded.registry.cache',
    'zmq_threaded.registry.store',
}


def names_of_modules():
    """Under which names each module is imported: dict of sets."""
    names = {}
    for file in FILES:
        for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            start = (f'{node.module}.' if isinstance(node, ast.ImportFrom)
                     else '')
            for alias in node.names:
                names.setdefault(start + alias.name, set()).add(
                    alias.asname or alias.name.rpartition('.')[2])
    return names


def test_each_module_has_one_name_everywhere():
    several = {module for module, names in names_of_modules().items()
               if len(names) > 1}
    assert several <= SEVERAL_NAMES


def test_a_receiver_starts_without_what_only_services_need():
    """It is back the sooner after a crash."""
    program = ('import sys, zmq_threaded.receiver.main; '
               'sys.exit("oslo_messaging" in sys.modules)')
    assert subprocess.run([sys.executable, '-c', program],
                          env=processes.ENVIRONMENT).returncode == 0
