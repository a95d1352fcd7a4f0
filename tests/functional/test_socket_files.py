# SPDX-License-Identifier: Apache-2.0
"""The socket file of a live service or receiver is removed or replaced."""

import contextlib
import os
import shutil
import socket
import stat
import tempfile
import threading
import time

import pytest
import zmq

from tests.support import leaks
from tests.support import ports
from tests.support import rpc
from tests.support import small_disk
from tests.support import waiting
from zmq_threaded import endpoints
from zmq_threaded import logs
from zmq_threaded import timings
from zmq_threaded.net import accept_gate
from zmq_threaded.net import ipc_path
from zmq_threaded.receiver import address
from zmq_threaded.receiver import receiver as receivers
from zmq_threaded.registry import sweep


def service_of(listening):
    return listening.listener._service.current


def path_of(listening):
    return service_of(listening).instance.endpoints[0].removeprefix('ipc://')


def put_a_file(path):
    os.unlink(path)
    with open(path, 'w'):
        pass


def put_a_dead_socket(path):
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)


def rename(path):
    os.rename(path, path + '.old')


REMOVALS = [os.unlink, put_a_file, put_a_dead_socket, rename]


def is_back(path):
    return not endpoints.is_dead(f'ipc://{path}')


@pytest.mark.parametrize('remove', REMOVALS)
def test_new_clients_reach_it_and_old_ones_go_on(node, remove, caplog,
                                                 monkeypatch):
    server = node.server()
    ipc, may_restore = service_of(server)._ipc, threading.Event()
    restore = ipc.restore
    monkeypatch.setattr(ipc, 'restore', lambda socket: (
        may_restore.is_set() and restore(socket)))
    old = node.client(timeout=60)
    assert old.call({}, 'echo', value=1) == 1
    for _ in range(3):
        # The file is not back before the old ones have gone on.
        may_restore.clear()
        remove(path_of(server))
        began = time.monotonic()
        assert old.call({}, 'echo', value=2) == 2
        old.cast({}, 'note', value='old')
        assert time.monotonic() - began < 20
        may_restore.set()
        assert node.client(timeout=30).call({}, 'echo', value=3) == 3
        node.client().cast({}, 'note', value='new')
    waiting.until(lambda: sorted(server.endpoint.seen)
                  == 3 * ['new'] + 3 * ['old'])
    logs.flush()
    told = [record for record in caplog.records
            if 'was removed or replaced' in record.getMessage()
            and record.levelname == 'WARNING']
    assert len(told) == 1
    for word in (path_of(server), 'topic', 'tmpfiles.d', 'rpc_zmq_ipc_dir'):
        assert word in told[0].getMessage()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path_of(server) + '.old')


def test_a_connected_client_calls_while_the_file_is_gone(node, monkeypatch):
    server = node.server()
    monkeypatch.setattr(service_of(server)._ipc, 'restore', lambda _: None)
    client, other = node.client(), node.server(server='other')
    for number in range(4):
        client.call({}, 'note', value=number)
    os.unlink(path_of(server))
    time.sleep(3 * timings.FRESH)
    for _ in range(10):
        client.call({}, 'note', value='later')
    assert server.endpoint.seen.count('later') == 5
    assert other.endpoint.seen.count('later') == 5


def test_a_directory_that_was_removed_is_made_anew_as_it_was(node, tmp_path):
    path = tmp_path / 'a' / 'b' / 's.sock'
    path.parent.mkdir(parents=True)
    os.chmod(path.parent, 0o2770)
    os.chown(path.parent, -1, 12345)
    with zmq.Context() as context:
        with context.socket(zmq.ROUTER) as router:
            bound = ipc_path.IpcPath(str(path), 'a test')
            bound.bind(router)
            assert not bound.is_lost()
            shutil.rmtree(tmp_path / 'a')
            assert bound.is_lost()
            assert bound.restore(router) and not bound.is_lost()
            status = os.stat(path.parent)
            assert stat.S_IMODE(status.st_mode) == 0o2770
            assert status.st_gid == 12345
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o770
            assert is_back(path)
            # Before the socket is closed: see net/accept_gate.py.
            bound.remove()
    assert not os.listdir(path.parent)


def test_a_service_whose_file_is_removed_for_hours_opens_no_more(node):
    server = node.server()
    service, path = service_of(server), path_of(server)
    waiting.until(lambda: is_back(path))
    before = leaks.descriptors()
    for _ in range(100):
        os.unlink(path)
        service._router.maintain(service._ipc.restore)
        assert not service._ipc.is_lost()
    waiting.until(lambda: leaks.descriptors() <= before + 3)
    assert node.client().call({}, 'echo', value=1) == 1


def test_what_cannot_be_restored_is_told_and_tried_again(node, caplog):
    server = node.server()
    path = path_of(server)
    os.unlink(path)
    os.mkdir(path)
    waiting.until(lambda: 'cannot be made' in caplog.text)
    os.rmdir(path)
    waiting.until(lambda: is_back(path))
    assert node.client().call({}, 'echo', value=1) == 1


def test_a_fanout_waits_for_a_file_that_is_missing(node):
    server = node.server()
    os.unlink(path_of(server))
    node.client(fanout=True).cast({}, 'note', value='all')
    waiting.until(lambda: server.endpoint.seen == ['all'])


# How a service says that it closes


def test_a_closing_service_renames_its_file_and_removes_it_later(node):
    server = node.server()
    path = path_of(server)
    marker = endpoints.closing_marker(path)
    service = service_of(server)
    rpc.Node.stop(server)
    assert not os.path.exists(path) and os.path.exists(marker)
    assert endpoints.is_closing(f'ipc://{path}', 0)
    assert endpoints.is_gone(f'ipc://{path}')
    waiting.until(lambda: not os.path.exists(marker))
    assert service.may_remove_files()


def test_a_service_without_a_file_still_says_that_it_closes(node):
    server = node.server()
    path = path_of(server)
    service_of(server)._ipc.restore = lambda _: None
    os.unlink(path)
    rpc.Node.stop(server)
    assert endpoints.is_closing(f'ipc://{path}', 0)


def test_a_service_that_closes_does_not_make_its_file_anew(node):
    parts = node.runtime()
    service = parts.service([])
    service.start(lambda messages: None)
    service._ipc.announce_end()
    service._router.maintain(service._ipc.restore)  # it had just looked
    assert not os.path.exists(service._ipc.path)
    service.cleanup()


def test_of_a_process_that_closes_nothing_is_left(node, ipc_dir):
    transport = node.transport()
    server = node.server(transport=transport)
    rpc.Node.stop(server)
    transport.cleanup()
    assert not set(os.listdir(ipc_dir)) - {'registry', 'facts'}


@pytest.mark.parametrize('has_address', [True, False])
@pytest.mark.parametrize('kind', [accept_gate.PLACEHOLDER, accept_gate.NEXT])
def test_what_a_service_left_that_was_killed_while_it_began_is_swept(
        ipc_dir, kind, has_address):
    stem = os.path.join(ipc_dir, 'a' * 32)
    left = [stem + kind] + has_address * [stem + '.sock']
    for path in left:
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(path)
            killed.listen()
    sweep.sweep(ipc_dir, 30)
    assert all(map(os.path.exists, left))   # young
    for path in left:
        os.utime(path, (0, 0))
    sweep.sweep(ipc_dir, 30)
    assert not any(map(os.path.exists, left))


def test_a_service_that_is_killed_leaves_only_its_address(node):
    process = node.process()
    sockets_of = set(os.listdir(node.ipc_dir)) - {'registry', 'facts'}
    assert [os.path.splitext(name)[1] for name in sockets_of] == ['.sock']
    path = os.path.join(node.ipc_dir, *sockets_of)
    process.kill()
    os.utime(path, (0, 0))
    sweep.sweep(node.ipc_dir, 30)
    assert set(os.listdir(node.ipc_dir)) == {'registry', 'facts'}


def test_what_a_service_left_that_was_killed_while_it_closed_is_swept(
        ipc_dir):
    marker = os.path.join(ipc_dir, 'a' * 32 + '.closing')
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(marker)
        listening.listen()
        os.utime(marker, (0, 0))
        sweep.sweep(ipc_dir, 30)
        assert os.path.exists(marker)       # it still listens
    sweep.sweep(ipc_dir, 30)
    assert not os.path.exists(marker)


# The receiver


@pytest.fixture
def running(node):
    settings = node.settings(
        rpc_zmq_topology='receiver', rpc_zmq_bind_address='127.0.0.1',
        rpc_zmq_host='127.0.0.1', rpc_zmq_port=ports.free_port())
    receiver = receivers.Receiver(settings, node.ipc_dir)
    receiver.start()
    node.query = {'rpc_zmq_topology': 'receiver',
                  'rpc_zmq_host': '127.0.0.1',
                  'rpc_zmq_port': settings.receiver_port}
    path = address.receiver_path(settings, node.ipc_dir)
    yield path
    receiver.stop()
    assert not os.path.exists(path)
    assert not os.path.exists(endpoints.closing_marker(path))


@pytest.mark.parametrize('remove', REMOVALS)
def test_a_receiver_and_its_services_are_reached_again(node, running, remove):
    server = node.server()
    old = node.client()
    assert old.call({}, 'echo', value=1) == 1
    for path in (running, path_of(server)):
        remove(path)
        assert old.call({}, 'echo', value=2) == 2
        waiting.until(lambda: is_back(path))
        assert node.client().call({}, 'echo', value=3) == 3
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + '.old')


def test_a_shared_path_is_not_taken_from_another_process(tmp_path, caplog):
    path = str(tmp_path / 'r.sock')
    with zmq.Context() as context:
        with context.socket(zmq.ROUTER) as router:
            bound = ipc_path.IpcPath(path, 'a test', is_shared=True)
            bound.bind(router)
            os.unlink(path)
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(path)
                other.listen()
                assert not bound.restore(router)
            assert 'another process' in caplog.text
            assert bound.restore(router)
            bound.remove()


@pytest.mark.skipif(os.getuid() != 0, reason='only root mounts a small disk')
def test_who_starts_on_a_full_disk_is_reachable_when_there_is_room():
    """In a mount namespace of its own, with a disk that has no inode left."""
    directory = tempfile.mkdtemp(prefix='zt-', dir='/tmp')
    try:
        done = small_disk.run('full_disk_main', directory, seconds=100)
    finally:
        os.rmdir(directory)
    assert done.stdout.strip() == 'well', done.stderr
