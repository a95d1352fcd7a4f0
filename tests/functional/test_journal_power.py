# SPDX-License-Identifier: Apache-2.0
"""What is accepted under rpc_zmq_custody=disk survives the loss of power.

A sender is stopped at a random moment, and its directory is copied. What the
disk need not have yet is cut off: what was added to the WAL after the last
message that was accepted. Then the copy is adopted.
"""

import os
import random
import shutil
import time

import pytest

from tests.support import processes
from tests.support import rpc
from tests.support import soaks
from tests.support import waiting
from zmq_threaded.journal import file as files
from zmq_threaded.journal import locks
from zmq_threaded.journal import place

_CHANCE = random.Random(os.environ.get('ZMQ_CHAOS_SEED'))


class Writer:
    """A process that writes as fast as it can, with nobody there."""

    def __init__(self, node, folder):
        self.folder = os.path.join(node.ipc_dir, place.FOLDER)
        self.accepted = os.path.join(folder, 'accepted')
        self.process = processes.ServerProcess(
            node.ipc_dir, 'power_main.py', node.url(
                rpc_zmq_custody='disk', rpc_zmq_exit_timeout=0), self.accepted)
        node.closing(self.process.end)
        waiting.until(self.lines)

    def lines(self):
        """(number, bytes of the WAL) of each accepted message."""
        try:
            with open(self.accepted) as file:
                return [tuple(map(int, line.split()))
                        for line in file.read().splitlines()
                        if line.count(' ') == 1]
        except FileNotFoundError:
            return []

    def copy(self, to):
        """A copy of the directory, as it was at one moment."""
        self.process.pause()
        try:
            shutil.copytree(self.folder, to)
            return self.lines()
        finally:
            self.process.resume()


def _cut(folder, accepted):
    """Take away a part of what was written since."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.endswith('-wal'):
            size = os.path.getsize(path)
            os.truncate(path, _CHANCE.randint(min(size, accepted[-1][1]),
                                              size))
        elif name.endswith('-shm') and _CHANCE.random() < 0.7:
            os.unlink(path)


def _numbers(folder):
    """What a journal has after the power came back."""
    path, = [os.path.join(folder, name) for name in os.listdir(folder)
             if name.endswith(place.SUFFIX)]
    assert locks.take(place.lock_of(path))
    try:
        file = files.JournalFile(path)
        try:
            found = file.load(key for key, _, _ in file.contents())
        finally:
            file.close()
    finally:
        locks.release(place.lock_of(path))
    return {int(each.body[1].split(b'"value": ')[1].split(b',')[0]
                .split(b'}')[0]) for each in found}


@pytest.mark.parametrize('copies', soaks.sizes(
    8, 100, mark=pytest.mark.long))
def test_no_copy_lacks_what_was_accepted(node, tmp_path, copies):
    writer = Writer(node, str(tmp_path))
    for number in range(copies):
        time.sleep(_CHANCE.uniform(0.0, 0.3))
        folder = str(tmp_path / str(number))
        accepted = writer.copy(folder)
        _cut(folder, accepted)
        lost = {each for each, _ in accepted} - _numbers(folder)
        assert not lost
        shutil.rmtree(folder)
    assert len(accepted) > copies
    writer.process.kill()


def test_a_copy_is_adopted(node, tmp_path):
    writer = Writer(node, str(tmp_path))
    waiting.until(lambda: len(writer.lines()) > 50)
    folder = str(tmp_path / 'copy')
    accepted = writer.copy(folder)
    _cut(folder, accepted)
    writer.process.kill()
    server = node.server(transport=node.transport(
        rpc_zmq_custody_dir=folder))
    waiting.until(lambda: {each for each, _ in accepted}
                  <= set(server.endpoint.seen), 20)
    assert len(set(server.endpoint.seen)) == len(server.endpoint.seen)
    assert 'journals_set_aside' not in rpc.driver(
        server.transport).counters()


@pytest.mark.parametrize('left', [0, 1, 100, 4096, 5000])
def test_a_database_that_is_cut_stops_nobody(node, tmp_path, left):
    """However little of it is left, and without its WAL."""
    writer = Writer(node, str(tmp_path))
    folder = str(tmp_path / 'copy')
    writer.copy(folder)
    writer.process.kill()
    cut = [name for name in os.listdir(folder) if name.endswith(place.SUFFIX)]
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.endswith(('-wal', '-shm')):
            os.unlink(path)
        elif name in cut:
            os.truncate(path, left)
    transport = node.transport(rpc_zmq_custody_dir=folder,
                               rpc_zmq_custody='disk')
    server = node.server(transport=transport)
    node.client(transport).cast({}, 'note', value=-1)
    waiting.until(lambda: server.endpoint.seen == [-1])
    waiting.until(lambda: cut[0] not in os.listdir(folder))
