# SPDX-License-Identifier: Apache-2.0
"""What cast() or notify() has accepted survives its process."""

import gc
import json
import os
import shutil
import signal
import stat
import threading
import time

import oslo_messaging
import pytest

from tests.support import journaled
from tests.support import processes
from tests.support import rpc
from tests.support import small_disk
from tests.support import waiting
from zmq_threaded.journal import place
from zmq_threaded.journal import survey

CUSTODY = {'rpc_zmq_custody': 'process'}


@pytest.fixture(params=['process', 'disk'])
def durable(request, node):
    """A node whose transports keep their messages on disk."""
    node.query = {**node.query, 'rpc_zmq_custody': request.param}
    return node


def tell(process, **what):
    return process.ask(json.dumps(what))


def counters(transport):
    return rpc.driver(transport).counters()


def test_casts_of_a_killed_sender_come_to_a_server_that_starts_later(durable):
    client = journaled.sender(durable)
    for number in range(20):
        tell(client, do='cast', method='note', args={'value': number})
    client.kill()
    assert len(journaled.names(durable)) == 1
    server = durable.server()
    waiting.until(lambda: len(server.endpoint.seen) == 20)
    assert sorted(server.endpoint.seen) == list(range(20))
    waiting.until(lambda: not journaled.names(durable))
    assert counters(server.transport)['messages_adopted'] == 20


def test_notifications_of_a_killed_sender_come_to_each_pool(durable):
    client = journaled.sender(durable)
    one = durable.listener(pool='one')
    # Both pools are seen, and one of them is gone before anything is sent.
    other = durable.listener(pool='other')
    tell(client, do='notify', payload='first')
    waiting.until(lambda: one.seen == ['first'] and other.seen == ['first'])
    durable.stop(one)
    durable.stop(other)
    for number in range(20):
        tell(client, do='notify', payload=number)
    client.kill()
    for pool in ('one', 'other'):
        listener = durable.listener(pool=pool)
        waiting.until(lambda: len(listener.seen) == 20)
        assert sorted(listener.seen) == list(range(20))


def test_a_pool_that_is_gone_is_in_the_way_of_no_other(durable):
    client = journaled.sender(durable)
    pools = [durable.listener(pool=pool) for pool in ('one', 'gone')]
    tell(client, do='notify', payload='first')
    for each in pools:
        waiting.until(lambda each=each: each.seen == ['first'])
        durable.stop(each)
    # More than are loaded at a time.
    for number in range(800):
        tell(client, do='notify', payload=number)
    client.kill()
    listener = durable.listener(pool='one')
    waiting.until(lambda: len(listener.seen) == 800, 30)
    assert sorted(listener.seen) == list(range(800))


def test_what_a_service_has_of_a_killed_sender_is_not_run_twice(durable):
    server = durable.server(workers=1)
    another = durable.server(server='another', workers=1)
    client = journaled.sender(durable)
    for number in range(40):
        tell(client, do='cast', method='wait', args={'value': number})
    waiting.until(lambda: server.endpoint.seen and another.endpoint.seen)
    client.kill()
    waiting.until(lambda: 'messages_adopted' in counters(server.transport)
                  or 'messages_adopted' in counters(another.transport))
    server.endpoint.release.set()
    another.endpoint.release.set()
    waiting.until(lambda: not journaled.names(durable), 20)
    seen = server.endpoint.seen + another.endpoint.seen
    assert sorted(seen) == list(range(40))


def test_an_orderly_end_leaves_to_others_what_nobody_took(durable):
    client = journaled.sender(durable, rpc_cast_timeout=60,
                              rpc_zmq_exit_timeout=60)
    tell(client, do='cast', method='note', args={'value': 1})
    client.end()    # which waits for 20 s
    server = durable.server()
    waiting.until(lambda: server.endpoint.seen == [1])
    waiting.until(lambda: not journaled.names(durable))


def test_files_are_as_open_as_the_directory(node):
    node.query = CUSTODY
    os.chmod(node.ipc_dir, 0o2770)
    before = os.umask(0o077)
    try:
        node.client().cast({}, 'note', value=1)
    finally:
        os.umask(before)
    folder = os.path.join(node.ipc_dir, place.FOLDER)
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o2770
    modes = {name: stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode)
             for name in os.listdir(folder)}
    assert len(modes) == 5
    assert set(modes.values()) == {0o660}


def test_files_are_private_otherwise(node):
    node.query = CUSTODY
    node.client().cast({}, 'note', value=1)
    folder = os.path.join(node.ipc_dir, place.FOLDER)
    assert {stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode)
            for name in os.listdir(folder)} == {0o600}


def test_calls_do_not_touch_it(durable):
    durable.server()
    client = durable.client(call_monitor_timeout=30)
    assert client.call({}, 'echo', value=1) == 1
    assert durable.client().call({}, 'echo', value=1) == 1
    assert not journaled.names(durable)


def test_what_was_not_accepted_does_not_stay(durable):
    transport = durable.transport()
    with pytest.raises(oslo_messaging.MessageDeliveryFailure):
        durable.client(transport, retry=0).cast({}, 'note', value=1)
    folder = os.path.join(durable.ipc_dir, place.FOLDER)
    waiting.until(lambda: [each.count for each in survey.survey(folder)]
                  == [0])
    server = durable.server()
    durable.client(transport, retry=0).cast({}, 'note', value=2)
    waiting.until(lambda: server.endpoint.seen == [2])


def test_another_driver_of_the_same_process_adopts(durable):
    server = durable.server(topic='other')
    transport = durable.transport()
    durable.client(transport).cast({}, 'note', value=1)
    transport.cleanup()
    waiting.until(lambda: counters(server.transport).get(
        'messages_adopted') == 1)
    waiting.until(lambda: [each['count'] for each in rpc.driver(
        server.transport).unacknowledged(5).values()] == [1])
    late = durable.server()
    waiting.until(lambda: late.endpoint.seen == [1])
    assert server.endpoint.seen == []


def test_a_broken_journal_is_set_aside(durable, caplog):
    client = journaled.sender(durable)
    tell(client, do='cast', method='note', args={'value': 1})
    client.kill()
    folder = os.path.join(durable.ipc_dir, place.FOLDER)
    name, = journaled.names(durable)
    with open(os.path.join(folder, name), 'r+b') as file:
        file.write(b'no database at all' * 100)
    for beside in ('-wal', '-shm'):
        os.unlink(os.path.join(folder, name + beside))
    server = durable.server()
    waiting.until(lambda: 'journals_set_aside' in counters(server.transport))
    assert not journaled.names(durable)
    assert [each for each in os.listdir(folder)
            if each.startswith(name + '.set-aside')]
    assert 'of no use' in caplog.text
    durable.client().cast({}, 'note', value=2)
    waiting.until(lambda: server.endpoint.seen == [2])


def test_a_journal_that_cannot_be_written_fails_the_cast(node):
    path = os.path.join(node.ipc_dir, 'a-file')
    open(path, 'w').close()
    client = node.client(node.transport(
        rpc_zmq_custody='process', rpc_zmq_custody_dir=f'{path}/journals'))
    with pytest.raises(oslo_messaging.MessageDeliveryFailure) as caught:
        client.cast({}, 'note', value=1)
    assert path in str(caught.value)
    assert 'rpc_zmq_custody_dir' in str(caught.value)


def test_or_the_message_is_kept_in_memory_if_an_option_says_so(node):
    path = os.path.join(node.ipc_dir, 'a-file')
    open(path, 'w').close()
    transport = node.transport(
        rpc_zmq_custody='process', rpc_zmq_custody_dir=f'{path}/journals',
        rpc_zmq_custody_when_full='memory')
    server = node.server()
    node.client(transport).cast({}, 'note', value=1)
    waiting.until(lambda: server.endpoint.seen == [1])
    assert counters(transport)['custody_in_memory'] == 1


def test_a_forked_child_leaves_its_parents_journal_alone(durable):
    client = durable.client()
    client.cast({}, 'note', value=1)
    name, = journaled.names(durable)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            gc.collect()
            client.cast({}, 'note', value=2)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    client.cast({}, 'note', value=3)
    found = journaled.names(durable)
    assert len(found) == 2 and name in found
    server = durable.server()
    waiting.until(lambda: sorted(server.endpoint.seen) == [1, 2, 3])
    waiting.until(lambda: journaled.names(durable) == [name])


# Order, and a long absence

class InOrder(rpc.Notes):
    """Writes down who sent what."""


def listener_in_order(node):
    """A listener whose one worker handles all in the order of arrival."""
    endpoint = InOrder()
    listening = oslo_messaging.get_notification_listener(
        node.notification_transport(),
        [oslo_messaging.Target(topic='notes')], [endpoint], pool='pool')
    listening.endpoint, listening.seen = endpoint, endpoint.seen
    listening.start(override_pool_size=1)
    node.closing(node.stop, listening)
    return listening


def out_of_order(seen):
    """What came too late, of payloads 'sender-number'."""
    found = {}
    for text in seen:
        name, _, number = text.rpartition('-')
        found.setdefault(name, []).append(int(number))
    return {name: [number for at, number in enumerate(numbers)
                   if number < max(numbers[:at], default=-1)]
            for name, numbers in found.items()
            if numbers != sorted(numbers)}


def lines_of(path):
    try:
        with open(path) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


@pytest.mark.parametrize('is_known', [True, False])
@pytest.mark.parametrize('is_killed', [True, False])
def test_all_is_there_in_order_after_a_long_absence(node, tmp_path,
                                                    is_killed, is_known):
    """Be the pool known from the journal of another process, or not."""
    node.query = {'rpc_zmq_custody': 'process', 'rpc_message_ttl': 1}
    notifier = node.notifier()
    if is_known:
        first = listener_in_order(node)
        notifier.info({}, 'event', 'first')
        waiting.until(lambda: first.seen)
        node.stop(first)
    path = str(tmp_path / 'accepted')
    senders = [processes.ServerProcess(
        node.ipc_dir, 'custody_sender_main.py', node.url(), 'notify',
        f'sender-{number}', path, '0.002') for number in range(3)]
    for each in senders:
        node.closing(each.end)

    def accepted():
        return lines_of(path)
    # Longer than rpc_message_ttl, and more than an adopter loads at once.
    began = time.monotonic()
    waiting.until(lambda: len(accepted()) > 2500
                  and time.monotonic() > began + 2, 60)
    if is_killed:
        for each in senders:
            each.kill()
    listener = listener_in_order(node)
    if not is_killed:
        waiting.until(lambda: len(listener.seen) > 1000, 30)
        for each in senders:
            each.end()
    waiting.until(lambda: set(accepted()) <= set(listener.seen), 60)
    assert not out_of_order(listener.seen), counters(listener.transport)
    assert len(listener.seen) == len(set(listener.seen))


# Forks

def test_children_of_a_process_that_writes_all_the_time(node):
    """None of them finds sqlite in the middle of a step."""
    node.query = {**CUSTODY, 'rpc_cast_timeout': 30}
    transport = node.transport()
    client = node.client(transport)
    ended = threading.Event()

    def cast():
        while not ended.is_set():
            client.cast({}, 'note', value=0)
    threads = [threading.Thread(target=cast) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        pids = [_child(client) for _ in range(20)]
        for pid in pids:
            waiting.until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, 30)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert len(journaled.names(node)) == 21
    server = node.server()
    waiting.until(lambda: {-1, 0} == set(server.endpoint.seen))
    waiting.until(lambda: server.endpoint.seen.count(-1) == 20, 30)
    waiting.until(lambda: len(journaled.names(node)) == 1, 30)


def _child(client):
    pid = os.fork()
    if not pid:
        # The threads of the parent are not there to stop this one.
        signal.alarm(25)
        try:
            client.cast({}, 'note', value=-1)
            gc.collect()
        finally:
            os._exit(0)
    return pid


# A full journal

def test_a_full_journal_drops_the_oldest_for_nobody(node, caplog):
    transport = node.transport(rpc_zmq_custody='process',
                               rpc_zmq_custody_bytes=100_000)
    client = node.client(transport)
    for number in range(100):
        client.cast({}, 'note', value=[number, 'x' * 2000])
    counted = counters(transport)
    assert 40 < counted['dropped_no_space'] < 80
    assert 'rpc_zmq_custody_bytes' in caplog.text
    server = node.server()
    waiting.until(lambda: len(server.endpoint.seen)
                  == 100 - counted['dropped_no_space'])
    left = sorted(number for number, _ in server.endpoint.seen)
    assert left == list(range(counted['dropped_no_space'], 100))


def test_a_full_disk_fails_the_cast_by_name(ipc_dir):
    """As root, with a small file system in a mount namespace of its own."""
    if os.geteuid():
        pytest.skip('only root may mount')
    done = small_disk.run('full_journal_main', ipc_dir, seconds=60)
    assert done.returncode == 0, done.stderr
    assert 'No space left' in done.stdout or 'is full' in done.stdout
    assert ipc_dir in done.stdout


def test_who_removes_a_journal_under_its_process_is_told(node, caplog):
    # Given a process that writes, as its log shows
    transport = node.transport(**CUSTODY)
    node.client(transport, topic='other').cast({}, 'note', value=0)
    client = journaled.sender(node, **CUSTODY)
    tell(client, do='cast', method='note', args={'value': 0})
    # When somebody tidies up
    shutil.rmtree(os.path.join(node.ipc_dir, place.FOLDER))
    waiting.until(lambda: 'was removed, or replaced' in caplog.text)
    assert counters(transport)['journals_lost'] == 1
    for number in range(1, 4):
        tell(client, do='cast', method='note', args={'value': number})
    client.kill()
    server = node.server()
    # The first one died with its process; those that came later did not
    waiting.until(lambda: len(server.endpoint.seen) == 3, 20)
    assert sorted(server.endpoint.seen) == [1, 2, 3]


@pytest.mark.parametrize('way', ['drain', 'drop'])
def test_a_disk_that_journals_have_filled_can_be_emptied(ipc_dir, way):
    """As root, with a small file system in a mount namespace of its own."""
    if os.geteuid():
        pytest.skip('only root may mount')
    done = small_disk.run('emptied_journal_main', ipc_dir, way, seconds=120)
    assert done.returncode == 0, done.stdout + done.stderr
