# SPDX-License-Identifier: Apache-2.0
"""The command oslo-messaging-zmq keys, as a process."""

import json
import os
import subprocess
import sys

import pytest

from tests.support import processes


def run(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'zmq_threaded.cli.main', *arguments],
        env=processes.ENVIRONMENT, capture_output=True, text=True, timeout=60)


@pytest.fixture
def made(tmp_path):
    done = run('keys', 'create', 'node-1', '--directory', str(tmp_path),
               '-o', 'json')
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_new_pair_is_listed_with_its_fingerprint(made, tmp_path):
    done = run('keys', 'list', str(tmp_path))
    assert done.returncode == 0
    assert done.stdout.count(made['fingerprint']) == 2


def test_the_secret_is_never_printed(made, tmp_path):
    secret = [line for line in open(made['secret'])
              if 'secret-key' in line][0].split('"')[1]
    for form in 'json', 'plain', 'table':
        for verb, path in (('list', tmp_path), ('show', made['secret'])):
            assert secret not in run('keys', verb, str(path), '-o',
                                     form).stdout


def test_a_secret_that_others_may_read_is_a_problem(made):
    os.chmod(made['secret'], 0o644)
    done = run('keys', 'show', made['secret'])
    assert done.returncode == 1
    assert 'chmod 600' in done.stdout


def test_a_pair_that_is_there_is_not_overwritten(made, tmp_path):
    done = run('keys', 'create', 'node-1', '--directory', str(tmp_path))
    assert done.returncode == 2
    assert 'there already' in done.stderr


def test_a_directory_that_is_missing_is_named(tmp_path):
    done = run('keys', 'list', str(tmp_path / 'nowhere'))
    assert (done.returncode, 'nowhere' in done.stderr) == (2, True)
    done = run('keys', 'create', 'one', '--directory',
               str(tmp_path / 'nowhere'))
    assert (done.returncode, 'nowhere' in done.stderr) == (2, True)


def test_a_verb_is_needed():
    assert run().returncode == 2
