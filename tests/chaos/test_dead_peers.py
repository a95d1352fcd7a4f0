# SPDX-License-Identifier: Apache-2.0
"""Peers that die, hang or are cut off while a call is in progress; and those
that are only slow, of which nobody may say that they are dead.

ZMQ_CHAOS_CALLS sets how many slow calls are made; 100000 is the long form.
"""

import os
import subprocess
import sys
import threading
import time
from concurrent import futures

import pytest

from tests.support import chaos_cloud
from tests.support import crowd
from tests.support import leaks
from tests.support import processes
from tests.support import waiting
from zmq_threaded import errors
from zmq_threaded import sockets

_CALLS = int(os.environ.get('ZMQ_CHAOS_CALLS', 2000))
_THREADS = 128
_SECONDS = 0.2
# Far below the 50 s of the call.
_SOON, _LATER = 20.0, 30.0


@pytest.fixture(params=['direct', 'receiver'])
def reached(request, node):
    """The node, whose services are reached in one way or the other."""
    if request.param == 'receiver':
        node.receiver()
    node.way = request.param
    return node


@pytest.fixture
def rare_heartbeats(monkeypatch):
    """Who waits for libzmq's heartbeats waits for long."""
    for name in '_HEARTBEAT_IVL', '_HEARTBEAT_TIMEOUT', '_HEARTBEAT_TTL':
        monkeypatch.setattr(sockets, name, 60_000)


def _instances(node):
    return [name.removesuffix('.sock') for name in os.listdir(node.ipc_dir)
            if name.endswith('.sock') and not name.startswith('receiver-')]


def _ends_after(node, process, action, monitored=None):
    """Kill or pause a process while a call is run; returns the exception
    that ends the call, and the seconds after which it does.
    """
    client = node.client(timeout=50, call_monitor_timeout=monitored)
    client.call({}, 'echo', value=1)
    at = []
    timer = threading.Timer(0.5, lambda: (at.append(time.monotonic()),
                                          getattr(process, action)()))
    timer.start()
    try:
        with pytest.raises(errors.ServerGone) as raised:
            client.call({}, 'sleep', seconds=60)
        return str(raised.value), time.monotonic() - at[0]
    finally:
        timer.join()


@pytest.mark.parametrize('monitored', [None, 40])
def test_a_call_ends_when_its_server_is_killed(rare_heartbeats, reached,
                                               monitored):
    server = reached.process()
    instance, = _instances(reached)
    error, seconds = _ends_after(reached, server, 'kill', monitored)
    print(f'\n{reached.way}, kill: after {seconds:.2f} s: {error}')
    assert seconds < _SOON
    assert instance in error and 'may have been executed' in error


def test_a_call_ends_when_its_server_is_paused(reached):
    server = reached.process()
    instance, = _instances(reached)
    try:
        error, seconds = _ends_after(reached, server, 'pause')
    finally:
        server.kill()
    print(f'\n{reached.way}, pause: after {seconds:.2f} s: {error}')
    assert seconds < _LATER
    assert instance in error and 'may have been executed' in error


@pytest.mark.parametrize('action, limit', [('kill', _SOON),
                                           ('pause', _LATER)])
def test_a_call_ends_when_the_receiver_does(request, node, action, limit):
    if action == 'kill':
        request.getfixturevalue('rare_heartbeats')
    receiver = node.receiver()
    server = node.process()
    try:
        error, seconds = _ends_after(node, receiver, action)
    finally:
        receiver.resume() if action == 'pause' else receiver.start()
        server.kill()
    print(f'\nreceiver {action}: after {seconds:.2f} s: {error}')
    assert seconds < limit


# Clients that die

_CALLING = '''
import native_threads; native_threads.use_native_threads()
import oslo_messaging, sys, threading
from oslo_config import cfg
cfg.CONF([], project="dying")
client = oslo_messaging.get_rpc_client(
    oslo_messaging.get_rpc_transport(cfg.CONF, sys.argv[1]),
    oslo_messaging.Target(topic="topic"), timeout=60)
client.call({}, "echo", value=1)
for _ in range(20):
    threading.Thread(target=client.call, args=({}, "sleep"),
                     kwargs={"seconds": 1.5}).start()
print("ready", flush=True)
'''


def _dies_while_it_calls(node):
    with subprocess.Popen([
            sys.executable, '-c', _CALLING, node.url()], text=True,
            stdout=subprocess.PIPE, env=processes.ENVIRONMENT) as client:
        assert client.stdout.readline() == 'ready\n'
        time.sleep(0.3)
        client.kill()
        client.wait(60)


def _descriptors(process):
    return leaks.descriptors_of(process.pid)


def test_a_client_that_is_killed_leaves_nothing_in_its_server(reached):
    server = reached.process()
    client = reached.client(timeout=60)
    client.call({}, 'echo', value=1)
    _dies_while_it_calls(reached)
    waiting.until(lambda: server.ask('counters')['backlog'] == 0, 20)
    before = _descriptors(server)
    for _ in range(3):
        _dies_while_it_calls(reached)
        assert client.call({}, 'echo', value='others') == 'others'
    waiting.until(lambda: _descriptors(server) <= before, 20,
                  lambda: (_descriptors(server), before))
    counters = server.ask('counters')
    print(f'\n{reached.way}: {counters}')
    assert 'loop_errors' not in counters and not counters['backlog']


# No false alarm

@pytest.mark.timeout(300 + _CALLS // 50)
def test_slow_calls_of_many_threads_raise_no_alarm(reached):
    for name in 'ab':
        reached.process(server=name)
    client = reached.client(timeout=60)
    failed = []

    def call(number):
        try:
            client.call({}, 'sleep', seconds=_SECONDS)
        except Exception as error:
            failed.append(error)
    started = time.monotonic()
    crowd.share_out(range(_CALLS), call, _THREADS)
    print(f'\n{reached.way}: {_CALLS} calls from {_THREADS} threads, '
          f'{len(failed)} failed, {time.monotonic() - started:.0f} s')
    assert not failed


@pytest.mark.parametrize('monitored', [None, 4])
def test_a_server_whose_workers_need_all_the_cpu_raises_no_alarm(
        reached, tmp_path, monitored):
    server = chaos_cloud.server(reached, str(tmp_path), 'burning',
                                chaos_cloud.Timeline(), 'burning')
    waiting.until(server.is_ready, 30)
    client = reached.client(topic='burning', timeout=60,
                            call_monitor_timeout=monitored)
    with futures.ThreadPoolExecutor(6) as pool:
        burning = [pool.submit(client.call, {}, 'burn', seconds=3)
                   for _ in range(6)]
        for number in range(10):
            assert client.call({}, 'run', token=str(number),
                               seconds=0) == str(number)
        assert [each.result() for each in burning] == [None] * 6
    server.finish()
    assert server.exit_code(30) == 0
