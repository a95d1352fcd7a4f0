# SPDX-License-Identifier: Apache-2.0
"""Clients come without end while services close: nobody is being let in when
libzmq's socket closes, which would end the process.
"""

import contextlib
import os
import socket
import subprocess
import threading

import pytest

from tests.support import leaks
from tests.support import ports
from tests.support import processes
from zmq_threaded import endpoints
from zmq_threaded.net import accept_gate
from zmq_threaded.net import accept_gates
from zmq_threaded.net import binding
from zmq_threaded.receiver import receiver as receivers
from zmq_threaded.service import service as services


def _connect_to_all(ipc_dir, is_over):
    while not is_over.wait(0.001):
        for name in os.listdir(ipc_dir):
            if name.endswith('.sock') and not is_over.is_set():
                with contextlib.suppress(OSError), socket.socket(
                        socket.AF_UNIX) as client:
                    client.settimeout(0.02)
                    client.connect(os.path.join(ipc_dir, name))
                    client.recv(1)


@contextlib.contextmanager
def _crowd(ipc_dir):
    """Clients that connect to everything in there, again and again."""
    is_over = threading.Event()
    threads = [threading.Thread(target=_connect_to_all,
                                args=(ipc_dir, is_over)) for _ in range(20)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize('how', ['bare', 'services', 'interrupted',
                                 'unjoined', 'at_exit', 'unmade', 'receiver'])
def test_clients_come_in_while_it_closes(ipc_dir, how):
    with _crowd(ipc_dir):
        ended = subprocess.run(
            processes.command('closing_gates_main.py', ipc_dir, how),
            env=processes.ENVIRONMENT, timeout=120, text=True,
            capture_output=True)
    assert (ended.returncode, ended.stdout) == (0, 'well\n'), ended.stderr


class Interruption(BaseException):
    """What a signal handler raises."""


def _interrupt(*_):
    raise Interruption


def _bound():
    return set(accept_gates._gates._gates)


def test_a_cleanup_that_was_interrupted_has_unbound(node, monkeypatch):
    service = node.runtime().service([])
    service.start(lambda messages: None)
    assert service._ipc.path in _bound()
    with monkeypatch.context() as interrupted:
        interrupted.setattr(os, 'rename', _interrupt)
        with pytest.raises(Interruption):
            service.cleanup()
    assert service._ipc.path not in _bound()
    service.cleanup()
    assert endpoints.is_gone(service.instance.endpoints[0])


def test_an_unbind_that_was_interrupted_has_unbound(node, monkeypatch):
    service = node.runtime().service([])
    with monkeypatch.context() as interrupted:
        interrupted.setattr(accept_gate.AcceptGate, '_finish', _interrupt)
        with pytest.raises(Interruption):
            binding.unbind_ipc(service._ipc.path)
    assert not _bound()
    assert not leaks.ipc_files(node.ipc_dir)


def test_the_socket_of_a_service_unbinds_before_it_closes(node):
    service = node.runtime().service([])
    service._router.close()
    assert not _bound()


def test_a_service_whose_making_was_interrupted_has_unbound(node,
                                                            monkeypatch):
    parts = node.runtime()
    monkeypatch.setattr(services.Service, '_make_parts', _interrupt)
    with pytest.raises(Interruption):
        parts.service([])
    assert not _bound()


def test_a_receiver_whose_making_was_interrupted_has_unbound(node,
                                                             monkeypatch):
    settings = node.settings(
        rpc_zmq_topology='receiver', rpc_zmq_bind_address='127.0.0.1',
        rpc_zmq_host='127.0.0.1', rpc_zmq_port=ports.free_port())
    with monkeypatch.context() as interrupted:
        interrupted.setattr(receivers.Receiver, '_make_parts', _interrupt)
        with pytest.raises(Interruption):
            receivers.Receiver(settings, node.ipc_dir)
    assert not _bound()
    receiver = receivers.Receiver(settings, node.ipc_dir)
    receiver.start()
    receiver.stop()
