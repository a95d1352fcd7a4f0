# SPDX-License-Identifier: Apache-2.0
"""Services that are stopped as in every rolling restart: what a cast()
returned for is delivered, and the process ends soon.
"""

import collections
import json
import os
import signal
import subprocess
import time

import pytest

from tests.support import leaks
from tests.support import processes
from tests.support import waiting

# Each keeps up to four processes busy, and a sender without a turn while its
# server closes loses its acknowledgements: so one at a time.
pytestmark = [pytest.mark.timeout(180),
              pytest.mark.xdist_group('orderly_exits')]
# Of the exit of a process, which none but one test waits for; and what the
# machine may add.
_EXIT_TIMEOUT, _SLOW = 40, 20


class Program:
    """orderly_main.py, and what it has sent."""

    def __init__(self, node, path, exit_timeout=_EXIT_TIMEOUT, **settings):
        self.path, self.ipc_dir = str(path / 'sent'), node.ipc_dir
        settings = {
            'url': node.url(rpc_cast_timeout=60,
                            rpc_zmq_exit_timeout=exit_timeout),
            'path': self.path,
            'launcher': 'launch', 'workers': 1, 'start_method': None,
            'transport': 'late', 'listens': False, 'count': None,
            'stops': True, 'fails': False, **settings}
        self.log = open(path / 'log', 'w+')
        self._popen = subprocess.Popen(
            processes.command('orderly_main.py', json.dumps(settings)),
            env=processes.ENVIRONMENT, stderr=self.log, stdout=self.log)

    def sent(self):
        if not os.path.exists(self.path):
            return []
        with open(self.path) as file:
            return file.read().split()

    def pids(self):
        return {token.partition('-')[0] for token in self.sent()}

    def has_sent(self, count, pids=1):
        waiting.until(lambda: len(self.sent()) >= count
                      and len(self.pids()) >= pids, 60)

    def send(self, number):
        self._popen.send_signal(number)

    def wait(self):
        return self._popen.wait(60)

    def end(self, number=signal.SIGTERM):
        """:returns: seconds that it took"""
        began = time.monotonic()
        self.send(number)
        self.wait()
        return time.monotonic() - began

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def close(self):
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait(10)
        self.log.close()


@pytest.fixture
def start(node, tmp_path):
    def start(**settings):
        program = Program(node, tmp_path, **settings)
        node.closing(program.close)
        return program
    return start


def is_delivered(program, server, once=True):
    """Nothing of what had returned was lost."""
    sent = set(program.sent())
    waiting.until(lambda: sent <= set(server.endpoint.seen), 20,
                  f'{len(sent)} sent')
    if once:
        counts = collections.Counter(server.endpoint.seen)
        assert max(counts.values()) == 1


@pytest.mark.parametrize('listens', [False, True])
@pytest.mark.parametrize('workers', [1, 3])
@pytest.mark.parametrize('launcher', ['launch', 'cotyledon'])
def test_sigterm_while_casts_flow(node, start, launcher, workers, listens):
    server = node.server(topic='peer')
    program = start(launcher=launcher, workers=workers, listens=listens)
    program.has_sent(300, workers)
    assert program.end() < _SLOW
    is_delivered(program, server)
    assert len(leaks.ipc_files(node.ipc_dir)) == 1      # the server's


@pytest.mark.parametrize('listens', [False, True])
@pytest.mark.parametrize('launcher, workers', [
    ('launch', 1), ('launch', 3), ('cotyledon', 2), ('no_fork', 1)])
def test_sigterm_while_the_server_of_its_casts_restarts(
        node, start, launcher, workers, listens):
    server = node.server(topic='peer')
    program = start(launcher=launcher, workers=workers, listens=listens)
    program.has_sent(100, workers)
    node.stop(server)
    program.has_sent(len(program.sent()) + 100)
    began = time.monotonic()
    program.send(signal.SIGTERM)
    # Its absence is the case: nobody is there for a time
    time.sleep(2)
    restarted = node.server(topic='peer')
    restarted.endpoint.seen += server.endpoint.seen
    program.wait()
    assert time.monotonic() - began < 2 + _SLOW
    is_delivered(program, restarted)
    assert 'exit of this process waits up to' in program.text()


@pytest.mark.parametrize('workers', [1, 3])
def test_sighup_loses_nothing(node, start, workers):
    server = node.server(topic='peer')
    program = start(workers=workers, listens=True)
    program.has_sent(200, workers)
    before = program.pids()
    program.send(signal.SIGHUP)
    waiting.until(lambda: len(program.pids() - before) == workers, 30)
    program.has_sent(len(program.sent()) + 100)
    assert program.end() < _SLOW
    is_delivered(program, server)


@pytest.mark.parametrize('listens', [False, True])
def test_no_fork(node, start, listens):
    server = node.server(topic='peer')
    program = start(launcher='no_fork', listens=listens)
    program.has_sent(300)
    assert program.end() < _SLOW
    is_delivered(program, server)
    assert len(leaks.ipc_files(node.ipc_dir)) == 1


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_no_fork_by_signal(node, start, number):
    server = node.server(topic='peer')
    program = start(launcher='no_fork')
    program.has_sent(300)
    assert program.end(number) < _EXIT_TIMEOUT
    is_delivered(program, server)


@pytest.mark.parametrize('launcher', ['launch', 'no_fork'])
def test_a_thread_that_never_stops_casting_does_not_hold_the_exit(
        node, start, launcher):
    server = node.server(topic='peer')
    program = start(launcher=launcher, stops=False)
    program.has_sent(300)
    assert program.end() < _SLOW
    is_delivered(program, server)


@pytest.mark.parametrize('launcher', ['launch', 'no_fork'])
def test_one_that_casts_to_nobody_for_ever_ends_in_time(node, start, launcher):
    program = start(launcher=launcher, stops=False, exit_timeout=10)
    program.has_sent(100)
    took = program.end()
    assert 10 - 1 < took < 10 + _SLOW
    assert 'for messages to be acknowledged' in program.text()
    assert 'topic peer' in program.text()


@pytest.mark.parametrize('transport', ['early', 'late'])
@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_start_methods(node, start, method, transport):
    server = node.server(topic='peer')
    program = start(start_method=method, transport=transport, listens=True)
    program.has_sent(300)
    assert program.end() < _SLOW
    is_delivered(program, server)


@pytest.mark.parametrize('launcher', ['launch', 'cotyledon'])
def test_a_worker_whose_start_fails_has_delivered(node, start, launcher):
    program = start(launcher=launcher, fails=True, count=20)
    program.has_sent(20)
    server = node.server(topic='peer')
    waiting.until(lambda: len(server.endpoint.seen) >= 20, 20)
    program.end()
    is_delivered(program, server)


def test_sigint_ends_at_once(node, start):
    program = start()
    program.has_sent(10)
    assert program.end(signal.SIGINT) < _EXIT_TIMEOUT / 2
