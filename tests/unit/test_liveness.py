# SPDX-License-Identifier: Apache-2.0
"""The lock that says whether a process lives, and what readers make of it."""

import errno
import logging
import os
import subprocess
import sys
import time

import pytest

from tests.support import forks
from tests.support import processes as children
from tests.support import waiting
from zmq_threaded.health import of_node
from zmq_threaded.registry import folders
from zmq_threaded.registry import shared_facts
from zmq_threaded.registry import stamps
from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import fact_files
from zmq_threaded.status import facts
from zmq_threaded.status import findings
from zmq_threaded.status import liveness
from zmq_threaded.status import processes
from zmq_threaded.status import publisher as publishers
from zmq_threaded.status import unwritten

# Writes the facts of a process of another PID namespace, and waits.
WRITER = '''
import sys
from zmq_threaded.registry import stamps
from zmq_threaded.status import fact_files, facts, processes
file = fact_files.File(sys.argv[1], sys.argv[2])
file.give_sign()
file.write(facts.encode({
    'format': 1, 'id': sys.argv[2], 'stamp': stamps.now().hex(),
    'process': {**processes.myself(), 'pid_space': 1}}))
print('ready', flush=True)
for line in sys.stdin:
    file.remove()
    print('removed', flush=True)
'''


class Writer:
    """A process that has written its facts."""

    def __init__(self, ipc_dir, name='other'):
        self._popen = subprocess.Popen(
            [sys.executable, '-c', WRITER, ipc_dir, name], text=True,
            env=children.ENVIRONMENT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)
        assert self._popen.stdout.readline() == 'ready\n'

    def take_leave(self):
        print(file=self._popen.stdin, flush=True)
        assert self._popen.stdout.readline() == 'removed\n'

    def kill(self):
        self._popen.kill()
        self._popen.wait()
        self._popen.stdin.close()
        self._popen.stdout.close()


@pytest.fixture
def writer(ipc_dir):
    made = Writer(ipc_dir)
    yield made
    made.kill()


def names(ipc_dir):
    return sorted(name for name in os.listdir(
        os.path.join(ipc_dir, fact_files.FOLDER)) if name != 'tmp')


def the_only(ipc_dir):
    found, = fact_files.read(ipc_dir)
    return found


def state(ipc_dir):
    return processes.state(the_only(ipc_dir)['process'])


def look(ipc_dir, name='other'):
    return liveness.look(os.path.join(ipc_dir, fact_files.FOLDER,
                                      name + liveness.SUFFIX))


def sign(ipc_dir, name='mine'):
    return liveness.Sign(folders.Folders(ipc_dir, fact_files.FOLDER), name)


def seen_by_another_process(ipc_dir, name='mine'):
    """What a process that has no lock of its own sees."""
    done = subprocess.run(
        [sys.executable, '-c', 'import sys; '
         'from zmq_threaded.status import liveness; '
         'print(liveness.look(sys.argv[1]).lives)',
         os.path.join(ipc_dir, fact_files.FOLDER, name + liveness.SUFFIX)],
        env=children.ENVIRONMENT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_killed_process_of_another_pid_namespace_is_gone(ipc_dir, writer):
    assert state(ipc_dir) == processes.UNKNOWN
    assert look(ipc_dir).lives and look(ipc_dir).silent < 60
    writer.kill()
    assert state(ipc_dir) == processes.GONE


def test_a_process_that_takes_leave_leaves_nothing(ipc_dir, writer):
    assert names(ipc_dir) == ['other.json', 'other.lock']
    writer.take_leave()
    assert not names(ipc_dir)


def test_who_takes_leave_while_somebody_reads_is_none_of_the_dead(
        ipc_dir, writer, monkeypatch):
    decode = facts.decode

    def slowly(content):
        writer.take_leave()
        return decode(content)
    monkeypatch.setattr(fact_files.facts, 'decode', slowly)
    # As if the lock had been looked at just before its file went.
    monkeypatch.setattr(liveness, 'look', lambda path: liveness.Look(False))
    assert not list(fact_files.read(ipc_dir))


def test_without_a_lock_all_is_as_before(ipc_dir, writer):
    os.unlink(os.path.join(ipc_dir, fact_files.FOLDER, 'other.lock'))
    writer.kill()
    assert state(ipc_dir) == processes.UNKNOWN


def test_another_one_of_its_name_takes_the_place_of_the_dead(ipc_dir,
                                                             writer):
    writer.kill()
    chosen = of_node.chosen(fact_files.read(ipc_dir), None)
    assert 'killed' in of_node.health(chosen[0], 60).troubles[0].text
    other = Writer(ipc_dir, 'next')
    try:
        chosen = of_node.chosen(fact_files.read(ipc_dir), None)
        assert [each['id'] for each in chosen] == ['next']
    finally:
        other.kill()


def test_the_registry_does_not_bring_the_dead_back(ipc_dir, writer):
    writer.kill()
    newer = {**the_only(ipc_dir), 'seq': 9}
    del newer['process']['lives']
    cloud = clouds.put_together(
        'here', list(fact_files.read(ipc_dir)), shared_facts.Everything(
            facts={b'member': facts.compress(facts.encode(newer))}))
    process, = cloud.processes
    assert process.facts['seq'] == 9 and process.is_gone()


def test_the_files_of_the_dead_are_swept_and_those_of_the_living_not(
        ipc_dir, writer, monkeypatch):
    monkeypatch.setattr(fact_files, '_MOURNING', -1.0)
    monkeypatch.setattr(fact_files, '_FORGOTTEN', -1.0)
    fact_files.sweep(ipc_dir)
    assert names(ipc_dir) == ['other.json', 'other.lock']
    writer.kill()
    fact_files.sweep(ipc_dir)
    assert not names(ipc_dir)


def test_a_process_does_not_lose_its_lock_by_looking(ipc_dir):
    mine = sign(ipc_dir)
    mine.give()
    try:
        # By other paths too: of two drivers, each may have its own.
        link = f'{ipc_dir}-link'
        os.symlink(ipc_dir, link)
        try:
            assert look(link, 'mine').lives and look(ipc_dir, 'mine').lives
        finally:
            os.unlink(link)
        assert seen_by_another_process(ipc_dir) == 'True'
    finally:
        mine.end()
    assert not names(ipc_dir)


def test_a_lock_that_was_lost_is_taken_again(ipc_dir):
    mine = sign(ipc_dir)
    mine.give()
    try:
        path = os.path.join(ipc_dir, fact_files.FOLDER, 'mine.lock')
        with open(path):
            pass
        assert seen_by_another_process(ipc_dir) == 'False'
        mine.give()
        assert seen_by_another_process(ipc_dir) == 'True'
        os.unlink(path)
        mine.give()
        assert seen_by_another_process(ipc_dir) == 'True'
    finally:
        mine.end()


def test_a_child_has_no_lock_and_takes_none_away(ipc_dir):
    mine = sign(ipc_dir)
    mine.give()
    try:
        # The child closes the descriptor that it has from its parent.
        assert forks.Forked(
            lambda: look(ipc_dir, 'mine').lives).result() is True
        assert seen_by_another_process(ipc_dir) == 'True'
    finally:
        mine.end()


def test_the_lock_tells_when_the_last_sign_was_given(ipc_dir, monkeypatch):
    writer = Writer(ipc_dir)
    try:
        now = time.monotonic()
        monkeypatch.setattr(liveness.time, 'monotonic', lambda: now + 100)
        assert 99 <= look(ipc_dir).silent <= 110
    finally:
        writer.kill()


# A disk on which there is no room

@pytest.fixture
def full_disk(monkeypatch):
    """Nothing can be written; a switch that is on at first."""
    switch = {'is_full': True}
    write = folders.Folders.write

    def refuse(self, name, content, path):
        if switch['is_full']:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, name, content, path)
    monkeypatch.setattr(folders.Folders, 'write', refuse)
    return switch


def test_a_process_says_once_that_its_facts_cannot_be_written(
        ipc_dir, full_disk, caplog):
    caplog.set_level(logging.INFO, 'zmq_threaded')
    found = findings.Findings()
    publisher = publishers.Publisher(
        ipc_dir, 1.0, lambda: {'process': processes.myself()}, found=found)
    try:
        for _ in range(5):
            publisher._publish(time.monotonic())
        line, = [each.getMessage() for each in caplog.records
                 if each.levelno == logging.WARNING]
        assert f'({publisher._file.folder}: No space left on device)' in line
        assert 'What to do: make room in' in line
        assert [each.kind for each in found.all()] == [unwritten.KIND]
        full_disk['is_full'] = False
        publisher._publish(time.monotonic())
        assert 'are written' in caplog.text and not found.all()
    finally:
        publisher.close()
    assert not names(ipc_dir)


def aged(seconds):
    """The stamp of a moment before this one."""
    stamp = bytearray(stamps.now())
    moment = int.from_bytes(stamp[-8:], 'big') - int(seconds * 1e9)
    stamp[-8:] = moment.to_bytes(8, 'big')
    return bytes(stamp).hex()


@pytest.fixture
def old_facts(ipc_dir):
    """Facts of before, of a process that has just given a sign of life."""
    file = fact_files.File(ipc_dir, 'mine')
    file.give_sign()
    file.write(facts.encode({
        'format': 1, 'id': 'mine', 'stamp': aged(60), 'every': 1.0,
        'process': processes.myself()}))
    yield file
    file.remove()


def test_old_facts_of_a_process_that_lives_are_no_hang(ipc_dir, old_facts):
    found = of_node.health(the_only(ipc_dir), 60)
    trouble, = found.troubles
    assert 'cannot be written' in trouble.text
    assert found.is_well() and found.age < 10
    cloud = clouds.put_together('here', list(fact_files.read(ipc_dir)),
                                shared_facts.Everything())
    assert cloud.processes[0].age < 10


@pytest.mark.parametrize('left, why', [
    ((0, 5), 'No space left on device'), ((1000, 0), 'No space left'),
    ((1000, 5), 'the log of the process says why')])
def test_the_reader_says_why_as_far_as_it_sees_it(ipc_dir, old_facts,
                                                  monkeypatch, left, why):
    there = os.statvfs(ipc_dir)

    class Status:
        f_bavail, f_favail = left
        f_frsize, f_files, f_flag = 4096, 10, there.f_flag
    monkeypatch.setattr(unwritten.os, 'statvfs', lambda path: Status)
    finding, = the_only(ipc_dir)['findings']
    assert why in finding['text']


def test_a_process_that_gives_no_sign_hangs(ipc_dir):
    file = fact_files.File(ipc_dir, 'mine')
    try:
        file.write(facts.encode({
            'format': 1, 'id': 'mine', 'stamp': aged(60), 'every': 1.0,
            'process': processes.myself()}))
        found = of_node.health(the_only(ipc_dir), 60)
        assert 'It has said nothing for 60 s' in found.troubles[0].text
    finally:
        file.remove()


def test_a_closed_publisher_leaves_nothing(ipc_dir):
    publisher = publishers.Publisher(
        ipc_dir, 1.0, lambda: {'process': processes.myself()})
    publisher._publish(time.monotonic())
    waiting.until(lambda: names(ipc_dir))
    publisher.close()
    publisher._publish(time.monotonic())
    assert not names(ipc_dir)
