# SPDX-License-Identifier: Apache-2.0
"""Folders that are watched, and the patience with what cannot be watched."""

import os
import shutil

import pytest

from zmq_threaded import mailbox
from zmq_threaded.registry import folder_notices
from zmq_threaded.registry import notices as noticing
from zmq_threaded.registry import record_files

KEY = 'rpc:exchange:topic'


@pytest.fixture
def told():
    return []


@pytest.fixture
def watching(tmp_path, told):
    made = folder_notices.FolderNotices(str(tmp_path / 'groups'))
    polled = mailbox.PolledMailbox()
    made.bind(polled, lambda key, count: told.append(key))
    yield made
    made.close()
    polled.close()


def group(tmp_path, key=KEY):
    path = tmp_path / 'groups' / record_files.safe(key.encode())
    os.makedirs(path)
    return path


def in_the_kernel(watching):
    with open(f'/proc/self/fdinfo/{watching.fd}') as file:
        return sum(line.startswith('inotify ') for line in file)


def test_folders_that_were_renamed_are_watched_no_more(tmp_path, watching,
                                                       told):
    for number in range(5):
        path = group(tmp_path)
        assert watching.watch(None, KEY)
        assert not watching.watch(None, KEY)
        assert in_the_kernel(watching) == 3
        (path / f'x{record_files.SUFFIX}').touch()
        (path / f'x{record_files.SUFFIX}').unlink()
        watching.read()
        assert told.pop() == KEY and not told
        (tmp_path / 'groups').rename(tmp_path / f'old-{number}')
    watching.read()
    assert told == [KEY]


def test_the_end_of_a_folder_that_somebody_has_open_is_told(tmp_path,
                                                            watching, told):
    group(tmp_path)
    watching.watch(None, KEY)
    held = os.open(tmp_path / 'groups', os.O_PATH)
    shutil.rmtree(tmp_path / 'groups')
    watching.read()
    os.close(held)
    assert set(told) == {KEY}
    assert not watching.watch(None, KEY)
    group(tmp_path)
    assert watching.watch(None, KEY)


def test_a_group_of_which_the_folder_was_renamed(tmp_path, watching):
    path = group(tmp_path)
    watching.watch(None, KEY)
    path.rename(tmp_path / 'elsewhere')
    watching.watch(None, KEY)
    assert in_the_kernel(watching) == 2
    group(tmp_path)
    assert watching.watch(None, KEY)
    assert in_the_kernel(watching) == 3


class Limited(noticing.NoNotices):
    """Watches all topics but one."""

    def __init__(self):
        self.asked = []

    def watch(self, coordinator, key):
        self.asked.append(key)
        if key == 'bad':
            raise OSError(28, 'No space left on device')
        return True


def test_one_topic_that_cannot_be_watched_silences_no_other():
    limited = Limited()
    tolerant = noticing.Tolerant(limited, str)
    assert not tolerant.watch(None, 'bad')
    assert tolerant.watch(None, 'good')
    assert not tolerant.watch(None, 'bad')
    assert limited.asked == ['bad', 'good']
    tolerant.forget('bad')
    assert not tolerant.watch(None, 'bad')
    assert limited.asked == ['bad', 'good', 'bad']


def test_a_failure_that_takes_long_is_not_had_by_each_topic(monkeypatch):
    monkeypatch.setattr(noticing, '_LONG', -1.0)
    limited = Limited()
    tolerant = noticing.Tolerant(limited, str)
    tolerant.watch(None, 'bad')
    assert not tolerant.watch(None, 'good')
    assert limited.asked == ['bad']
