# SPDX-License-Identifier: Apache-2.0
"""tools/venv, up to where it would fetch packages from a network."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

TOOL = pathlib.Path(__file__).parents[2] / 'tools' / 'venv'


@pytest.fixture
def project(tmp_path):
    """A project of its own in a path with spaces."""
    root = tmp_path / 'a project'
    (root / 'tools').mkdir(parents=True)
    shutil.copy(TOOL, root / 'tools')
    (root / 'setup.cfg').touch()
    return root


def command(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(0o755)


def run(project, *arguments, path=(), **environment):
    path = os.pathsep.join([*map(str, path), '/usr/bin', '/bin'])
    return subprocess.run(
        [project / 'tools' / 'venv', *arguments], text=True, cwd='/',
        capture_output=True, timeout=120,
        env={'HOME': '/nonexistent', 'PATH': path, **environment})


def assert_refused(done, *said):
    assert done.returncode == 1 and done.stdout == ''
    assert done.stderr.count('\n') == 1, done.stderr
    for text in ('tools/venv: ', *said):
        assert text in done.stderr


@pytest.mark.parametrize('version', ['2.7.18', '3.9.2'])
def test_python_that_is_too_old_is_one_line(project, tmp_path, version):
    command(tmp_path / 'bin' / 'python3',
            f'[ "$1" = -V ] && echo Python {version}; exit 1')
    done = run(project, 'true', path=[tmp_path / 'bin'])
    assert_refused(done, 'needs Python 3.11', version, 'PYTHON=')
    assert not (project / '.venv').exists()


def test_no_python_is_one_line(project):
    assert_refused(run(project, 'true', PYTHON='python3.99'),
                   'needs Python 3.11', 'python3.99')


def test_python_without_venv_is_one_line(project, tmp_path):
    # As Debian's without python3-venv: one that lacks ensurepip.
    command(tmp_path / 'bin' / 'python3',
            'case "$*" in *ensurepip*) exit 1;; esac\n'
            f'exec "{sys.executable}" "$@"')
    done = run(project, 'true', path=[tmp_path / 'bin'])
    assert_refused(done, 'python3-venv')
    assert not (project / '.venv').exists()


def test_command_runs_in_the_environment_and_in_the_project(project):
    command(project / '.venv' / 'bin' / 'python', 'echo "in $PWD: $1 $2"')
    (project / '.venv' / 'installed').touch()
    done = run(project, 'python', 'two words', 'x')
    assert (done.stdout, done.stderr, done.returncode) == (
        f'in {project}: two words x\n', '', 0)


def test_exit_code_is_the_commands(project):
    command(project / '.venv' / 'bin' / 'python', 'exit 7')
    (project / '.venv' / 'installed').touch()
    assert run(project, 'python').returncode == 7


def test_environment_whose_python_is_gone_is_made_anew(project):
    bin_folder = project / '.venv' / 'bin'
    bin_folder.mkdir(parents=True)
    (bin_folder / 'python').symlink_to('/no/such/python')
    (project / '.venv' / 'installed').touch()
    # An empty setup.cfg is no package: pip fails, after the environment.
    done = run(project, 'true', PYTHON=sys.executable)
    assert done.returncode == 1
    assert 'pip could not install' in done.stderr.splitlines()[-1]
    assert os.path.exists(bin_folder / 'python')
    assert not (project / '.venv' / 'installed').exists()
