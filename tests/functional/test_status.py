# SPDX-License-Identifier: Apache-2.0
"""The verb ``status`` names what is wrong with a real cloud, and nothing when
all is well.
"""

import contextlib
import dataclasses
import json
import threading
import time

import pytest

from tests.support import receivers
from tests.support import rpc
from tests.support import waiting
from zmq_threaded.cli import main
from zmq_threaded.status import cloud
from zmq_threaded.status import fact_files
from zmq_threaded.status import looking
from zmq_threaded.status import probe

UPDATE = 1
# A short life of records would be over, now and then, on a busy machine.
QUICK = {'zmq_target_update': UPDATE, 'zmq_target_expire': 30}
# Seconds within which all has to be named.
# Seconds; 15 on a machine that does nothing else.
WITHIN = 45


@pytest.fixture
def shared(redis, ipc_dir):
    """A node with its registry on redis, and services on TCP ports."""
    with contextlib.ExitStack() as stack:
        stack.callback(redis.ensure_running)
        node = stack.enter_context(rpc.Node(ipc_dir))
        node.query = {**QUICK, 'rpc_zmq_matchmaker': redis.url,
                      'rpc_zmq_topology': 'direct',
                      'rpc_zmq_bind_address': '127.0.0.1',
                      'rpc_zmq_host': '127.0.0.1'}
        yield node


@pytest.fixture
def local(node):
    """A node with the embedded registry."""
    node.query = dict(QUICK)
    return node


@pytest.fixture
def status(capsys):
    def ask(node, *arguments, **query):
        capsys.readouterr()
        code = main.main(['status', *arguments, '-o', 'json',
                          '--transport-url', node.url(**query)])
        document = json.loads(capsys.readouterr().out)
        assert code == bool(document['problems'])
        # The services of these tests are found at 127.0.0.1, which is another
        # machine on each host.
        document['problems'] = [each for each in document['problems']
                                if each['kind'] != 'wrong_name']
        return document
    return ask


@pytest.fixture
def named(status):
    """Wait until a problem of one of these kinds, which are separated by
    spaces, is named; returns it.
    """
    def wait(node, kind, *arguments, **query):
        found = []

        def is_named():
            found[:] = [each for each in status(node, *arguments,
                                                **query)['problems']
                        if each['kind'] in kind.split()]
            return bool(found)
        waiting.until(is_named, WITHIN, kind)
        return found[0]
    return wait


def well(status, node):
    def is_well():
        document = status(node)
        return (not document['problems'] and document['topics']
                and 'older' not in document['nodes'][0]['version']
                and document)
    return waiting.until(is_well, 10)


def test_all_is_well_and_all_is_shown(shared, status):
    shared.process(server='one')
    shared.process(server='two')
    client = shared.client()
    for number in range(20):
        client.call({}, 'echo', value=number)

    def measured():
        document = status(shared)
        return (document['topics'] and document['topics'][0]['running p99']
                and document['nodes'][0]['processes'] == 3)
    waiting.until(measured, 10)
    document = status(shared)
    assert document['problems'] == []
    assert document['registry']['answers']
    assert document['registry']['services'] == 2
    node, = document['nodes']
    assert node['processes'] == 3 and node['services'] == 2
    topic, = document['topics']
    assert topic['topic'] == 'topic' and topic['servers'] == 2
    details = status(shared, 'topic')
    assert {each['server'] for each in details['instances']} == {'one', 'two'}
    assert all(each['user'] and each['version']
               for each in details['instances'])


def test_nothing_is_named_under_load(shared, status):
    shared.process(server='one')
    shared.process(server='two')
    client, ended = shared.client(), threading.Event()

    def load():
        while not ended.is_set():
            client.call({}, 'echo', value=1)
            client.cast({}, 'note', value=1)
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        well(status, shared)
        for _ in range(5):
            assert status(shared)['problems'] == []
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_a_stopped_service_is_named(local, status, named):
    process = local.process()
    well(status, local)
    process.pause()
    try:
        found = named(local, 'stopped')
        assert str(process.pid) in found['text']
        assert f'kill -CONT {process.pid}' in found['remedy']
    finally:
        process.resume()
    well(status, local)


def test_a_service_that_hangs_on_another_machine_is_named(
        shared, status, named, monkeypatch):
    process = shared.process()
    well(status, shared)
    # As from a machine that shares neither clock, nor files, nor processes.
    monkeypatch.setattr(cloud.processes, 'state', lambda of: 'unknown')
    monkeypatch.setattr(cloud.stamps, 'age', lambda stamp: None)
    monkeypatch.setattr(looking.fact_files, 'read', lambda path: [])
    well(status, shared)
    process.pause()
    try:
        found = named(shared, 'silent')
        assert 'has said nothing for' in found['text']
        assert 'topic.server' in found['text']
    finally:
        process.resume()


def test_a_killed_service_is_named_until_another_one_serves(local, status,
                                                            named):
    process = local.process()
    well(status, local)
    process.kill()
    found = named(local, 'died')
    assert str(process.pid) in found['text']
    local.process()
    well(status, local)


def test_a_killed_receiver_is_named(receiver, node, status, named):
    node.query = {**node.query, **QUICK}
    node.process()
    well(status, node)
    receiver.kill()
    found = named(node, 'receiver_down')
    assert 'topic.server' in found['text']
    assert 'oslo-messaging-zmq-receiver' in found['remedy']


def test_a_paused_registry_is_named(shared, redis, status, named):
    shared.process()
    well(status, shared)
    redis.pause()
    try:
        found = named(shared, 'registry')
        assert 'does not answer' in found['text']
        # The process waits for the registry as well, and is late with its
        # facts: for 5 seconds, of which each look takes as many.
        for _ in range(3):
            assert [each['kind'] for each in status(shared)['problems']
                    ] == ['registry']
    finally:
        redis.resume()
    well(status, shared)


def test_a_topic_without_a_listener_is_named(local, named):
    client = local.client(topic='nobody')
    for _ in range(12):
        client.prepare(server='node-3').cast({}, 'note', value=1)
    found = named(local, 'no_listener')
    assert '12 messages' in found['text']
    assert 'nobody.node-3' in found['text']
    assert 'nobody listens there' in found['text']


def test_a_sender_with_old_messages_is_named(local, status, named):
    process = local.process()
    client = local.client()
    client.call({}, 'echo', value=1)
    process.pause()
    try:
        client.prepare(fanout=True).cast({}, 'note', value=1)
        found = named(local, 'old_messages', '--no-ask')
        assert '1 messages' in found['text'] and 'topic' in found['subject']
    finally:
        process.resume()


def test_a_receiver_that_cannot_be_reached_is_named(receiver, node, ipc_dir,
                                                    redis, tmp_path, status,
                                                    named):
    node.query = {**node.query, **QUICK, 'rpc_zmq_matchmaker': redis.url}
    node.process()
    elsewhere = {'rpc_zmq_ipc_dir': str(tmp_path)}
    waiting.until(lambda: not status(node)['problems'], 10)
    waiting.until(lambda: any(each['kind'] == 'receiver' for each
                              in fact_files.read(ipc_dir)))
    receiver.pause()
    try:
        # As the packets of a blocked port: nobody answers.
        found = named(node, 'no_answer unreachable receiver_silent',
                      **elsewhere)
        assert f':{receiver.port}' in found['text']
        # The services have tried it as well. One cause has one entry, here
        # and on the node of the receiver.
        found = named(node, 'receiver_silent', **elsewhere)
        assert f':{receiver.port}' in found['text']
        document = status(node, **elsewhere)
        assert [each['kind'] for each in document['problems']
                ] == ['receiver_silent']
        assert document['nodes'][0]['receiver'] == 'NO ANSWER'
        document = status(node)
        assert [each['kind'] for each in document['problems']] == ['stopped']
        assert document['nodes'][0]['receiver'] == 'STOPPED'
    finally:
        receiver.resume()


def test_a_name_that_leads_nowhere_is_named(redis, node, ipc_dir, tmp_path,
                                            named, monkeypatch):
    ask = probe.Prober.ask_all
    # As from another machine, where the socket of the receiver is not.
    monkeypatch.setattr(probe.Prober, 'ask_all', lambda self, instances: ask(
        self, [dataclasses.replace(each, endpoints=each.endpoints[-1:])
               for each in instances]))
    receiver = receivers.ReceiverProcess(ipc_dir, host='no-such.invalid')
    node.closing(receiver.end)
    node.query = {**receivers.query(receiver), **QUICK,
                  'rpc_zmq_matchmaker': redis.url}
    node.process()
    found = named(node, 'no_answer unreachable',
                  rpc_zmq_ipc_dir=str(tmp_path))
    assert 'no-such.invalid' in found['text']


def test_what_cannot_be_asked(tmp_path, capsys):
    url = ('zmq://?rpc_zmq_matchmaker=redis%3A%2F%2F127.0.0.1%3A1'
           f'&rpc_zmq_ipc_dir={tmp_path}')
    assert main.main(['status', '--transport-url', url]) == 2
    assert '127.0.0.1:1' in capsys.readouterr().err
    assert main.main(['status', '--transport-url', 'rabbit://']) == 2


def test_it_is_quick(shared, status):
    transport = shared.transport()
    for number in range(60):
        shared.server(topic=f't{number % 7}', server=f's{number}',
                      transport=transport, workers=1)
    document = well(status, shared)
    assert document['registry']['services'] == 60
    began = time.monotonic()
    status(shared)
    assert time.monotonic() - began < 20
