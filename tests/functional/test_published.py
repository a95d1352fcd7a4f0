# SPDX-License-Identifier: Apache-2.0
"""What the owner of a node is told: of its name, and of its receiver."""

import dataclasses
import os
import socket
import threading

import pytest

from tests.support import waiting
from zmq_threaded import logs
from zmq_threaded.net import addresses
from zmq_threaded.receiver import address
from zmq_threaded.receiver import published

HERE, ELSEWHERE = '127.0.0.1', '192.0.2.7'


@pytest.fixture
def dns(monkeypatch):
    names = {'here': [HERE], 'both': [ELSEWHERE, HERE],
             'elsewhere': [ELSEWHERE, '2001:db8::1']}
    monkeypatch.setattr(addresses, '_by_pid', {
        os.getpid(): addresses.Addresses(lambda name: names[name])})
    yield names
    waiting.until(lambda: not any(thread.name == 'zmq-resolver' for thread
                                  in threading.enumerate()))


def _warnings(caplog):
    logs.flush()
    return [record.getMessage() for record in caplog.records
            if record.levelname == 'WARNING'
            and 'rpc_zmq_host' in record.getMessage()]


@pytest.mark.parametrize('host, bind, expected', [
    ('here', '*', ''), ('both', '*', ''), (HERE, HERE, ''),
    ('localhost', '*', ''), ('::1', '::', ''), (HERE, '0.0.0.0', ''),
    ('elsewhere', '*', 'which is no address of this machine'),
    (ELSEWHERE, '*', 'which is no address of this machine'),
    ('nowhere', '*', 'the name nowhere cannot be resolved'),
    ('here', '127.0.0.2', 'binds 127.0.0.2 alone'),
    ('::1', '0.0.0.0', 'binds 0.0.0.0 alone')])
def test_a_service_says_that_its_name_does_not_lead_to_it(
        dns, node, caplog, host, bind, expected):
    dns['localhost'] = [HERE]
    parts = node.runtime(rpc_zmq_transport='tcp', rpc_zmq_host=host,
                         rpc_zmq_bind_address=bind)
    parts.service([])
    if not expected:
        waiting.until(lambda: parts._surroundings.published._next != 0)
        assert _warnings(caplog) == []
        return
    told = waiting.until(lambda: _warnings(caplog))
    assert len(told) == 1
    assert f'rpc_zmq_host is {host}' in told[0]
    assert expected in told[0]
    assert 'Set rpc_zmq_host to' in told[0]


def test_an_ipc_service_does_not_care(dns, node, caplog):
    node.runtime(rpc_zmq_host='nowhere').service([])
    assert _warnings(caplog) == []


def test_localhost_is_no_name_for_a_cloud(node):
    settings = node.settings(rpc_zmq_host='localhost')
    assert not published.problem(settings, [HERE])
    distributed = dataclasses.replace(settings, matchmaker='redis://h1')
    assert 'another machine on each host' in published.problem(
        distributed, [HERE])
    # /etc/hosts of Debian; other hosts have it from DNS
    named = dataclasses.replace(distributed, host='node-17')
    assert not published.problem(named, ['127.0.1.1'])


def test_told_once_and_when_it_is_mended(dns, node, caplog):
    caplog.set_level('INFO')
    watcher = published.Published(node.settings(
        rpc_zmq_transport='tcp', rpc_zmq_host='node'))
    dns['node'] = [ELSEWHERE]
    for _ in range(5):
        watcher._next = 0.0
        watcher.check()
        waiting.until(lambda: _warnings(caplog))
    assert len(_warnings(caplog)) == 1
    dns['node'] = [HERE]
    addresses.of_process()._resolver._names.clear()
    watcher._next = 0.0
    watcher.check()
    waiting.until(lambda: logs.flush() or 'leads to this machine now'
                  in caplog.text)


def test_a_receiver_says_so_too(node):
    receiver = node.receiver(host='no-such-host.invalid')
    waiting.until(lambda: 'rpc_zmq_host is no-such-host.invalid'
                  in receiver.output(), 20)


# The receiver of this node

def _presence(node, **query):
    settings = node.settings(rpc_zmq_topology='receiver', **query)
    return address.Presence(settings, node.ipc_dir)


def _told(caplog, presence):
    caplog.clear()
    presence._next_look = 0.0
    presence.check()
    logs.flush()
    return ' '.join(record.getMessage() for record in caplog.records)


def test_a_receiver_for_another_host_or_port_is_named(node, caplog):
    receiver = node.receiver(host='127.0.0.1')
    told = _told(caplog, _presence(node, rpc_zmq_host='node-17',
                                   rpc_zmq_port=9999))
    assert (f'runs on this node for rpc_zmq_host 127.0.0.1, rpc_zmq_port '
            f'{receiver.port}, rpc_zmq_ipc_dir {node.ipc_dir!r}') in told
    assert 'expect one for rpc_zmq_host node-17, rpc_zmq_port 9999' in told
    assert 'No zmq receiver runs' not in told


def test_a_receiver_of_another_directory_is_named(node, caplog, tmp_path):
    receiver = node.receiver()
    settings = node.settings(rpc_zmq_topology='receiver',
                             rpc_zmq_host='127.0.0.1',
                             rpc_zmq_port=receiver.port)
    told = _told(caplog, address.Presence(settings, str(tmp_path)))
    assert (f'runs on this node for rpc_zmq_host 127.0.0.1, rpc_zmq_port '
            f'{receiver.port}, rpc_zmq_ipc_dir {node.ipc_dir!r}') in told


def test_a_killed_receiver_is_none(node, caplog):
    receiver = node.receiver()
    presence = _presence(node, rpc_zmq_host='node-17', rpc_zmq_port=9999)
    assert 'A zmq receiver runs' in _told(caplog, presence)
    receiver.kill()
    assert f'port {receiver.port}' not in _told(caplog, presence)
    receiver.start()
    assert f'port {receiver.port}' in _told(caplog, presence)
    right = _presence(node, rpc_zmq_host=receiver.host,
                      rpc_zmq_port=receiver.port)
    assert not _told(caplog, right)
    receiver.terminate()
    assert not [name for name in os.listdir(node.ipc_dir)
                if name.startswith('receiver-')]


@pytest.mark.parametrize('note', ['lie', 'line', 'fifo', 'link', 'nothing'])
def test_a_note_that_does_not_fit_is_not_believed(node, note):
    path = os.path.join(node.ipc_dir, f'receiver-{"0" * 16}.sock')
    beside = path.removesuffix('.sock') + '.txt'
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)
        bound.listen()
        if note == 'fifo':
            os.mkfifo(beside)
        elif note == 'link':
            os.symlink('/etc/passwd', beside)
        elif note != 'nothing':
            with open(beside, 'w') as file:
                file.write({'lie': 'node:1', 'line': 'a\nb:1'}[note])
        told = [each for each in address.other_receivers(
            node.settings(), node.ipc_dir)
                if node.ipc_dir in each]
    assert told == ['another rpc_zmq_host or rpc_zmq_port, rpc_zmq_ipc_dir '
                    f'{node.ipc_dir!r}']
    os.unlink(path)


def test_a_note_is_never_written_through_a_link(node):
    settings = node.settings(rpc_zmq_host='node')
    target = os.path.join(node.ipc_dir, 'precious')
    path = address._note_path(address.receiver_path(settings, node.ipc_dir))
    os.symlink(target, path)
    address.leave_note(settings, node.ipc_dir)
    assert not os.path.exists(target)
    assert open(path).read() == f'node:{settings.receiver_port}'
