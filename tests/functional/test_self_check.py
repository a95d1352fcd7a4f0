# SPDX-License-Identifier: Apache-2.0
"""A process finds out by itself that others cannot reach its services."""

import os
import threading
import time

import pytest
import zmq

from tests.support import encryption
from tests.support import leaks
from tests.support import ports
from tests.support import rpc
from tests.support import waiting
from zmq_threaded import logs

FAST = {'zmq_target_update': 1, 'zmq_target_expire': 3}


def parts(transport):
    return rpc.driver(transport)._runtimes.current()


def findings(transport):
    """Those of a process, as a dict of kind to the Finding."""
    return {each.kind: each for each in parts(transport).findings.all()}


def has_found(transport, kind, seconds=30):
    return waiting.until(lambda: findings(transport).get(kind), seconds,
                         lambda: f'{kind}: {findings(transport)}')


def is_well(transport, seconds=30):
    waiting.until(lambda: not findings(transport), seconds,
                  lambda: findings(transport))
    assert rpc.driver(transport).counters()['deaf_services'] == 0


def service_of(transport):
    service, = parts(transport)._services
    return service


def has_been_asked(transport, seconds=30):
    """Wait until each service of a process has answered once more."""
    check = parts(transport)._checks._of_services

    def planned():
        return {asked.next_at for asked in check._asked.values()}
    before = waiting.until(planned, seconds)
    waiting.until(lambda: planned() and not planned() & before, seconds)


def lines(caplog, text, level='WARNING'):
    logs.flush()
    return [each.getMessage() for each in caplog.records
            if each.levelname == level and text in each.getMessage()]


@pytest.fixture(params=['ipc', 'tcp', 'receiver'])
def transport(request, node):
    """That of a server in this process, reached in one of the ways."""
    query = dict(FAST)
    if request.param == 'receiver':
        node.receiver()
        query.update(node.query)
    else:
        query.update(rpc_zmq_transport=request.param,
                     rpc_zmq_host='127.0.0.1')
    made = node.transport(**query)
    node.server(transport=made)
    return made


def test_a_service_that_is_well_is_asked_and_nothing_is_said(transport,
                                                             caplog):
    has_been_asked(transport)
    has_been_asked(transport)
    is_well(transport)
    assert not lines(caplog, '')
    counted = rpc.driver(transport).counters()
    assert not counted.get('loop_errors') and not counted.get('sent')


def test_a_service_with_an_encrypted_port_is_well(node, tmp_path):
    ring = encryption.KeyRing(tmp_path)
    ring.make('a')
    made = node.transport(rpc_zmq_transport='tcp', rpc_zmq_host='127.0.0.1',
                          **FAST, **ring.query('a'))
    node.server(transport=made)
    has_been_asked(made)
    is_well(made)
    # One whose own key is not trusted any more cannot be reached by its like.
    ring.revoke('a')
    has_found(made, 'unreachable')


def test_all_services_of_a_process_share_one_thread(node):
    made = node.transport(**FAST)
    for number in range(30):
        node.server(topic=f'topic{number}', transport=made)
    has_been_asked(made)
    threads = [each.name for each in threading.enumerate()]
    assert threads.count('zmq-self-check') == 1
    is_well(made)


def test_a_port_that_is_lost_is_bound_anew(node, caplog):
    # Given a service whose TCP port is lost, though it does not know
    made = node.transport(rpc_zmq_transport='tcp', rpc_zmq_host='127.0.0.1',
                          **FAST)
    node.server(transport=made)
    service = service_of(made)
    port = service.instance.endpoints[1].rpartition(':')[2]
    service._router.maintain(lambda socket: socket.unbind(
        socket.get(zmq.LAST_ENDPOINT)))
    waiting.until(lambda: not ports.is_taken(int(port)))
    # Then it listens there again, and says so
    waiting.until(lambda: ports.is_taken(int(port)), 10)
    waiting.until(lambda: lines(caplog, 'is bound anew'))
    has_been_asked(made)
    is_well(made)


def test_a_socket_file_that_is_removed_is_made_anew(node):
    made = node.transport(**FAST)
    node.server(transport=made)
    path = service_of(made).instance.endpoints[0].removeprefix('ipc://')
    os.unlink(path)
    waiting.until(lambda: os.path.exists(path), 10)
    has_been_asked(made)
    is_well(made)


def test_a_killed_receiver_is_found_and_told_once(node, caplog):
    receiver = node.receiver()
    made = node.transport(**FAST, **node.query)
    node.server(transport=made)
    has_been_asked(made)
    receiver.kill()
    found = has_found(made, 'unreachable')
    assert 'start the receiver of this node (' in found.remedy
    assert 'server on 127.0.0.1' in found.text
    assert rpc.driver(made).counters()['deaf_services'] == 1
    has_been_asked(made)
    # By the part that looks for receivers, and by no other one.
    assert len(lines(caplog, 'receiver')) == 1
    receiver.start()
    is_well(made)


def test_a_paused_receiver_is_found_and_told_once(node, caplog):
    caplog.set_level('INFO')
    receiver = node.receiver()
    made = node.transport(**FAST, **node.query)
    node.server(transport=made)
    has_been_asked(made)
    receiver.pause()
    has_found(made, 'unreachable')
    has_been_asked(made)
    told = lines(caplog, 'Others cannot reach')
    assert len(told) == 1
    assert 'What to do: ' in told[0]
    receiver.resume()
    is_well(made)
    assert len(lines(caplog, 'It is over', 'INFO')) == 1


def test_a_receiver_of_another_directory_is_found(node, ipc_dir, tmp_path):
    receiver = node.receiver()
    elsewhere = ipc_dir + '/other'
    os.mkdir(elsewhere)
    made = node.transport(**FAST, **node.query, rpc_zmq_ipc_dir=elsewhere)
    node.server(transport=made)
    found = waiting.until(lambda: [
        each for each in parts(made).findings.all()
        if each.subject == f'tcp://127.0.0.1:{receiver.port}'], 30)
    assert 'rpc_zmq_ipc_dir' in found[0].remedy


def test_a_name_that_leads_nowhere_is_found(node):
    made = node.transport(rpc_zmq_transport='tcp',
                          rpc_zmq_host='nowhere.invalid', **FAST)
    node.server(transport=made)
    found = has_found(made, 'unreachable')
    assert 'nowhere.invalid' in found.text
    assert 'rpc_zmq_host' in found.remedy


def test_a_poller_thread_that_is_held_up_is_found(node, caplog, monkeypatch):
    from zmq_threaded.health import judgement
    monkeypatch.setattr(judgement, 'MUTE', 2.0)
    made = node.transport(**FAST)
    node.server(transport=made)
    has_been_asked(made)
    release = threading.Event()
    service_of(made)._poller._mailbox.put(lambda: release.wait(30))
    found = has_found(made, 'stuck_thread')
    assert found.subject == 'poller' and 'server on ' in found.text
    waiting.until(lambda: lines(caplog, 'The poller thread of'))
    assert not lines(caplog, 'Others cannot reach')
    release.set()
    is_well(made)


def test_workers_that_are_all_stuck_are_found(node, caplog):
    made = node.transport(rpc_zmq_stuck_workers_after=2, **FAST)
    server = node.server(transport=made, workers=2)
    client = node.client(node.transport(**FAST))
    # Given two workers that do not come back, and nothing that waits
    for number in range(2):
        client.cast({}, 'wait', value=number)
    waiting.until(lambda: len(server.endpoint.seen) == 2)
    time.sleep(3)
    assert not findings(made)
    # When more comes, nobody is free for it
    client.cast({}, 'note', value='late')
    found = has_found(made, 'stuck_workers')
    assert '1 messages wait for 2 workers' in found.text
    assert rpc.driver(made).counters()['deaf_services'] == 1
    server.endpoint.release.set()
    is_well(made)
    assert len(lines(caplog, 'No worker of')) == 1


def test_long_calls_are_no_stuck_workers(node):
    made = node.transport(rpc_zmq_stuck_workers_after=2, **FAST)
    server = node.server(transport=made, workers=1)
    client = node.client(node.transport(**FAST))
    client.cast({}, 'wait', value='long')
    waiting.until(lambda: server.endpoint.seen)
    has_been_asked(made)
    has_been_asked(made)
    has_been_asked(made)
    assert not findings(made)


def test_the_thread_ends_with_the_driver_while_it_waits(node):
    receiver = node.receiver()
    made = node.transport(**FAST, **node.query)
    server = node.server(transport=made)
    has_been_asked(made)
    receiver.pause()
    has_found(made, 'unreachable')
    server.stop()
    server.wait()
    began = time.monotonic()
    made.cleanup()
    assert time.monotonic() - began < 20
    assert 'zmq-self-check' not in leaks.threads()
