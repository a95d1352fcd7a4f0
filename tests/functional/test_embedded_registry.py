# SPDX-License-Identifier: Apache-2.0
"""The registry in files, and the sweep after the dead."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import msgpack
import pytest
from tooz import coordination

from tests.support import forks
from tests.support import processes
from tests.support import waiting
from zmq_threaded import topic
from zmq_threaded.registry import engines
from zmq_threaded.registry import record
from zmq_threaded.registry import stamps
from zmq_threaded.registry import sweep
from zmq_threaded.service import executors

RPC_TOPIC = topic.rpc('openstack', 'topic')
KEY = topic.rpc('exchange', 'topic').key
OTHER = topic.rpc('exchange', 'other').key
EXPIRE = 30
AN_HOUR = 3600


@pytest.fixture
def registry(ipc_dir):
    """registry(): a Store of its own, as of another process."""
    with contextlib.ExitStack() as stack:
        def make(expire=EXPIRE):
            made = engines.embedded(ipc_dir, expire)
            stack.callback(made.close)
            return made
        yield make


def instance(endpoint='ipc:///run/some.sock', **fields):
    return record.Instance(os.urandom(16), (endpoint,), **fields)


def groups(ipc_dir):
    """The folders of the groups, each with the paths of its records."""
    folder = os.path.join(ipc_dir, 'registry', 'groups')
    return {os.path.join(folder, group): records(os.path.join(folder, group))
            for group in os.listdir(folder)}


def records(group):
    return [os.path.join(group, name) for name in os.listdir(group)
            if name.endswith('.raw')]


def only_record(ipc_dir):
    (record,), = groups(ipc_dir).values()
    return record


def age(path, seconds):
    """As if it was last written so long ago."""
    if path.endswith('.raw') and os.path.getsize(path):
        restamp(path, seconds)
    set_time(path, time.time() - seconds)


def set_time(path, then):
    """As a clock that was set shows it."""
    os.utime(path, (then, then), follow_symlinks=False)


def restamp(path, seconds):
    """As if a record was renewed so long ago, by the clock of all."""
    with open(path, 'r+b') as file:
        content = file.read()
        file.seek(len(content) - stamps.SIZE)
        file.write(stamped(seconds))


def stamped(seconds):
    now = stamps.now()
    then = int.from_bytes(now[-8:], 'big') - int(seconds * 1e9)
    return now[:-8] + (then % (1 << 64)).to_bytes(8, 'big')


def ids(instances):
    return {each.id for each in instances}


# Registering and looking up


def test_nobody_is_registered_at_first(registry):
    assert registry().lookup(KEY) == []


def test_registered_instance_is_found_by_others(registry):
    service = record.Instance(
        os.urandom(16), ('ipc:///a/b.sock', 'tcp://[::1]:5'), 'pool')
    registry().register(service, [KEY, OTHER])
    assert registry().lookup(KEY) == registry().lookup(OTHER) == [service]


def test_instances_are_found_in_one_order_by_everybody(registry):
    mine = registry()
    services = [instance() for _ in range(10)]
    for service in services:
        mine.register(service, [KEY])
    found = [registry().lookup(KEY) for _ in range(3)]
    assert found[0] == found[1] == found[2]
    assert ids(found[0]) == ids(services)


def test_registering_again_is_harmless(registry):
    mine, service = registry(), instance()
    for _ in range(3):
        mine.register(service, [KEY])
    assert mine.lookup(KEY) == [service]


def test_unregistered_instance_is_gone_and_others_stay(registry):
    mine, stays, goes = registry(), instance(), instance()
    for service in (stays, goes):
        mine.register(service, [KEY, OTHER])
    mine.unregister(goes)
    assert registry().lookup(KEY) == registry().lookup(OTHER) == [stays]


def test_unregistering_what_is_not_registered_is_harmless(registry, ipc_dir):
    mine, service = registry(), instance()
    mine.unregister(service)
    mine.register(service, [KEY])
    os.unlink(only_record(ipc_dir))
    mine.unregister(service)
    mine.unregister(service)
    assert mine.lookup(KEY) == []


def test_changed_record_has_the_mode_of_a_new_one(registry, ipc_dir):
    # Services of several users of one group share a registry.
    mine = registry()
    mine.register(instance(), [KEY])
    made = os.stat(only_record(ipc_dir)).st_mode
    mine.register(instance(), [KEY])
    assert os.stat(only_record(ipc_dir)).st_mode == made


def test_record_that_cannot_be_changed_stays_as_it_was(registry, ipc_dir):
    mine, first, second = registry(), instance(), instance()
    mine.register(first, [KEY])
    folder = os.path.join(ipc_dir, 'registry', 'tmp')
    os.rename(folder, folder + '.away')
    with open(folder, 'w'):
        pass
    with pytest.raises(OSError):
        mine.register(second, [KEY])
    assert registry().lookup(KEY) == [first]
    os.unlink(folder)
    mine.beat()
    assert ids(registry().lookup(KEY)) == ids([first, second])


def test_groups_are_removed_when_they_are_empty(registry, ipc_dir):
    mine, first, last = registry(), instance(), instance()
    for service in (first, last):
        mine.register(service, [KEY, OTHER])
    assert len(groups(ipc_dir)) == 2
    mine.unregister(first)
    assert len(groups(ipc_dir)) == 2
    mine.unregister(last)
    assert groups(ipc_dir) == {}
    assert mine.lookup(KEY) == []


def test_closing_unregisters_everything(registry):
    mine = registry()
    for _ in range(3):
        mine.register(instance(), [KEY])
    mine.close()
    assert registry().lookup(KEY) == []


def test_a_closed_one_can_be_used_again(registry):
    mine, service = registry(), instance()
    mine.register(service, [KEY])
    mine.close()
    mine.register(service, [KEY])
    assert mine.lookup(KEY) == [service]


@pytest.mark.parametrize('name', ['space here', 'ünï', '%41', 'a?b=1', 'a#b',
                                  'a&b', 'a+b', 'a:b', 'a;b'])
def test_directory_of_any_name(ipc_dir, name):
    folder = os.path.join(ipc_dir, name)
    mine, other = (engines.embedded(folder, EXPIRE) for _ in range(2))
    service = instance()
    try:
        mine.register(service, [KEY])
        assert other.lookup(KEY) == [service]
        assert len(groups(folder)) == 1
        assert os.listdir(ipc_dir) == [name]
    finally:
        mine.close()
        other.close()


def test_two_directories_with_like_names_do_not_meet(ipc_dir):
    one, other = (engines.embedded(os.path.join(ipc_dir, name), EXPIRE)
                  for name in ('same?one', 'same?other'))
    try:
        one.register(instance(), [KEY])
        assert other.lookup(KEY) == []
    finally:
        one.close()
        other.close()


def listed_in_relative_directory(ipc_dir):
    os.chdir(ipc_dir)
    # A file:// URL that took the first part for a host would mean ipc_dir.
    mine, service = engines.embedded(f'host{ipc_dir}', EXPIRE), instance()
    mine.register(service, [KEY])
    found = mine.lookup(KEY) == [service]
    mine.close()
    return [found, os.listdir()]


def test_relative_directory_is_that_of_the_process(ipc_dir):
    # In a child, for the sake of its working directory.
    assert forks.Forked(listed_in_relative_directory, ipc_dir).result() == [
        True, ['host']]


# Expiry and renewal


def test_record_that_is_not_renewed_expires(registry):
    mine = registry(expire=1)
    mine.register(instance(), [KEY])
    registered = time.monotonic()
    reader = registry(expire=1)
    waiting.until(lambda: reader.lookup(KEY) == [], 20)
    assert time.monotonic() - registered > 0.5


def test_old_record_is_not_found_and_a_beat_renews_it(registry, ipc_dir):
    mine, service = registry(), instance()
    mine.register(service, [KEY])
    age(only_record(ipc_dir), EXPIRE - 5)
    assert mine.lookup(KEY) == [service]
    age(only_record(ipc_dir), EXPIRE + 5)
    assert mine.lookup(KEY) == []
    mine.beat()
    assert mine.lookup(KEY) == [service]


def test_beat_renews_all_records_and_only_its_own(registry, ipc_dir):
    mine, theirs = registry(), registry()
    service, other = instance(), instance()
    mine.register(service, [KEY, OTHER])
    theirs.register(other, [KEY])
    for paths in groups(ipc_dir).values():
        for path in paths:
            age(path, EXPIRE + 5)
    mine.beat()
    assert mine.lookup(KEY) == mine.lookup(OTHER) == [service]


def test_beat_puts_a_deleted_record_back(registry, ipc_dir):
    mine, service = registry(), instance()
    mine.register(service, [KEY])
    os.unlink(only_record(ipc_dir))
    assert mine.lookup(KEY) == []
    mine.beat()
    assert registry().lookup(KEY) == [service]


def test_beat_puts_a_deleted_group_back(registry, ipc_dir):
    mine, service = registry(), instance()
    mine.register(service, [KEY, OTHER])
    for group, paths in groups(ipc_dir).items():
        for path in paths:
            os.unlink(path)
        os.unlink(os.path.join(group, '.metadata'))
        os.rmdir(group)
    mine.beat()
    assert registry().lookup(KEY) == registry().lookup(OTHER) == [service]


def test_beat_puts_back_what_somebody_else_renewed_the_registry_of(
        registry, ipc_dir):
    mine, service = registry(), instance()
    mine.register(service, [KEY])
    os.rename(os.path.join(ipc_dir, 'registry'),
              os.path.join(ipc_dir, 'moved'))
    theirs, other = registry(), instance()
    theirs.register(other, [KEY])
    mine.beat()
    assert ids(theirs.lookup(KEY)) == ids([service, other])


# Nonsense


def put(ipc_dir, name, content):
    """A file of this content beside the only record."""
    path = os.path.join(os.path.dirname(only_record(ipc_dir)), name)
    with open(path, 'wb') as file:
        file.write(content)


NO_RECORDS = {
    'empty': b'', 'no msgpack': b'\xc1', 'text': b'nonsense',
    'empty dict': b'\x80', 'empty list': b'\x90', 'number': b'\x00',
    'other dict': msgpack.packb({'member_id': 1}),
    'no date': msgpack.packb({'member_id': b'ab' * 16, 'joined_on': 'now'})}


@pytest.mark.parametrize('what', NO_RECORDS)
def test_file_that_is_no_record_is_ignored(registry, ipc_dir, what):
    mine, service, late = registry(), instance(), instance()
    mine.register(service, [KEY])
    put(ipc_dir, 'nonsense.raw', NO_RECORDS[what])
    assert registry().lookup(KEY) == [service]
    mine.beat()
    registry().register(late, [KEY])
    assert ids(mine.lookup(KEY)) == ids([service, late])


def test_record_cut_short_is_ignored(registry, ipc_dir):
    mine, service = registry(), instance()
    mine.register(service, [KEY])
    with open(only_record(ipc_dir), 'rb') as file:
        put(ipc_dir, 'short.raw', file.read()[:-10])
    assert registry().lookup(KEY) == [service]


def test_own_record_that_was_damaged_is_put_right(registry, ipc_dir):
    mine, service = registry(), instance()
    mine.register(service, [KEY])
    # As a full disk leaves it.
    os.truncate(only_record(ipc_dir), 0)
    with contextlib.suppress(Exception):
        mine.beat()
    mine.beat()
    assert registry().lookup(KEY) == [service]


ID, ENDPOINTS = b'0123456789abcdef', ['ipc:///x']
NONE_OF_OURS = {
    'none': None, 'dict': {}, 'list': [], 'text': 'instances',
    'instances none': {'instances': None}, 'number': {'instances': 5},
    'instances text': {'instances': 'text'},
    'no fields': {'instances': [{}]}, 'instance text': {'instances': ['x']},
    'id text': {'instances': [{'id': 'x' * 16, 'endpoints': ENDPOINTS}]},
    'id short': {'instances': [{'id': b'x', 'endpoints': ENDPOINTS}]},
    'no endpoints': {'instances': [{'id': ID, 'endpoints': []}]},
    'endpoints none': {'instances': [{'id': ID, 'endpoints': None}]},
    'endpoints text': {'instances': [{'id': ID, 'endpoints': 'ipc:///x'}]},
    'endpoints numbers': {'instances': [{'id': ID, 'endpoints': [1]}]}}


@pytest.mark.parametrize('what', NONE_OF_OURS)
def test_record_that_is_none_of_ours_is_ignored(registry, ipc_dir, what):
    mine, service = registry(), instance()
    mine.register(service, [KEY])
    stranger = coordination.get_coordinator(f'file://{ipc_dir}/registry',
                                            b'stranger')
    stranger.start()
    try:
        stranger.join_group(KEY.encode(), NONE_OF_OURS[what]).get()
        assert registry().lookup(KEY) == [service]
    finally:
        stranger.stop()


def test_instances_of_one_process_share_a_key(registry):
    mine, first, second = registry(), instance(), instance(pool='p')
    for service in (first, second):
        mine.register(service, [KEY, OTHER])
    assert ids(registry().lookup(KEY)) == ids([first, second])
    mine.unregister(first)
    mine.beat()
    assert registry().lookup(KEY) == registry().lookup(OTHER) == [second]


@pytest.mark.parametrize('endpoint', [
    '', 'nonsense', 'nonsense://x', 'ipc://', 'tcp://', 'tcp://:5000',
    'tcp://127.0.0.1:99999', 'tcp://127.0.0.1:port',
    'ipc:///' + 200 * 'x'])
def test_nonsense_endpoint_does_not_keep_messages_from_others(
        node, registry, endpoint):
    registry().register(instance(endpoint), [RPC_TOPIC.key])
    service = node.runtime().service([RPC_TOPIC])
    noted = []
    service.start(executors.submitting(
        executors.load('synchronous'),
        lambda ctxt, message: noted.append(message['args']['value'])))
    client = node.client(timeout=30)
    for value in range(10):
        client.call({}, 'note', value=value)
        client.cast({}, 'note', value=value)
    waiting.until(lambda: len(noted) >= 20)
    assert sorted(noted) == sorted(2 * list(range(10)))


def test_other_files_are_ignored(registry, ipc_dir):
    mine, service = registry(), instance()
    mine.register(service, [KEY])
    put(ipc_dir, 'readme', b'?')
    assert registry().lookup(KEY) == [service]
    mine.beat()


# Several at once


BUSY = '''
import os, sys
from zmq_threaded.registry import engines
from zmq_threaded.registry import record
ipc_dir, key, count, beside = sys.argv[1:]
mine = engines.embedded(ipc_dir, 30)
if beside:
    mine.register(record.Instance(bytes.fromhex(beside), ('ipc:///b',)),
                  [key])
print('ready', flush=True)
sys.stdin.readline()
for number in range(int(count)):
    service = record.Instance(os.urandom(16), (f'ipc:///{number}',))
    mine.register(service, [key])
    assert service in mine.lookup(key), f'{number}: not there'
    mine.unregister(service)
    assert service not in mine.lookup(key), f'{number}: still there'
if not beside:
    mine.close()
'''


@contextlib.contextmanager
def busy_process(ipc_dir, count=200, beside=b''):
    """A process that registers and unregisters when it is told to.

    :param beside: the id of an instance that it has all the time, and even
        leaves behind
    """
    process = subprocess.Popen(
        [sys.executable, '-c', BUSY, ipc_dir, KEY, str(count), beside.hex()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'PYTHONPATH': processes._ROOT})
    try:
        assert process.stdout.readline() == 'ready\n'
        yield process
    finally:
        process.kill()
        process.communicate()


def assert_ended_well(process):
    _, complaints = process.communicate(timeout=120)
    assert process.returncode == 0, complaints[-2000:]


def test_two_processes_in_one_group_lose_nobody(registry, ipc_dir):
    with busy_process(ipc_dir) as one, busy_process(ipc_dir) as other:
        for process in (one, other):
            process.stdin.write('\n')
            process.stdin.flush()
        for process in (one, other):
            assert_ended_well(process)
    assert registry().lookup(KEY) == []


def test_a_reader_never_misses_who_stays(registry, ipc_dir):
    mine, stays = registry(), instance()
    mine.register(stays, [KEY])
    reader = registry()
    with busy_process(ipc_dir) as process:
        process.stdin.write('\n')
        process.stdin.flush()
        while process.poll() is None:
            assert stays in reader.lookup(KEY)
        assert_ended_well(process)
    assert reader.lookup(KEY) == [stays]


def test_services_of_one_process_that_come_and_go_never_hide_another(
        registry, ipc_dir):
    stays, reader = os.urandom(16), registry()
    with busy_process(ipc_dir, beside=stays) as process:
        assert ids(reader.lookup(KEY)) == {stays}
        process.stdin.write('\n')
        process.stdin.flush()
        while process.poll() is None:
            assert stays in ids(reader.lookup(KEY))
        assert_ended_well(process)


def test_threads_of_one_process_lose_nobody(registry):
    troubles = []

    def run():
        mine = registry()
        try:
            for _ in range(50):
                service = instance()
                mine.register(service, [KEY])
                assert service in mine.lookup(KEY)
                mine.unregister(service)
        except Exception as error:
            troubles.append(error)
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not troubles
    assert registry().lookup(KEY) == []


def registered_in_child(ipc_dir):
    mine, service = engines.embedded(ipc_dir, EXPIRE), instance()
    mine.register(service, [OTHER])
    found = mine.lookup(OTHER) == [service]
    mine.close()
    return found


def test_forks_during_operations_leave_no_lock_behind(registry, ipc_dir):
    done = threading.Event()

    def run():
        mine, service = registry(), instance()
        while not done.is_set():
            mine.register(service, [KEY])
            mine.unregister(service)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(20):
            assert forks.Forked(registered_in_child, ipc_dir).result()
    finally:
        done.set()
        thread.join(30)


# The sweep


def bound(path):
    made = socket.socket(socket.AF_UNIX)
    made.bind(path)
    return made


def dead_socket(path):
    """What a killed service leaves behind."""
    bound(path).close()
    return path


@pytest.fixture
def path(ipc_dir):
    return os.path.join(ipc_dir, 'some.sock')


def test_what_was_left_half_written_is_swept(ipc_dir):
    folder = os.path.join(ipc_dir, 'registry', 'tmp')
    os.makedirs(folder)
    old, young = (os.path.join(folder, name) for name in ('o.raw', 'y.raw'))
    for path in (old, young):
        with open(path, 'w'):
            pass
    age(old, AN_HOUR)
    sweep.sweep(ipc_dir, EXPIRE)
    assert os.listdir(folder) == ['y.raw']


def test_old_dead_socket_is_swept(path, ipc_dir):
    age(dead_socket(path), AN_HOUR)
    sweep.sweep(ipc_dir, EXPIRE)
    assert not os.path.exists(path)


def test_young_dead_socket_stays(path, ipc_dir):
    age(dead_socket(path), 30)
    sweep.sweep(ipc_dir, EXPIRE)
    assert os.path.exists(path)


def test_old_living_socket_stays(path, ipc_dir):
    with bound(path) as living:
        living.listen()
        age(path, AN_HOUR)
        sweep.sweep(ipc_dir, EXPIRE)
        assert os.path.exists(path)


def test_old_busy_socket_stays(path, ipc_dir):
    with bound(path) as living, socket.socket(socket.AF_UNIX) as client:
        living.listen(0)
        client.connect(path)     # its queue is full now
        age(path, AN_HOUR)
        sweep.sweep(ipc_dir, EXPIRE)
        assert os.path.exists(path)


def test_other_files_are_not_swept(ipc_dir):
    for name in ('notes.txt', 'sock'):
        path = os.path.join(ipc_dir, name)
        open(path, 'w').close()
        age(path, AN_HOUR)
    age(dead_socket(os.path.join(ipc_dir, 'other.socket')), AN_HOUR)
    before = set(os.listdir(ipc_dir))
    sweep.sweep(ipc_dir, EXPIRE)
    assert set(os.listdir(ipc_dir)) == before


def test_sweep_before_there_is_a_registry(ipc_dir):
    sweep.sweep(ipc_dir, EXPIRE)
    assert os.listdir(ipc_dir) == []


def test_old_records_and_their_group_are_swept(registry, ipc_dir):
    registry().register(instance(), [KEY, OTHER])
    for group, (stored,) in groups(ipc_dir).items():
        age(stored, 11 * EXPIRE)
        age(group, 11 * EXPIRE)
    # A removed record makes its group young: it goes with the next sweep.
    sweep.sweep(ipc_dir, EXPIRE)
    assert not any(groups(ipc_dir).values())
    for group in groups(ipc_dir):
        age(group, 11 * EXPIRE)
    sweep.sweep(ipc_dir, EXPIRE)
    assert groups(ipc_dir) == {}


@pytest.mark.parametrize('seconds', [0, EXPIRE + 5, 9 * EXPIRE])
def test_younger_records_stay(registry, ipc_dir, seconds):
    registry().register(instance(), [KEY])
    age(only_record(ipc_dir), seconds)
    group, = groups(ipc_dir)
    age(group, AN_HOUR)
    sweep.sweep(ipc_dir, EXPIRE)
    assert os.path.exists(only_record(ipc_dir))


def test_sweep_leaves_the_living_beside_the_dead(registry, ipc_dir):
    mine, living, dead = registry(), instance(), instance()
    registry().register(dead, [KEY])
    age(only_record(ipc_dir), AN_HOUR)
    mine.register(living, [KEY])
    sweep.sweep(ipc_dir, EXPIRE)
    (left,), = groups(ipc_dir).values()
    assert mine.lookup(KEY) == [living]
    assert left == only_record(ipc_dir)


def test_young_empty_group_stays(registry, ipc_dir):
    mine = registry()
    mine.register(instance(), [KEY])
    os.unlink(only_record(ipc_dir))
    sweep.sweep(ipc_dir, EXPIRE)
    assert len(groups(ipc_dir)) == 1


def test_a_living_service_whose_record_was_swept_comes_back(
        registry, ipc_dir):
    mine, service = registry(), instance()
    mine.register(service, [KEY])
    age(only_record(ipc_dir), AN_HOUR)
    sweep.sweep(ipc_dir, EXPIRE)
    mine.beat()
    assert registry().lookup(KEY) == [service]


def test_starting_a_service_sweeps(node, ipc_dir, path):
    age(dead_socket(path), AN_HOUR)
    node.runtime().service([topic.rpc('exchange', 'topic')])
    assert not os.path.exists(path)


def test_sweep_goes_on_where_it_may_not_delete(ipc_dir, path):
    folder = os.path.join(ipc_dir, 'a.sock')
    os.mkdir(folder)
    age(folder, AN_HOUR)
    age(dead_socket(path), AN_HOUR)
    sweep.sweep(ipc_dir, EXPIRE)
    assert os.listdir(ipc_dir) == ['a.sock']
