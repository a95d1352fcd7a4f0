# SPDX-License-Identifier: Apache-2.0
"""The service without an oslo.messaging server, and how it stops."""

import random
import signal
import subprocess
import sys
import threading
import time

import futurist
import oslo_messaging
import pytest

from tests.support import processes
from tests.support import rpc
from tests.support import waiting
from zmq_threaded import errors
from zmq_threaded import topic
from zmq_threaded.service import batch
from zmq_threaded.service import executors
from zmq_threaded.service import poller

OPTIONS = {'fast': {'max_workers': 2},
           'threading': {'max_workers': 2}, 'dynamic': {'max_workers': 2},
           'synchronous': {}}


def _handler(ctxt, message):
    if message['method'] == 'thread':
        return threading.current_thread().name
    raise ValueError(message['args'])


@pytest.fixture
def served(node):
    """Starts a bare service with an executor."""
    parts = node.runtime()
    used = []

    def serve(executor, handler=_handler):
        service = parts.service([topic.rpc('openstack', 'topic')])
        service.start(executors.submitting(executor, handler))
        used.append((service, executor))
        return service
    yield serve
    for service, executor in used:
        service.stop()
        executor.shutdown()
        service.cleanup()


@pytest.mark.parametrize('name', sorted(OPTIONS))
def test_any_futurist_executor_runs_the_handler(node, served, name):
    served(executors.load(name, **OPTIONS[name]))
    client = node.client()
    thread = client.call({}, 'thread')
    assert thread.startswith('zmq-poller') == (name == 'synchronous')
    with pytest.raises(ValueError, match='why'):
        client.call({}, 'raise', text='why')


def test_an_unknown_executor_is_named():
    with pytest.raises(errors.ConfigurationError, match='no_such'):
        executors.load('no_such')


def test_what_an_executor_rejects_goes_to_another_service(node, served):
    def reject(executor, waiting):
        raise futurist.RejectedSubmission('full')
    served(futurist.ThreadPoolExecutor(1, check_and_reject=reject))
    served(executors.load('threading', max_workers=2))
    client = node.client()
    for _ in range(10):
        assert client.call({}, 'thread')


def test_after_stop_the_rest_is_refused_and_goes_elsewhere(node):
    first = node.server(server='a', workers=2)
    transport = node.transport()
    client = node.client(transport)
    result = []
    caller = threading.Thread(target=lambda: result.append(
        client.call({}, 'wait', value='in progress')))
    caller.start()
    waiting.until(lambda: first.endpoint.seen)
    second = node.server(server='b')
    first.stop()
    # The client still believes in the first one.
    assert client.call({}, 'echo', value='next') == 'next'
    client.cast({}, 'note', value='cast')
    waiting.until(lambda: second.endpoint.seen == ['cast'])
    first.endpoint.release.set()
    caller.join(30)
    assert result == ['in progress']
    assert first.endpoint.seen == ['in progress']


def test_no_callback_follows_stop(node):
    server = node.server(workers=4)
    transport = node.transport()
    client = node.client(transport, timeout=30)
    done = threading.Event()

    def cast():
        while not done.is_set():
            client.cast({}, 'note', value=1)
            time.sleep(0.0005)
    sender = threading.Thread(target=cast)
    sender.start()
    waiting.until(lambda: len(server.endpoint.seen) > 20)
    submitted = []
    executor = server._work_executor
    name = 'execute' if hasattr(executor, 'execute') else 'submit'
    submit = getattr(executor, name)
    setattr(executor, name, lambda *args: (
        submitted.append(time.monotonic()), submit(*args)))
    server.stop()
    stopped = time.monotonic()
    server.wait()
    done.set()
    sender.join(30)
    assert all(at <= stopped for at in submitted)


def test_no_callback_follows_a_stop_that_was_too_long_waited_for(
        node, monkeypatch):
    monkeypatch.setattr(poller, '_STOP_LIMIT', 0.1)
    parts = node.runtime()
    service = parts.service([topic.rpc('openstack', 'topic')],
                            batch=batch.Batch(2, None))
    release, calls = threading.Event(), []
    service.start(lambda messages: (calls.append(len(messages)),
                                    release.wait(20)))
    client = node.client()
    client.cast({}, 'note', value=0)
    client.cast({}, 'note', value=1)
    waiting.until(lambda: calls == [2])
    client.cast({}, 'note', value=2)
    service.stop()
    release.set()
    service.cleanup()
    parts.forget(service)
    assert calls == [2]


def test_rolling_restart_loses_no_call(node):
    """Two of three go on while one restarts; 16 threads call all the time.

    Only what falls between the last drain and the close of a socket may fail.
    """
    transport = node.transport()
    servers = [node.server(server=name, workers=4) for name in 'abc']
    client = node.client(transport, timeout=20)
    done = threading.Event()
    failed, calls = [], []

    def call():
        while not done.is_set():
            try:
                client.call({}, 'echo', value=1)
                calls.append(1)
            except oslo_messaging.MessagingTimeout as error:
                failed.append(error)
    callers = [threading.Thread(target=call) for _ in range(16)]
    for caller in callers:
        caller.start()
    for _ in range(2):
        for server in servers:
            rpc.Node.stop(server)
            server.endpoint.release.clear()
            server.start(override_pool_size=4)
    done.set()
    for caller in callers:
        caller.join(30)
    print(f'{len(calls)} calls, {len(failed)} failed')
    assert len(calls) > 100
    assert not failed, failed[:3]


@pytest.mark.parametrize('attempt', range(8))
def test_a_server_can_be_stopped_in_a_signal_handler(node, attempt):
    with subprocess.Popen(
            processes.command('signal_main.py', node.url(rpc_cast_timeout=5)),
            text=True,
            stdout=subprocess.PIPE, env=processes.ENVIRONMENT) as process:
        assert process.stdout.readline() == 'ready\n'
        time.sleep(random.uniform(0.0, 0.05))   # any moment of its loop
        process.send_signal(signal.SIGTERM)
        try:
            out, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError('hangs in its signal handler') from None
    assert out == 'stopped\n'


def test_a_process_that_casts_and_exits_has_delivered(node):
    server = node.server()
    script = (
        'import native_threads; native_threads.use_native_threads()\n'
        'import oslo_messaging, sys; from oslo_config import cfg\n'
        'cfg.CONF([], project="short")\n'
        'client = oslo_messaging.get_rpc_client(\n'
        '    oslo_messaging.get_rpc_transport(cfg.CONF, sys.argv[1]),\n'
        '    oslo_messaging.Target(topic="topic"))\n'
        'for number in range(200): client.cast({}, "note", value=number)\n')
    subprocess.run([sys.executable, '-c', script, node.url()], check=True,
                   timeout=60, env=processes.ENVIRONMENT)
    waiting.until(lambda: len(server.endpoint.seen) >= 200)
    assert sorted(server.endpoint.seen) == list(range(200))


def test_a_turn_ends_though_refused_messages_keep_coming(served, monkeypatch):
    executor = executors.load('threading', max_workers=1)
    reading = served(executor)._poller
    reading.refuse_from_now_on()
    # Given a router that never runs dry, and messages that take no room
    read = []
    monkeypatch.setattr(reading._router, 'receive', lambda limit: (
        read.append(limit), [[b'']] * limit)[1])
    turns = []
    tick = reading._tick
    reading._tick = lambda: (turns.append(1), tick())
    reading._mailbox.wake()
    # Then the poller ticks all the same, without being woken
    waiting.until(lambda: len(turns) >= 2, 10)
    assert len(read) > poller._READ_PER_TURN // poller._READ_AT_ONCE
    monkeypatch.undo()
