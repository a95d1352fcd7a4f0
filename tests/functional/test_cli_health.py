# SPDX-License-Identifier: Apache-2.0
"""The verb health is right in each case that concerns a process."""

import contextlib
import os
import tempfile

import pytest

from tests.support import cli
from tests.support import processes
from tests.support import rpc
from tests.support import servers
from tests.support import small_disk
from tests.support import waiting
from zmq_threaded.cli import health as health_verb
from zmq_threaded.health import of_node
from zmq_threaded.registry import stamps
from zmq_threaded.status import fact_files
from zmq_threaded.status import facts

FAST = {'zmq_target_update': 1, 'zmq_target_expire': 3}


def health(node, *arguments, **query):
    return cli.ask('health', '--transport-url', node.url(**query), *arguments)


def becomes(node, code, text='', *arguments):
    """Wait until health says so; returns what it says."""
    def says():
        returned, said = health(node, *arguments)
        return said if returned == code and text in str(said) else None
    return waiting.until(says, 40, lambda: (code, text, health(node)))


@pytest.fixture
def process(node):
    """A server in a process, which has said something."""
    node.query.update(FAST)
    made = node.process()
    becomes(node, 0)
    return made


def test_all_is_well(node, process):
    done = cli.run('health', '--transport-url', node.url())
    assert done.returncode == 0 and 'All is well' in done.stdout
    assert str(process.pid) in done.stdout and 'server_main.py' in done.stdout
    # One second, of which a machine that does nothing else needs half.
    assert done.cpu < 1.0


def test_one_process_is_chosen_by_name_or_pid(node, process):
    other = node.process(server='other')
    becomes(node, 0, f"'pid': {other.pid}")
    _, said = health(node, '--process', process.pid)
    assert [each['pid'] for each in said['processes']] == [process.pid]
    _, said = health(node, '--process', 'server_main.py')
    assert {each['pid'] for each in said['processes']} == {process.pid,
                                                           other.pid}
    code, said = health(node, '--process', 'nobody')
    assert code == 2 and 'no process nobody of this node' in said


def test_nobody_can_be_asked_about(node):
    code, said = health(node)
    assert code == 2 and 'no process of this node' in said
    done = cli.run('health', '--transport-url', 'rabbit://')
    assert done.returncode == 2 and 'zmq://' in done.stderr


def test_a_stopped_process(node, process):
    process.pause()
    said = becomes(node, 1, 'It is stopped')
    assert f'kill -CONT {process.pid}' in str(said)
    process.resume()
    becomes(node, 0)


def test_a_killed_process_until_another_one_takes_its_place(node, process):
    process.kill()
    becomes(node, 1, 'It has ended without taking leave')
    node.process(server='next')
    becomes(node, 0)


@pytest.mark.skipif(os.getuid() != 0, reason='only root makes containers')
def test_a_killed_container_until_another_one_takes_its_place(node):
    node.query.update(FAST)
    first = containers_process(node, 'first')
    becomes(node, 0)
    first.kill()
    becomes(node, 1, 'It has ended without taking leave')
    # Long before its facts are old.
    containers_process(node, 'next')
    said = becomes(node, 0)
    assert [each['pid'] for each in said['processes']] == [1]


def containers_process(node, server):
    """A server that is process 1 of a PID namespace."""
    made = processes.ServerProcess(
        node.ipc_dir, 'server_main.py', node.url(), 'topic', server,
        before=('unshare', '--pid', '--fork', '--kill-child',
                '--mount-proc'))
    node.closing(made.end)
    return made


@pytest.mark.skipif(os.getuid() != 0, reason='only root mounts a small disk')
def test_a_full_disk_is_no_hang():
    directory = tempfile.mkdtemp(prefix='zt-', dir='/tmp')
    try:
        done = small_disk.run('full_facts_main', directory, seconds=200)
    finally:
        os.rmdir(directory)
    assert done.stdout.strip() == 'well', done.stderr


def test_a_process_that_ends_in_order_is_none(node, process):
    process.end()
    becomes(node, 2)


def test_a_killed_receiver(node):
    receiver = node.receiver()
    node.query.update(FAST)
    node.process()
    becomes(node, 0)
    receiver.kill()
    said = becomes(node, 1, 'oslo-messaging-zmq-receiver')
    assert 'nobody can reach' in str(said)
    receiver.start()
    becomes(node, 0)


def test_a_name_that_leads_nowhere(node):
    node.query.update(FAST, rpc_zmq_transport='tcp',
                      rpc_zmq_host='nowhere.invalid')
    node.process()
    becomes(node, 1, 'nowhere.invalid')


def test_stuck_workers(node):
    node.query.update(FAST, rpc_zmq_stuck_workers_after=2)
    server = node.server(workers=1)
    client = node.client()
    becomes(node, 0)
    client.cast({}, 'wait', value=1)
    waiting.until(lambda: server.endpoint.seen)
    client.cast({}, 'note', value=2)
    becomes(node, 1, 'No worker of')
    server.endpoint.release.set()
    becomes(node, 0)


def test_an_old_message_and_nobody_else_s_fault(node, process):
    client = node.client(topic='nobody')
    client.cast({}, 'note', value=1)
    said = becomes(node, 1, 'messages are not acknowledged', '--oldest', 0.5)
    assert 'nobody' in str(said)
    # A minute is the limit by default.
    becomes(node, 0, "'well': True")


def test_what_a_journal_keeps_for_a_listener_is_no_fault(node, process):
    transport = node.transport(rpc_zmq_custody='process')
    node.client(transport, topic='nobody').cast({}, 'note', value=1)

    def is_told():
        return any(each['kept'] and each['oldest'] > 0.5
                   for document in fact_files.read(node.ipc_dir)
                   for each in document['pending'])
    waiting.until(is_told, 20)
    code, said = health(node, '--oldest', 0.5)
    assert code == 0, said


def test_what_is_wrong_with_others_is_shown_and_no_fault(node, process):
    transport = node.transport()
    client = node.client(transport)
    client.call({}, 'echo', value=1)
    parts = rpc.driver(transport)._runtimes.current()
    topic = parts.registry.cache.entries()[0]
    parts.registry.cache.complaints.unreachable(topic.listed[0], 'a wall')
    said = becomes(node, 0, 'a wall')
    assert any(wrong['of_others'] for each in said['processes']
               for wrong in each['troubles'])


@pytest.mark.xdist_group('redis')
def test_a_registry_that_hangs(ipc_dir):
    with servers.open_engine('redis') as engine, contextlib.ExitStack(
            ) as stack:
        node = stack.enter_context(rpc.Node(ipc_dir))
        node.query = {**FAST, 'rpc_zmq_matchmaker': engine.url,
                      'rpc_zmq_topology': 'direct',
                      'rpc_zmq_transport': 'ipc'}
        node.process()
        becomes(node, 0)
        stack.callback(engine.ensure_running)
        engine.pause()
        done = cli.run('health', '--transport-url', node.url())
        assert done.returncode == 1
        assert 'The registry does not answer' in done.stdout
        engine.resume()
        becomes(node, 0)


@pytest.mark.xdist_group('redis')
def test_libraries_that_load_slowly_are_no_fault_of_the_registry(node,
                                                                 tmp_path):
    (tmp_path / 'sitecustomize.py').write_text(SLOW_REDIS)
    with servers.open_engine('redis') as engine, rpc.Node(
            node.ipc_dir) as node:
        node.query = {**FAST, 'rpc_zmq_matchmaker': engine.url,
                      'rpc_zmq_topology': 'direct',
                      'rpc_zmq_transport': 'ipc'}
        node.process()
        becomes(node, 0)
        done = cli.run('health', '--transport-url', node.url(),
                       path=str(tmp_path))
        assert 'redis comes slowly' in done.stderr
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('scheduled, seconds', [
    ('1000 0 3', 0.5), ('1000 9000 3', 5.0), ('1 1000000 3', 10.0),
    ('0 0 0', 0.5), ('', 0.5)])
def test_the_registry_has_more_time_where_processors_are_short(
        monkeypatch, tmp_path, scheduled, seconds):
    path = tmp_path / 'schedstat'
    monkeypatch.setattr(health_verb, '_SCHEDULED', str(path))
    assert health_verb._limit() == 0.5
    path.write_text(scheduled)
    assert health_verb._limit() == pytest.approx(seconds)


# As on a machine that is busy.
SLOW_REDIS = """
import sys
import time

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == 'redis.client':
            print('redis comes slowly', file=sys.stderr)
            time.sleep(1)

sys.meta_path.insert(0, Finder())
"""


# What is said of a document

def _document(**fields):
    """Facts of this process."""
    return facts.decode(facts.encode({
        'format': 1, 'stamp': stamps.now().hex(), 'every': 1.0,
        'process': {}, **fields}))


def test_a_process_that_says_nothing_any_more():
    old = bytearray(stamps.now())
    moment = int.from_bytes(old[-8:], 'big') - 60 * 10 ** 9
    old[-8:] = moment.to_bytes(8, 'big')
    found = of_node.health(_document(stamp=bytes(old).hex()), 60)
    assert not found.is_well()
    assert 'It has said nothing for 60 s' in found.troubles[0].text
    assert of_node.health(_document(), 60).is_well()


@pytest.mark.parametrize('stamp', ['', 'nonsense', '00'])
def test_without_a_clock_nothing_is_said_of_the_age(stamp):
    assert of_node.health(_document(stamp=stamp), 60).is_well()


def test_an_outbox_that_does_not_answer():
    found = of_node.health(_document(outbox_silent=20.0), 60)
    assert 'outbox thread' in found.troubles[0].text


def test_each_finding_that_is_its_own_counts():
    finding = {'subject': 's', 'text': 't', 'remedy': 'r', 'since': 1.0}
    for kind, is_well in (('unreachable', False), ('stuck_workers', False),
                          ('others_cannot_reach', False), ('unlisted', False),
                          ('cannot_reach', True), ('unanswered', True)):
        found = of_node.health(_document(
            findings=[{**finding, 'kind': kind}]), 60)
        assert found.is_well() == is_well, kind


def test_garbage_in_the_folder_harms_nobody(node, process):
    folder = os.path.join(node.ipc_dir, fact_files.FOLDER)
    for name, content in (('1.json', b''), ('2.json', b'{"format": 1}'),
                          ('3.json', b'[' * 10000)):
        with open(os.path.join(folder, name), 'wb') as file:
            file.write(content)
    os.symlink('/etc/passwd', os.path.join(folder, '4.json'))
    code, _ = health(node, '--process', process.pid)
    assert code == 0
