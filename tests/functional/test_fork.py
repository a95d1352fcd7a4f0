# SPDX-License-Identifier: Apache-2.0
"""Services make their drivers before they fork and use them in the children.
"""

import multiprocessing
import os
import threading

import oslo_messaging

from tests.support import forks
from tests.support import rpc
from tests.support import waiting


def _call_many(transport, count):
    client = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic='topic'), timeout=20)
    mine = [f'{os.getpid()}-{number}' for number in range(count)]
    replies = [client.call({}, 'echo', value=value) for value in mine]
    for value in mine:
        client.cast({}, 'note', value=value)
    transport.cleanup()
    assert replies == mine
    return mine


def test_children_of_a_used_transport_get_their_own_replies(node):
    server = node.server()
    transport = node.transport()
    client = node.client(transport)
    assert client.call({}, 'echo', value='before') == 'before'
    client.cast({}, 'note', value='before')
    children = [forks.Forked(_call_many, transport, 50) for _ in range(4)]
    cast = {'before', *(value for child in children
                        for value in child.result())}
    waiting.until(lambda: set(server.endpoint.seen) == cast)
    assert len(server.endpoint.seen) == len(cast)
    assert client.call({}, 'echo', value='after') == 'after'


class PidEndpoint(rpc.Recorder):
    def pid(self, ctxt):
        return os.getpid()


def _serve(transport, started, stop):
    server = oslo_messaging.get_rpc_server(
        transport, oslo_messaging.Target(topic='topic', server='same'),
        [PidEndpoint()])
    server.start()
    os.write(started, b'x')
    os.read(stop, 1)
    server.stop()
    server.wait()
    transport.cleanup()
    return 'stopped'


def test_workers_serve_on_a_transport_made_before_the_fork(node):
    transport = node.transport()
    started, stop = os.pipe(), os.pipe()
    workers = [forks.Forked(_serve, transport, started[1], stop[0])
               for _ in range(3)]
    for _ in workers:
        os.read(started[0], 1)
    client = node.client(server='same')
    pids = [client.call({}, 'pid') for _ in range(9)]
    assert sorted(pids) == sorted(3 * [worker.pid for worker in workers])
    os.write(stop[1], b'xxx')
    assert [worker.result() for worker in workers] == 3 * ['stopped']
    for end in (*started, *stop):
        os.close(end)


def _start_and_stop(transport):
    _call_many(transport, 2)
    return 'done'


def test_forks_during_traffic_hang_neither_side(node):
    server = node.server()
    transport = node.transport()
    client = node.client(transport, timeout=20)
    done = threading.Event()
    failures = []

    def hammer(number):
        while not done.is_set():
            value = f'parent-{number}'
            if client.call({}, 'echo', value=value) != value:
                failures.append(value)
            client.cast({}, 'note', value=value)

    threads = [threading.Thread(target=hammer, args=(number,))
               for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert forks.Forked(_start_and_stop, transport).result() == 'done'
    finally:
        done.set()
        for thread in threads:
            thread.join(30)
    assert not failures
    assert server.endpoint.seen


def _cast_and_end(transport):
    client = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic='topic'))
    for number in range(50):
        client.cast({}, 'note', value=number)
    # As cotyledon's workers do: multiprocessing runs no atexit.


def test_a_worker_of_multiprocessing_that_ends_has_delivered(node):
    server = node.server()
    transport = node.transport()
    worker = multiprocessing.get_context('fork').Process(
        target=_cast_and_end, args=(transport,))
    worker.start()
    worker.join(30)
    assert worker.exitcode == 0
    worker.close()
    waiting.until(lambda: len(server.endpoint.seen) >= 50)
    assert sorted(server.endpoint.seen) == list(range(50))


def test_a_child_that_cleans_up_its_parents_server_does_no_harm(node):
    server = node.server()

    def clean_up():
        server.listener.stop()
        server.listener.cleanup()
        return 'harmless'
    assert forks.Forked(clean_up).result() == 'harmless'
    assert node.client().call({}, 'echo', value=1) == 1


def test_a_fork_does_not_disturb_a_serving_parent(node):
    server = node.server()
    client = node.client()
    client.call({}, 'echo', value=1)
    assert forks.Forked(lambda: server.endpoint.echo({}, 5)).result() == 5
    for number in range(20):
        assert client.call({}, 'echo', value=number) == number


def test_a_child_leaves_the_connections_of_its_parent_alone(node):
    node.server()
    transport = node.transport()
    node.client(transport).call({}, 'echo', value=1)
    parts = rpc.driver(transport)._parts()
    (connection,), = parts.requests._pool._idle.values()

    def close():
        # As the garbage collector does; its thread is not in the child.
        connection.close()
        return 'alone'
    holding, go_on = threading.Event(), threading.Event()

    def hold():
        with parts.counters._lock:
            holding.set()
            go_on.wait(30)
    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert holding.wait(10)
        assert forks.Forked(close).result() == 'alone'
    finally:
        go_on.set()
        thread.join(10)
