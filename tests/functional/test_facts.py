# SPDX-License-Identifier: Apache-2.0
"""What processes publish of themselves, in files and in the registry."""

import contextlib
import os

import pytest

from tests.support import rpc
from tests.support import servers
from tests.support import waiting
from zmq_threaded.registry import engines
from zmq_threaded.status import fact_files
from zmq_threaded.status import facts

UPDATE = 1


def document(ipc_dir, wanted):
    """The first document of a node that is as wanted."""
    found = []

    def is_there():
        found[:] = [each for each in fact_files.read(ipc_dir)
                    if wanted(each)]
        return bool(found)
    waiting.until(is_there, 10)
    return found[0]


def serves(each):
    return any(service['listed'] for service in each['services'])


@pytest.fixture
def quick(node):
    node.query = {'zmq_target_update': UPDATE, 'zmq_target_expire': 3}
    return node


def test_a_service_is_in_the_facts_of_its_process(quick, ipc_dir):
    quick.query['rpc_zmq_stuck_workers_after'] = 7
    quick.server(server='server-1')
    found = document(ipc_dir, serves)
    assert found['process']['pid'] == os.getpid()
    assert found['process']['version']
    service, = found['services']
    assert service['server'] == 'server-1'
    assert [name for _, name in service['topics']] == ['topic']
    assert service['workers'] > 0
    assert service['kind'] == 'rpc'
    assert found['stuck_after'] == 7


def test_calls_are_measured_at_both_ends(quick, ipc_dir):
    quick.server(server='server-1')
    client = quick.client()
    for number in range(10):
        client.call({}, 'echo', value=number)

    def measured(each):
        return (serves(each) and
                sum(each['services'][0]['running']['counts']) >= 10)
    service = document(ipc_dir, measured)['services'][0]
    assert sum(service['waiting']['counts']) == 10
    assert service['taken'] == 10

    def sent(each):
        return any(sum(one['calls']['counts']) == 10 and one['topic'] ==
                   'topic' for one in each['sent'])
    document(ipc_dir, sent)


def test_a_busy_worker_and_its_time_are_seen(quick, ipc_dir):
    endpoint = rpc.Recorder()
    quick.server(server='server-1', endpoint=endpoint)
    try:
        quick.client().cast({}, 'wait', value=1)
        found = document(ipc_dir, lambda each: serves(each) and each[
            'services'][0]['busy'] == 1 and each['services'][0]['longest'] > 1)
    finally:
        endpoint.release.set()
    assert found['services'][0]['workers'] >= 1
    document(ipc_dir, lambda each: serves(each)
             and not each['services'][0]['busy'])


def test_a_sender_without_a_listener_shows_what_waits(quick, ipc_dir):
    client = quick.client(topic='nowhere')
    for _ in range(3):
        client.cast({}, 'echo', value=1)
    found = document(ipc_dir, lambda each: each['pending']
                     and each['pending'][0]['oldest'] > 1)
    waiting_for, = found['pending']
    assert waiting_for['topic'] == 'nowhere'
    assert waiting_for['count'] == 3
    assert waiting_for['where'] == 'waiting'


def test_the_file_goes_with_the_driver(quick, ipc_dir):
    quick.server(server='server-1')
    document(ipc_dir, serves)
    quick.__exit__()
    assert not list(fact_files.read(ipc_dir))


@pytest.fixture(params=servers.parallel(servers.DISTRIBUTED))
def engine(request):
    with servers.open_engine(request.param) as opened:
        yield opened


def test_the_registry_has_the_facts_too(engine, ipc_dir):
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(rpc.Node(ipc_dir))
        node.query = {
            'rpc_zmq_matchmaker': engine.url, 'zmq_target_expire': 3,
            'zmq_target_update': UPDATE, 'rpc_zmq_topology': 'direct',
            'rpc_zmq_bind_address': '127.0.0.1',
            'rpc_zmq_host': '127.0.0.1'}
        node.server(server='server-1')
        client = node.client()
        assert client.call({}, 'echo', value=1) == 1
        store = engines.distributed(engine.url, 3.0)
        stack.callback(store.close)
        read = []

        def is_told():
            everything = store.read_all()
            read[:] = [facts.decode(each)
                       for each in everything.facts.values()]
            return (any(map(serves, read)) and any(
                each['sent'] for each in read) and 'rpc:' in ''.join(
                    everything.records))
        waiting.until(is_told, 15)
        node.__exit__()
        waiting.until(lambda: not store.read_all().facts, 10)


def test_a_receiver_has_a_file_and_its_services_know_of_it(receiver, node,
                                                           ipc_dir):
    node.query = {**node.query, 'zmq_target_update': UPDATE,
                  'zmq_target_expire': 3}
    node.server()
    found = document(ipc_dir, lambda each: each['kind'] == 'receiver')
    assert found['process']['pid'] == receiver.pid
    behind = document(ipc_dir, serves)
    assert behind['receiver']['expected'] and behind['receiver']['there']
    receiver.kill()
    document(ipc_dir, lambda each: serves(each)
             and not each['receiver']['there'])
