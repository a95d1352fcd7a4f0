# SPDX-License-Identifier: Apache-2.0
"""Clients come in through accept_gates.py: who is let in, and what is left."""

import contextlib
import gc
import logging
import os
import resource
import socket
import subprocess
import sys
import threading
import time

import oslo_messaging
import pytest
import zmq

from tests.support import leaks
from tests.support import processes
from tests.support import waiting
from zmq_threaded import endpoints
from zmq_threaded import logs
from zmq_threaded.net import accept_gate
from zmq_threaded.net import accept_gates
from zmq_threaded.net import binding
from zmq_threaded.net import descriptors

_GREETING = b'\xff'


@contextlib.contextmanager
def _router(path):
    with zmq.Context() as context:
        router = context.socket(zmq.ROUTER)
        binding.bind_ipc(router, path)
        try:
            yield router
        finally:
            binding.unbind_ipc(path)
            router.close(linger=0)


@pytest.fixture
def path(no_leaks, ipc_dir):
    return os.path.join(ipc_dir, 'x.sock')


@pytest.fixture(params=['plenty', 'tight'])
def supply(request, monkeypatch):
    """With a tight supply of descriptors every queue is sealed."""
    if request.param == 'tight':
        monkeypatch.setattr(accept_gate, '_PLENTY', 1 << 40)


def _greeted(path):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(path)
    assert client.recv(1) == _GREETING
    return client


def test_clients_come_in_one_after_another(path, supply):
    with _router(path):
        for _ in range(100):
            _greeted(path).close()


def test_clients_come_in_together(path, supply):
    with _router(path):
        greeted = []
        threads = [threading.Thread(
            target=lambda: greeted.append(_greeted(path)))
            for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(greeted) == 100
        for client in greeted:
            client.close()


def test_only_its_user_may_ring(path):
    with _router(path):
        # The placeholder has no name, except for this process.
        assert os.listdir(os.path.dirname(path)) == ['x.sock']
        assert os.stat(path).st_mode & 0o777 == 0o770


def test_a_second_socket_of_the_process(path, ipc_dir, supply):
    other = os.path.join(ipc_dir, 'y.sock')
    with _router(path), _router(other):
        for each in (path, other) * 20:
            _greeted(each).close()
    with _router(path):
        _greeted(path).close()


def test_a_path_is_bound_anew_when_it_was_removed(path, supply):
    with _router(path) as router:
        client = _greeted(path)
        os.unlink(path)
        binding.bind_ipc(router, path)
        _greeted(path).close()
        client.close()


def test_a_path_of_somebody_else_is_left_alone(path, supply):
    with _router(path):
        _greeted(path).close()
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
            other.listen()
            identity = os.stat(path).st_ino
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
            binding.unbind_ipc(path)
            assert os.stat(path).st_ino == identity
    os.unlink(path)


def test_who_waits_when_the_path_is_removed_comes_in(path, monkeypatch):
    monkeypatch.setattr(descriptors, 'left', lambda: 0)
    with _router_short_of_descriptors(path) as router:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(path)
        monkeypatch.undo()
        binding.unbind_ipc(path)
        assert client.recv(1) == _GREETING
        client.close()
        assert not router.closed


@contextlib.contextmanager
def _router_short_of_descriptors(path):
    with zmq.Context() as context:
        router = context.socket(zmq.ROUTER)

        def bind(descriptor):
            router.set(zmq.USE_FD, descriptor)
            router.bind(f'ipc://{path}')

        accept_gates.bind(path, bind)
        yield router
        router.close(linger=0)


def test_nobody_comes_in_while_descriptors_are_short(path, monkeypatch,
                                                     caplog):
    with _router(path):
        monkeypatch.setattr(descriptors, 'left', lambda: 5)
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(0.5)
        client.connect(path)
        with pytest.raises(TimeoutError):
            client.recv(1)
        waiting.until(lambda: 'short of file descriptors' in caplog.text)
        monkeypatch.undo()
        client.settimeout(10)
        assert client.recv(1) == _GREETING
        client.close()


_CLOSED_WITHOUT_UNBIND = '''
import socket, sys, zmq
from zmq_threaded.net import accept_gates, binding
for number in range(20):
    path = f'{sys.argv[1]}/{number}.sock'
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    binding.bind_ipc(router, path)
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    client.recv(1)
    with accept_gates._gates._lock:
        pass    # nobody is being let in
    router.close(linger=0)
    context.term()
print('fine')
'''


def test_a_socket_that_was_not_unbound_may_be_closed(ipc_dir):
    ended = subprocess.run([sys.executable, '-c', _CLOSED_WITHOUT_UNBIND,
                            ipc_dir], env=processes.ENVIRONMENT, timeout=60,
                           stdout=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stdout) == (0, 'fine\n')


def test_a_forked_child_has_gates_of_its_own(path, ipc_dir):
    with _router(path):
        pid = os.fork()
        if not pid:
            with contextlib.suppress(BaseException):
                binding.unbind_ipc(path)
                own = os.path.join(ipc_dir, 'child.sock')
                with _router(own):
                    _greeted(own).close()
                    os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        for name in os.listdir(ipc_dir):
            if name.startswith('child'):
                os.unlink(os.path.join(ipc_dir, name))
        _greeted(path).close()


def test_the_address_is_dead_when_its_process_is(path, ipc_dir):
    with _router(path):
        assert not endpoints.is_dead(f'ipc://{path}')
    assert endpoints.is_dead(f'ipc://{path}')
    assert not leaks.ipc_files(ipc_dir)


# What goes wrong


def _no_thread(monkeypatch, name='zmq-accept'):
    start = threading.Thread.start

    def fail(thread):
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, 'start', fail)


def test_a_want_of_threads_is_told_and_passes(path, monkeypatch):
    before = leaks.descriptors()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        opened = leaks.descriptors()
        _no_thread(monkeypatch)
        for _ in range(3):
            with pytest.raises(descriptors.Short, match='TasksMax'):
                binding.bind_ipc(router, path)
        assert leaks.descriptors() == opened
        assert not leaks.ipc_files(os.path.dirname(path))
        monkeypatch.undo()
        binding.bind_ipc(router, path)
        _greeted(path).close()
        binding.unbind_ipc(path)
    waiting.until(lambda: leaks.descriptors() <= before)


def test_a_server_is_refused_without_a_thread_for_its_gate(node, monkeypatch):
    _no_thread(monkeypatch)
    with pytest.raises(oslo_messaging.MessagingException, match='TasksMax'):
        node.server()
    monkeypatch.undo()
    node.server(server='later')
    assert node.client().call({}, 'echo', value=1) == 1


def test_a_hundred_removals_leave_no_descriptors(path, supply):
    with _router(path):
        client = _greeted(path)
        before = leaks.descriptors()
        for _ in range(100):
            os.unlink(path)
            assert not binding.holds_ipc(path)
            assert binding.reopen_ipc(path)
            assert binding.holds_ipc(path)
            _greeted(path).close()
        waiting.until(lambda: leaks.descriptors() <= before + 3)
        client.close()


def test_what_cannot_be_made_anew_leaves_no_descriptors(path):
    with _router(path):
        os.unlink(path)
        os.mkdir(path)
        before = leaks.descriptors()
        for _ in range(20):
            with pytest.raises(binding.BindError):
                binding.reopen_ipc(path)
        # libzmq may close that of its first greeting meanwhile.
        assert leaks.descriptors() <= before
        os.rmdir(path)
        assert binding.reopen_ipc(path)
        _greeted(path).close()


def test_what_cannot_be_bound_leaves_no_descriptors(path):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        os.mkdir(path)
        before = leaks.descriptors()
        for _ in range(20):
            with pytest.raises(binding.BindError):
                binding.bind_ipc(router, path)
        assert leaks.descriptors() == before
        os.rmdir(path)
        binding.bind_ipc(router, path)
        _greeted(path).close()
        binding.unbind_ipc(path)


def test_who_has_found_a_removed_file_comes_in(path, monkeypatch):
    with _router(path):
        with monkeypatch.context() as short:
            short.setattr(descriptors, 'left', lambda: 0)
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(10)
            client.connect(path)
            os.unlink(path)
        assert binding.reopen_ipc(path)
        assert client.recv(1) == _GREETING
        client.close()


def test_nothing_is_made_anew_that_is_not_bound(path):
    assert not binding.reopen_ipc(path)
    assert not os.path.exists(path)


class _Hanging(logging.Handler):
    def __init__(self):
        super().__init__()
        self.is_there, self.may_go = threading.Event(), threading.Event()

    def emit(self, record):
        self.is_there.set()
        self.may_go.wait(60)


@pytest.fixture
def hanging():
    handler, logger = _Hanging(), logging.getLogger(descriptors.__name__)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield handler
    handler.may_go.set()
    logs.flush(10)
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_a_handler_that_hangs_holds_up_no_newcomer(path, hanging):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    other = path.replace('x.sock', 'y.sock')
    with _router(path):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
        began = time.monotonic()
        with _router(other):
            assert hanging.is_there.wait(30)
            _greeted(path).close()
            _greeted(other).close()
            assert time.monotonic() - began < 30
            assert not hanging.may_go.is_set()
        hanging.may_go.set()


def _in_child(check):
    """Exit code 7 of a forked child says that check() held."""
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            if check():
                os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_child_closes_no_number_that_is_another_ones_by_then(path):
    with _router(path):
        wakeup, loop = accept_gates._gates._wakeup, accept_gates._gates._loop

        def check():
            held = [os.open('/dev/null', os.O_RDONLY) for _ in range(20)]
            loop.stop()
            wakeup.close()
            wakeup.set()
            gc.collect()
            return all(os.fstat(each) for each in held)

        _in_child(check)
        _greeted(path).close()


def test_a_child_of_a_moment_keeps_no_queue(path):
    """Else clients would wait in there after the end of the parent."""
    with _router(path):
        own = accept_gates._gates._gates[path]
        placeholder = os.fstat(own._placeholder.fileno())
        with accept_gates._gates._lock:
            os.dup2(own._queue.fileno(), own.listener, inheritable=False)
            try:
                _in_child(lambda: os.path.samestat(
                    os.fstat(own.listener), placeholder))
            finally:
                os.dup2(
                    own._placeholder.fileno(), own.listener, inheritable=False
                )
        _greeted(path).close()
