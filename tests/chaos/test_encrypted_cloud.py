# SPDX-License-Identifier: Apache-2.0
"""A cloud of three hosts is switched to encryption and back, its keys are
exchanged, and one host is revoked; all that while it is in use.
"""

import collections
import itertools
import os
import shutil
import time

import pytest

from tests.support import encryption
from tests.support import namespaces
from tests.support import waiting
from zmq_threaded.security import keys

_WHY_NOT = namespaces.why_not()
pytestmark = [
    pytest.mark.skipif(bool(_WHY_NOT),
                       reason=f'hosts as network namespaces: {_WHY_NOT}'),
    pytest.mark.timeout(600), pytest.mark.xdist_group('clouds')]

_UP = 'connect', 'serve', 'required'
_QUICK = {'zmq_target_update': 2, 'zmq_target_expire': 10}


class Node:
    """One host with a receiver or none, a server and a client in use."""

    def __init__(self, cloud, letter, mode):
        self.letter = letter
        self._cloud = cloud
        self._host = getattr(cloud.hosts, letter)
        self._numbers = itertools.count()
        self.receiver = None
        self.begin(mode)

    def begin(self, mode):
        query = {**self._cloud.query(self.letter, mode), **_QUICK}
        if self._cloud.is_behind and self.receiver is None:
            self.receiver = self._host.receiver(**query)
        elif self.receiver is not None:
            self.receiver.configure(
                rpc_zmq_host=self._host.address,
                rpc_zmq_ipc_dir=self._host.ipc_dir, **query)
            assert self.receiver.terminate() == 0
            self.receiver.start()
        topology = {} if self._cloud.is_behind else {
            'rpc_zmq_topology': 'direct', 'rpc_zmq_transport': 'tcp'}
        self.server = self._host.server(self.letter, **query, **topology)
        self.client = self._host.client(**query, **topology)
        namespaces.ask(self.client, 'begin', callers=self._cloud.callers,
                       name=f'{self.letter}{next(self._numbers)}')

    def end(self):
        """End the client and the server; what they did is noted."""
        if self.client is None:
            return
        self._cloud.note_sent(namespaces.ask(self.client, 'end'))
        self.client.end()
        self._cloud.seen += map(tuple, self.stop())
        self.client = None

    def stop(self):
        assert self.server.ask('stop') == 'stopped'
        seen = self.server.ask('seen')
        self.server.end()
        return seen


class Cloud:
    """Three hosts.

    :param is_behind: whether services are behind receivers
    :param callers: on each host
    """

    def __init__(self, hosts, ring, is_behind, callers):
        self.hosts, self.ring, self.is_behind = hosts, ring, is_behind
        self.callers = callers
        self.sent, self.failed, self.calls = 0, [], 0
        self.seen = []
        self.nodes = []

    def query(self, letter, mode):
        return ({} if mode == 'disabled'
                else self.ring.query(letter, mode))

    def begin(self, mode):
        self.nodes = [Node(self, letter, mode) for letter in 'abc']

    def note_sent(self, result):
        self.sent += result['casts']
        self.calls += result['calls']
        self.failed += result['failed']

    def switch(self, mode):
        """A rolling restart."""
        for node in self.nodes:
            node.end()
            node.begin(mode)
            time.sleep(1)

    def end(self):
        for node in self.nodes:
            self.note_sent(namespaces.ask(node.client, 'end'))
            node.client.end()
            node.client = None
        for node in self.nodes:
            self.seen += map(tuple, node.stop())

    def assert_nothing_was_lost(self):
        assert self.calls > 100 and self.failed == []
        doubled = {each: count for each, count
                   in collections.Counter(self.seen).items() if count > 1}
        assert not doubled
        assert len(self.seen) == self.sent


@pytest.fixture(params=[
    pytest.param((True, 1), id='receiver'),
    pytest.param((True, 11), id='receiver-33', marks=pytest.mark.long),
    pytest.param((False, 11), id='direct-33', marks=pytest.mark.long)])
def cloud(request, no_leaks, ipc_dir, tmp_path):
    ring = encryption.KeyRing(tmp_path)
    for letter in 'abc':
        ring.make(letter)
    with namespaces.Hosts(ipc_dir, 'abc') as hosts:
        yield Cloud(hosts, ring, *request.param)


def test_a_cloud_is_switched_on_and_off_while_it_is_in_use(cloud):
    cloud.begin('disabled')
    for mode in (*_UP, 'serve', 'connect', 'disabled'):
        cloud.switch(mode)
    cloud.end()
    cloud.assert_nothing_was_lost()


def _exchange(ring, letter):
    for suffix in keys.SECRET_SUFFIX, keys.PUBLIC_SUFFIX:
        shutil.copy2(ring._pairs / f'{letter}2{suffix}',
                     ring._pairs / 'incoming')
        os.rename(ring._pairs / 'incoming',
                  ring._pairs / f'{letter}{suffix}')


def test_all_keys_are_exchanged_while_they_are_in_use(cloud):
    cloud.begin('required')
    for letter in 'abc':
        cloud.ring.make(f'{letter}2')
    time.sleep(3)
    for node in cloud.nodes:
        _exchange(cloud.ring, node.letter)
        if node.receiver is not None:
            assert node.receiver.terminate() == 0
            node.receiver.start()
        time.sleep(2)
    time.sleep(20)
    for letter in 'abc':
        cloud.ring.revoke(letter)
    time.sleep(8)
    cloud.end()
    cloud.assert_nothing_was_lost()


def _of(nodes, letters):
    """The casts of some clients that some servers have seen, as a list."""
    return [tuple(each) for node in nodes
            for each in node.server.ask('seen') if each[0][0] in letters]


def test_one_host_is_revoked_while_the_others_are_in_use(cloud):
    cloud.begin('required')
    a, b, c = cloud.nodes
    waiting.until(lambda: _of([a, b], 'c') and _of([c], 'ab'), 30)
    cloud.ring.revoke('c')
    time.sleep(6)
    # Nothing more reaches those who stay, and they send nothing more there.
    before = _of([a, b], 'c'), _of([c], 'ab')
    time.sleep(3)
    assert (_of([a, b], 'c'), _of([c], 'ab')) == before
    results = {node.letter: namespaces.ask(node.client, 'end')
               for node in cloud.nodes}
    for node in cloud.nodes:
        node.client.end()
    failed = results['a']['failed'] + results['b']['failed']
    assert failed == []
    sent = {(f'{letter}0', number) for letter in 'ab'
            for number in range(results[letter]['casts'])}
    stayed = _of([a, b], 'ab')
    assert len(stayed) == len(set(stayed))
    assert set(stayed) | set(_of([c], 'ab')) == sent
    for node in cloud.nodes:
        node.stop()
