# SPDX-License-Identifier: Apache-2.0
"""The pages for users agree with the code, and with each other."""

import ast
import configparser
import pathlib
import re

import pytest
from oslo_config import cfg

from zmq_threaded import legacy_options
from zmq_threaded import options
from zmq_threaded import wire

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / 'zmq_threaded'
DOCS = PACKAGE / 'docs'
NAMES = {'migration', 'operations', 'promises', 'options', 'counters',
         'upgrades', 'speed', 'architecture', 'changes', 'encryption',
         'troubleshooting'}
PAGES = [ROOT / 'README.md', *(ROOT / '.github').glob('*.md'),
         *DOCS.glob('*.md')]
# Paths of the architecture page are those below the package.
MODULE = re.compile(r'`((?:[a-z_]+/)*[a-z_]+\.py)`')
GAUGES = {'sockets', 'descriptors_left', 'backlog', 'unacknowledged',
          'deaf_services'}
TYPES = {cfg.StrOpt: 'string', cfg.BoolOpt: 'boolean', cfg.PortOpt: 'port',
         cfg.IntOpt: 'integer', cfg.FloatOpt: 'number', cfg.ListOpt: 'list'}


# Reading a page

def text_of(path):
    """The text of a page without its blocks of code."""
    return '\n'.join(line for line in path.read_text().splitlines()
                     if not line.startswith('    '))


def anchors_of(path):
    """The anchors that a repository page gives to the headings."""
    titles = re.findall(r'^#+ (.*)$', text_of(path), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-')
            for title in titles}


def tables_of(page, heading):
    """The rows of the table under a heading, as lists of cells."""
    section = (DOCS / page).read_text().split(f'\n## {heading}\n')[1]
    lines = re.split(r'^## ', section, flags=re.MULTILINE)[0].splitlines()
    rows = [line for line in lines if line.startswith('|')][2:]
    return [[cell.strip() for cell in line.strip('|').split('|')]
            for line in rows]


def names_of(page, heading):
    names = [row[0].strip('`') for row in tables_of(page, heading)]
    assert len(names) == len(set(names)), 'a name stands there twice'
    return set(names)


# The pages

def test_the_readme_is_short():
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 120


def test_all_pages_are_there_and_linked_from_the_readme():
    assert {path.stem for path in DOCS.glob('*.md')} == NAMES
    linked = set(re.findall(r'zmq_threaded/docs/([a-z]+)\.md',
                            (ROOT / 'README.md').read_text()))
    assert linked == NAMES


def test_the_pages_are_shipped():
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / 'setup.cfg')
    patterns = setup['options.package_data']['zmq_threaded'].split()
    assert 'docs/*.md' in patterns
    assert setup['metadata']['long_description'] == 'file: README.md'


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for link in re.findall(r'\]\(([^)\s]+)\)', text_of(path)):
        if link.startswith('https://'):
            continue
        name, _, anchor = link.partition('#')
        target = (path.parent / name).resolve() if name else path
        assert target.is_file(), link
        assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.name)
def test_files_that_are_named_are_there(path):
    # Of the repository; the modules of the package are another test's.
    named = re.findall(r'\b(?:tools|tests)/[\w./-]+\w', path.read_text())
    missing = {name for name in named if not (ROOT / name).exists()}
    assert not missing - {'tools/venv'}


def test_the_two_commands_stand_in_the_readme():
    readme = (ROOT / 'README.md').read_text()
    for command in 'python tools/rpc_load.py', 'python -m pytest':
        assert f'    tools/venv {command} ' in readme


# Options

def _hidden(conf):
    """Options that are registered but not in the sample configuration."""
    shown = {option.dest for _, group in options.list_opts()
             for option in group}
    return set(conf.oslo_messaging_zmq) - shown


def _sample(heading):
    """The options that the sample configuration has for a table."""
    groups = dict(options.list_opts())
    ours = groups[options.GROUP]
    legacy = {option.dest for option in legacy_options.OPTIONS}
    return {
        'Live options': [each for each in ours if each.dest not in legacy
                         and not each.deprecated_for_removal],
        'Deprecated options that still work': [
            each for each in ours if each.dest not in legacy
            and each.deprecated_for_removal],
        '[matchmaker_redis]': groups[legacy_options.REDIS_GROUP],
        'Names of the older drivers': legacy_options.OPTIONS,
    }[heading]


HEADINGS = ['Live options', 'Deprecated options that still work',
            '[matchmaker_redis]', 'Names of the older drivers']


@pytest.mark.parametrize('heading', HEADINGS)
def test_the_table_has_each_option_and_nothing_else(heading):
    expected = {option.dest for option in _sample(heading)}
    if heading.startswith('Deprecated'):
        conf = cfg.ConfigOpts()
        conf([])
        options.read(conf, {})
        expected |= _hidden(conf)
    assert names_of('options.md', heading) == expected


@pytest.mark.parametrize('heading', HEADINGS)
def test_types_and_defaults_of_options_agree(heading):
    rows = {row[0].strip('`'): row for row in tables_of('options.md', heading)}
    for option in _sample(heading):
        _, kind, default, meaning = rows[option.dest]
        assert kind == TYPES[type(option)], option.dest
        assert default_agrees(option, default), option.dest
        assert meaning.endswith('.'), option.dest


def default_agrees(option, cell):
    if option.dest == 'rpc_zmq_host':       # another one on each machine
        return cell == 'the host name of the machine'
    if option.default is None:
        return cell.startswith('unset')
    return cell.split('`')[1] == str(option.default)


def test_choices_of_options_are_named():
    rows = {row[0].strip('`'): row
            for row in tables_of('options.md', 'Live options')}
    for option in _sample('Live options'):
        for choice in getattr(option.type, 'choices', None) or ():
            assert f'`{choice}`' in rows[option.dest][3], option.dest


# Counters

def counted():
    """All first arguments of counters.add() in the code, as syntax trees."""
    for path in PACKAGE.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if (isinstance(node, ast.Call) and node.args
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr == 'add'
                    and ast.unparse(node.func.value).endswith('counters')):
                yield from choices_of(node.args[0])


def choices_of(node):
    if isinstance(node, ast.IfExp):
        yield from choices_of(node.body)
        yield from choices_of(node.orelse)
    else:
        yield node


def families():
    """The names of which the code writes only the beginning."""
    names = [row[0].strip('`') for row in tables_of('counters.md', 'Counts')]
    return {
        'refused_': {f'refused_{reason}'
                     for reason in wire.REASON_NAMES.values()
                     if reason != 'expired'},
        # Each cause is a `Cause('name', ...)`.
        'dropped_': {f'dropped_{cause}' for cause in causes()},
    }, names


def causes():
    found = set()
    for path in PACKAGE.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if (isinstance(node, ast.Call)
                    and ast.unparse(node.func).endswith('Cause')):
                found.add(node.args[0].value)
    assert 'nobody_took' in found
    return found - {'nobody_there'}     # reported in the same way, no loss


def names_in_the_code():
    family, _ = families()
    names = set()
    for node in counted():
        if isinstance(node, ast.Constant):
            names.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            names |= family[node.values[0].value]
        else:                           # reception: an expired message
            assert ast.unparse(node) == 'name', ast.unparse(node)
            names.add('expired')
    return names


def test_the_table_has_each_count_and_nothing_else():
    assert names_of('counters.md', 'Counts') == names_in_the_code() - GAUGES


def test_the_table_has_each_gauge_and_nothing_else():
    assert names_of('counters.md', 'Gauges') == GAUGES
    # What the README promises is what Runtime.snapshot() adds.
    source = ast.parse((PACKAGE / 'runtime.py').read_text())
    snapshot = next(node for node in ast.walk(source)
                    if isinstance(node, ast.FunctionDef)
                    and node.name == 'snapshot')
    keys = {node.value for each in ast.walk(snapshot)
            if isinstance(each, ast.Dict) for node in each.keys
            if isinstance(node, ast.Constant)}
    assert keys == GAUGES


@pytest.mark.parametrize('heading', ['Counts', 'Gauges'])
def test_each_count_says_where_it_is_counted(heading):
    for name, where, meaning in tables_of('counters.md', heading):
        assert set(where.split(', ')) <= {'sender', 'service', 'receiver',
                                          'all'}, name
        assert meaning.endswith('.'), name


# Architecture

def test_modules_that_are_named_are_there():
    named = MODULE.findall((DOCS / 'architecture.md').read_text())
    assert named
    missing = {name for name in named
               if not (PACKAGE / name).is_file()
               and not (ROOT / name).is_file()}
    assert not missing


def test_each_module_stands_in_a_room():
    rooms = ' '.join(row[1] for row in tables_of('architecture.md', 'Rooms'))
    modules = {str(path.relative_to(PACKAGE))
               for path in PACKAGE.rglob('*.py')
               if path.name != '__init__.py'}
    assert set(MODULE.findall(rooms)) == modules


def test_each_thread_is_explained():
    page = (DOCS / 'architecture.md').read_text()
    named = set()
    for path in PACKAGE.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= set(re.findall(r'^zmq-[a-z]+', node.value))
    named.discard('zmq-threaded')       # the distribution
    assert named
    missing = {name for name in named if f'`{name}' not in page}
    assert not missing
