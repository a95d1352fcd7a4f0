# SPDX-License-Identifier: Apache-2.0
"""Processes that are short of file descriptors: children, each with a limit
of its own.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

import oslo_messaging
import pytest
import zmq

from tests.support import processes
from tests.support import receivers
from tests.support import waiting
from zmq_threaded import sockets
from zmq_threaded.net import descriptors

_MESSAGING = 'oslo_messaging.exceptions.MessagingException'
_ADVICE = 'out of file descriptors (limit'
_TCP = {'rpc_zmq_transport': 'tcp', 'rpc_zmq_host': '127.0.0.1',
        'rpc_zmq_bind_address': '127.0.0.1'}


def _limited(limit, soft=None):
    return 'prlimit', f'--nofile={soft or limit}:{limit}'


def _server(node, limit, soft=None, **query):
    process = processes.ServerProcess(
        node.ipc_dir, 'server_main.py', node.url(**query), 'topic', 'server',
        before=_limited(limit, soft))
    node.closing(process.end)
    return process


def _is_alive(process):
    return process._popen.poll() is None


def _descriptors_of(process):
    return len(os.listdir(f'/proc/{process.pid}/fd'))


def _address(node):
    return next(os.path.join(node.ipc_dir, name)
                for name in os.listdir(node.ipc_dir)
                if name.endswith('.sock'))


def _burst(path, count):
    """As many connections as there was room for in the queue."""
    burst = []
    for _ in range(count):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        try:
            client.connect(path)
        except BlockingIOError:
            client.close()
        else:
            burst.append(client)
    return burst


@contextlib.contextmanager
def _crowd(endpoint, count):
    """Connections that stay, as many as the other side takes."""
    with zmq.Context() as context:
        context.linger = 0
        crowd = [context.socket(zmq.DEALER) for _ in range(count)]
        for client in crowd:
            client.set(zmq.RECONNECT_IVL, 50)
            client.connect(endpoint)
        yield
        for client in crowd:
            client.close(linger=0)


def _close(clients):
    for client in clients:
        client.close()


def _call_in_threads(client, count, **arguments):
    outcomes = []

    def call():
        try:
            outcomes.append(client.call({}, 'sleep', **arguments))
        except Exception as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_bursts_of_ipc_clients_do_not_end_a_service(node):
    process = _server(node, 256)
    client = node.client()
    assert client.call({}, 'echo', value=0) == 0
    for number in range(20):
        burst = waiting.until(lambda: _burst(_address(node), 300))
        assert client.call({}, 'echo', value=number) == number
        _close(burst)
        assert _is_alive(process)
    assert node.client().call({}, 'echo', value=1) == 1


def test_ipc_clients_without_end_leave_a_margin_and_come_in_later(node):
    process = _server(node, 100)
    client = node.client()
    assert client.call({}, 'echo', value=0) == 0
    with _crowd(f'ipc://{_address(node)}', 120):
        waiting.until(lambda: _descriptors_of(process) >= 100 - 16, 30)
        assert client.call({}, 'echo', value=1) == 1
        late = node.client(timeout=1)
        with pytest.raises(oslo_messaging.MessagingTimeout):
            late.call({}, 'echo', value=2)
        assert _descriptors_of(process) < 100
    assert late.prepare(timeout=30).call({}, 'echo', value=3) == 3
    assert _is_alive(process)


@pytest.mark.parametrize('query', [{}, _TCP], ids=['ipc', 'tcp'])
def test_the_threads_of_a_process_do_not_use_up_a_small_service(node, query):
    process = _server(node, 100, **query)
    transport = node.transport(**query)
    outcomes = _call_in_threads(node.client(transport, timeout=60), 120,
                                seconds=0.2)
    assert outcomes == [process.pid] * 120
    assert _descriptors_of(process) < 60
    assert node.client().call({}, 'echo', value=1) == 1


def test_tcp_clients_without_end_do_not_end_a_service(node):
    process = _server(node, 100, **_TCP)
    client = node.client()
    assert client.call({}, 'echo', value=0) == 0
    with _crowd(f'tcp://127.0.0.1:{_tcp_port(process)}', 150):
        waiting.until(lambda: _descriptors_of(process) == 100)
        assert client.call({}, 'echo', value=1) == 1
    assert node.client().call({}, 'echo', value=2) == 2
    assert _is_alive(process)


def _tcp_port(process):
    with open(f'/proc/{process.pid}/net/tcp') as table:
        lines = [line.split() for line in table]
    inodes = {os.readlink(f'/proc/{process.pid}/fd/{fd}')
              for fd in os.listdir(f'/proc/{process.pid}/fd')}
    return next(int(line[1].split(':')[1], 16) for line in lines
                if line[3] == '0A' and f'socket:[{line[9]}]' in inodes)


def test_a_service_raises_its_soft_limit(node):
    process = _server(node, 4000, soft=90)
    assert node.client().call({}, 'echo', value=1) == 1
    with open(f'/proc/{process.pid}/limits') as limits:
        line = next(line for line in limits if 'open files' in line)
    assert line.split()[3:5] == ['4000', '4000']
    left = process.ask('counters')['descriptors_left']
    assert 3900 < left < 4000


def _starve(node, role, free, limit=200):
    ended = subprocess.run(
        processes.command('starving_main.py', node.url(rpc_cast_timeout=1),
                          role, str(free), str(limit)),
        stdout=subprocess.PIPE, text=True, env=processes.ENVIRONMENT,
        timeout=60)
    assert ended.returncode == 0
    return json.loads(ended.stdout)


@pytest.mark.parametrize('free', [0, 1, 4, 9, 20])
@pytest.mark.parametrize('role', ['call', 'cast', 'notify', 'listen',
                                  'counters'])
def test_the_first_use_without_descriptors_says_so(node, role, free):
    node.server()
    starved, fed = _starve(node, role, free)
    assert _MESSAGING in starved['kinds']
    assert _ADVICE in starved['text'] and 'LimitNOFILE' in starved['text']
    assert 'value' in fed


@pytest.mark.parametrize('free', range(7))
@pytest.mark.parametrize('role', ['late-call', 'late-cast', 'late-listen'])
def test_later_uses_without_descriptors_wait_or_say_so(node, role, free):
    node.server()
    first, starved, fed = _starve(node, role, free)
    assert 'value' in first and 'value' in fed
    assert 'value' in starved or _MESSAGING in starved['kinds']


def test_an_accepted_cast_waits_for_descriptors(node):
    server = node.server()
    first, starved, fed = _starve(node, 'late-cast', 0)
    assert first == starved == fed == {'value': None}
    waiting.until(lambda: len(server.endpoint.seen) == 3)


def test_more_threads_than_zeromq_sockets_share_them(node, monkeypatch):
    node.process()
    monkeypatch.setattr(sockets, '_MAX_SOCKETS', 40)
    transport = node.transport()
    client = node.client(transport, timeout=30)
    outcomes = _call_in_threads(client, 60, seconds=0.5)
    assert len(outcomes) == 60 and len(set(outcomes)) == 1
    client.cast({}, 'note', value=1)
    waiting.until(lambda: not transport._driver.unacknowledged(20))
    assert transport._driver.counters().get('dropped', 0) == 0


def test_a_receiver_without_descriptors_refuses_and_recovers(node):
    receiver = receivers.ReceiverProcess(
        node.ipc_dir, before=_limited(60), rpc_zmq_bind_address='127.0.0.1')
    node.closing(receiver.end)
    node.query = receivers.query(receiver)
    node.process(server='first')
    node.process(server='second')
    client = node.client(timeout=30)
    assert client.prepare(server='first').call({}, 'echo', value=1) == 1
    with _crowd(f'tcp://127.0.0.1:{receiver.port}', 60):
        waiting.until(lambda: _descriptors_of(receiver) == 60)
        assert client.prepare(server='first').call({}, 'echo', value=2) == 2
        with pytest.raises(oslo_messaging.MessagingTimeout):
            client.prepare(server='second', timeout=1).call({}, 'echo',
                                                            value=3)
    assert client.prepare(server='second').call({}, 'echo', value=4) == 4
    assert 'may need' in receiver.output()


def test_a_service_that_uses_up_its_descriptors_itself_lives_on(ipc_dir):
    script = os.path.join(os.path.dirname(processes.__file__),
                          'accept_gate_main.py')
    path = os.path.join(ipc_dir, 'x.sock')
    with subprocess.Popen([sys.executable, script, path, '200'],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True, env=processes.ENVIRONMENT) as child:
        assert child.stdout.readline() == 'full\n'
        crowd = _burst(path, 300)
        assert crowd
        time.sleep(0.5)     # nothing to wait for: nobody comes in
        assert child.poll() is None
        child.stdin.write('free\n')
        child.stdin.flush()
        crowd[0].settimeout(10)
        # libzmq's greeting
        assert crowd[0].recv(1) == b'\xff'
        child.stdin.close()
        assert child.wait(20) == 0
    _close(crowd)


def test_how_many_are_left():
    left = descriptors.left()
    held = [os.open('/dev/null', os.O_RDONLY) for _ in range(50)]
    try:
        assert left - 60 < descriptors.left() <= left - 40
    finally:
        for each in held:
            os.close(each)


@pytest.fixture
def before_linux_6_2(monkeypatch):
    """The kernel does not say how many descriptors are open."""
    monkeypatch.setattr(descriptors, '_counted_by_the_kernel', lambda: 0)


def test_how_many_are_left_at_the_least_before_linux_6_2(before_linux_6_2,
                                                         monkeypatch):
    exact = descriptors.raise_limit() - len(os.listdir('/proc/self/fd'))
    assert exact - 8192 < descriptors.left() <= exact + 8
    monkeypatch.setattr(descriptors, '_FAR_FROM_THE_LIMIT', 1 << 40)
    test_how_many_are_left()


def test_many_are_counted_fast_before_linux_6_2(before_linux_6_2):
    held = [os.open('/dev/null', os.O_RDONLY) for _ in range(5000)]
    try:
        best = min(_seconds(descriptors.left) for _ in range(50))
        listing = min(_seconds(lambda: os.listdir('/proc/self/fd'))
                      for _ in range(50))
    finally:
        for each in held:
            os.close(each)
    assert best < listing / 5


def _seconds(act):
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


_COUNT = '''
import os, sys
from zmq_threaded.net import descriptors
descriptors._counted_by_the_kernel = lambda: 0
held, wrong = [], 0
try:
    while True:
        held.append(os.open('/dev/null', os.O_RDONLY))
        is_left = 200 - 3 - len(held)
        wrong += not is_left - 1 <= descriptors.left() <= is_left
except OSError:
    print(len(held), wrong, descriptors.left())
'''


def test_none_is_left_at_the_limit_before_linux_6_2():
    ended = subprocess.run([*_limited(200), sys.executable, '-c', _COUNT],
                           env=processes.ENVIRONMENT, timeout=60,
                           stdout=subprocess.PIPE, text=True)
    assert ended.stdout == '197 0 0\n'
