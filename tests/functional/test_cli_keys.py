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


@pytest.mark.parametrize('verb', ['list', 'show'])
def test_what_the_system_refuses_is_one_line(verb, tmp_path):
    # As for a directory that the user may not enter, which root may.
    done = run('keys', verb, str(tmp_path / ('x' * 300)))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert 'File name too long' in done.stderr


def test_a_file_that_no_service_would_trust_is_a_problem(made, tmp_path):
    os.chmod(made['public'], 0o666)
    os.mkfifo(tmp_path / 'pipe.key')
    os.mkfifo(tmp_path / 'pipe.key_secret')
    done = run('keys', 'list', str(tmp_path), '-o', 'json')
    assert done.returncode == 1
    problem = {os.path.basename(each['file']): each['problem']
               for each in json.loads(done.stdout)}
    assert 'chmod o-w' in problem['node-1.key']
    assert 'no regular file' in problem['pipe.key']
    assert 'no regular file' in problem['pipe.key_secret']
    assert not problem['node-1.key_secret']


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    # The limit of the process stands for the disk.
    done = subprocess.run(
        ['sh', '-c', 'trap "" XFSZ; ulimit -f 0; exec "$@"', 'sh',
         sys.executable, '-m', 'zmq_threaded.cli.main', 'keys', 'create',
         'node-1', '--directory', str(tmp_path)],
        env=processes.ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert 'no key can be made' in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_verb_is_needed():
    assert run().returncode == 2
