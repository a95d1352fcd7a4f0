# SPDX-License-Identifier: Apache-2.0
"""The embedded registry where somebody sets the clock, removes its files,
holds its lock, fills its disk, or puts other things in their place.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import tempfile
import threading
import time

import pytest
from tooz import coordination

from tests.functional import test_embedded_registry as embedded
from tests.support import forks
from tests.support import waiting
from zmq_threaded import counters
from zmq_threaded import logs
from zmq_threaded import topic as topics
from zmq_threaded.registry import engines
from zmq_threaded.registry import record
from zmq_threaded.registry import registry as registries
from zmq_threaded.registry import sweep

KEY, OTHER = embedded.KEY, embedded.OTHER
TOPIC = topics.rpc('exchange', 'topic')
EXPIRE, UPDATE = 30, 10
registry = embedded.registry
instance, ids, groups = embedded.instance, embedded.ids, embedded.groups


@pytest.fixture
def party(ipc_dir):
    """party(): a Registry of its own, as of another process."""
    with contextlib.ExitStack() as stack:
        def make(expire=EXPIRE, update=UPDATE):
            made = registries.Registry(
                engines.embedded(ipc_dir, expire), update, expire,
                counters.Counters(), 'zmq-registry')
            stack.callback(lambda: made.join(time.monotonic() + 10))
            stack.callback(made.stop)
            return made
        yield make


def look(client):
    """A fresh look-up."""
    looked = []
    client.ask(TOPIC, looked.append)
    waiting.until(lambda: looked)
    return ids(client.cache.listed(TOPIC))


def said(caplog, *texts):
    """Whether a log line has all these texts."""
    logs.flush()
    return any(all(text in record.getMessage() for text in texts)
               for record in caplog.records)


# Clocks


@pytest.mark.parametrize('step', [-3600, -60, 60, 3600, 365 * 86400])
def test_a_step_of_the_wall_clock_is_not_noticed(registry, ipc_dir, step):
    mine, service = registry(), instance()
    mine.register(service, [KEY])
    path = embedded.only_record(ipc_dir)
    embedded.set_time(path, time.time() - step)
    embedded.set_time(os.path.dirname(path), time.time() - step)
    assert registry().lookup(KEY) == [service]
    sweep.sweep(ipc_dir, EXPIRE)
    assert registry().lookup(KEY) == [service]


@pytest.mark.parametrize('step', [-3600, 0, 3600])
def test_who_is_dead_is_gone_whatever_the_wall_clock_says(registry, ipc_dir,
                                                          step):
    registry().register(instance(), [KEY])
    path = embedded.only_record(ipc_dir)
    embedded.restamp(path, EXPIRE + 1)
    embedded.set_time(path, time.time() - step)
    assert registry().lookup(KEY) == []


def test_records_of_an_earlier_boot_are_gone(registry, ipc_dir):
    registry().register(instance(), [KEY])
    path = embedded.only_record(ipc_dir)
    with open(path, 'r+b') as file:
        file.seek(os.path.getsize(path) - embedded.stamps.SIZE)
        file.write(bytes(16))
    assert registry().lookup(KEY) == []


# Earlier releases, which use tooz's driver


@contextlib.contextmanager
def earlier_release(ipc_dir, member=b'0123456789abcdef'):
    made = coordination.get_coordinator(
        f'file://{ipc_dir}/registry?timeout={EXPIRE}', member)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def record_of(service):
    return record.encode([service])


def test_earlier_release_reads_our_records(registry, ipc_dir):
    mine, service = registry(), instance()
    mine.register(service, [KEY])
    mine.beat()
    with earlier_release(ipc_dir) as earlier:
        (found,) = earlier.get_members_with_capabilities(
            KEY.encode()).get().values()
    assert found == record_of(service)


def test_our_beat_is_what_an_earlier_release_looks_at(registry, ipc_dir):
    mine = registry()
    mine.register(instance(), [KEY])
    embedded.set_time(embedded.only_record(ipc_dir), time.time() - 3600)
    with earlier_release(ipc_dir) as earlier:
        assert earlier.get_members(KEY.encode()).get() == set()
        mine.beat()
        assert len(earlier.get_members(KEY.encode()).get()) == 1


def test_we_read_and_age_records_of_an_earlier_release(registry, ipc_dir):
    mine, ours, theirs = registry(), instance(), instance()
    mine.register(ours, [KEY])
    path = embedded.only_record(ipc_dir)
    with earlier_release(ipc_dir) as earlier:
        earlier.join_group(KEY.encode(), record_of(theirs)).get()
        assert ids(mine.lookup(KEY)) == ids([ours, theirs])
        old, = {each for each in groups(ipc_dir)[os.path.dirname(path)]
                if each != path}
        embedded.set_time(old, time.time() - EXPIRE - 5)
        assert registry().lookup(KEY) == [ours]


def test_a_renewal_of_an_earlier_release_is_seen_whatever_the_clock_says(
        registry, ipc_dir):
    mine, theirs = registry(), instance()
    mine.lookup(KEY)
    with earlier_release(ipc_dir) as earlier:
        earlier.create_group(KEY.encode()).get()
        earlier.join_group(KEY.encode(), record_of(theirs)).get()
        assert mine.lookup(KEY) == [theirs]
        # As if the clock was set an hour ahead between its renewals
        embedded.set_time(embedded.only_record(ipc_dir), time.time() - 3600)
        assert mine.lookup(KEY) == [theirs]


def test_earlier_release_joins_and_leaves_beside_ours(registry, ipc_dir):
    mine, ours, theirs = registry(), instance(), instance()
    mine.register(ours, [KEY])
    with earlier_release(ipc_dir) as earlier:
        earlier.join_group(KEY.encode(), record_of(theirs)).get()
        mine.unregister(ours)
        assert mine.lookup(KEY) == [theirs]
        mine.register(ours, [KEY])
        earlier.leave_group(KEY.encode()).get()
        assert mine.lookup(KEY) == [ours]


# Locks and forks


@pytest.fixture
def held_lock(ipc_dir, registry):
    """A process that stands still with the lock of earlier releases."""
    registry()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        lock = open(os.path.join(ipc_dir, 'registry', '.driver_lock'), 'a')
        fcntl.lockf(lock, fcntl.LOCK_EX)
        os.write(writer, b'.')
        time.sleep(600)
        os._exit(0)
    os.read(reader, 1)
    yield
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    for end in (reader, writer):
        os.close(end)


def test_nobody_waits_for_who_stands_still_with_a_lock(held_lock, party):
    began = time.monotonic()
    service, client = party(), party()
    service.register(instance('ipc:///a'), [TOPIC])
    assert len(look(client)) == 1
    for _ in range(5):
        assert forks.Forked(lambda: 'forked').result(30) == 'forked'
    assert time.monotonic() - began < 30


def test_a_child_of_a_fork_amid_operations_uses_the_registry(registry,
                                                             ipc_dir):
    done = threading.Event()

    def run():
        mine = registry()
        while not done.is_set():
            mine.register(instance(), [KEY])
            mine.lookup(KEY)
            mine.beat()
    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert forks.Forked(embedded.registered_in_child,
                                ipc_dir).result(30)
    finally:
        done.set()
        for thread in threads:
            thread.join(30)


# Other things in the place of records


def put_fifo(path):
    os.mkfifo(path)


def put_directory(path):
    os.mkdir(path)


def put_link_to_endless_device(path):
    os.symlink('/dev/zero', path)


def put_link_to_itself(path):
    os.symlink(path, path)


def put_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)


def put_huge_file(path):
    with open(path, 'wb') as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize('put', [
    put_fifo, put_directory, put_link_to_endless_device, put_link_to_itself,
    put_socket, put_huge_file])
def test_what_is_no_file_of_a_record_costs_a_warning(registry, ipc_dir, put,
                                                     caplog):
    mine, service = registry(), instance()
    mine.register(service, [KEY])
    path = os.path.join(os.path.dirname(embedded.only_record(ipc_dir)),
                        'x.raw')
    put(path)
    reader, began = registry(), time.monotonic()
    for _ in range(3):
        assert reader.lookup(KEY) == [service]
    mine.beat()
    sweep.sweep(ipc_dir, EXPIRE)
    assert time.monotonic() - began < 20
    assert said(caplog, 'of no use', path, KEY)
    assert caplog.text.count('of no use') == 1


@pytest.mark.parametrize('put', [
    put_fifo, put_link_to_endless_device, put_huge_file])
def test_own_record_that_was_replaced_is_put_right(registry, ipc_dir, put):
    mine, service = registry(), instance()
    mine.register(service, [KEY])
    path = embedded.only_record(ipc_dir)
    os.unlink(path)
    put(path)
    mine.beat()
    assert registry().lookup(KEY) == [service]
    assert stat.S_ISREG(os.lstat(path).st_mode)


# Cleaners


def remove(ipc_dir, what):
    paths = {'registry': 'registry', 'groups': 'registry/groups',
             'tmp': 'registry/tmp', 'all': ''}
    if what == 'records':
        for each in sum(groups(ipc_dir).values(), []):
            os.unlink(each)
    else:
        # In one step: a look-up in the middle of it would find a topic whose
        # service has stopped.
        removed = os.path.join(ipc_dir, paths[what])
        away = tempfile.mkdtemp(prefix='zt-')
        os.rename(removed, os.path.join(away, 'removed'))
        shutil.rmtree(away)


@pytest.mark.parametrize('what', ['records', 'groups', 'registry', 'all'])
def test_what_was_removed_is_back_within_seconds(party, ipc_dir, what,
                                                 caplog):
    os.chmod(ipc_dir, 0o2770)
    # Beats come every 30 seconds.
    service, client = party(expire=90), party(expire=90)
    one = instance('ipc:///a')
    service.register(one, [TOPIC])
    assert look(client) == {one.id}
    remove(ipc_dir, what)
    # Who knew it goes on; who comes finds it soon.
    assert look(client) == {one.id}
    waiting.until(lambda: said(caplog, 'lost 1 of the 1', 'put back'), 20)
    assert look(party()) == {one.id}
    assert stat.S_IMODE(os.stat(ipc_dir).st_mode) == 0o2770


def test_removed_tmp_is_made_again(registry, ipc_dir):
    mine, services = registry(), [instance() for _ in range(2)]
    mine.register(services[0], [KEY])
    remove(ipc_dir, 'tmp')
    mine.register(services[1], [KEY])
    assert ids(registry().lookup(KEY)) == ids(services)


def test_who_leaves_in_peace_is_gone_at_once(party):
    service, client = party(), party()
    for one in [instance('ipc:///a') for _ in range(3)]:
        service.register(one, [TOPIC])
        assert look(client) == {one.id}
        service.unregister(one)
        assert look(client) == set()


# Standing still


def test_who_stood_still_doubts_an_absence(party, registry, ipc_dir):
    mine, one, client = registry(), instance('ipc:///a'), party()
    mine.register(one, [KEY])
    assert look(client) == {one.id}
    # As after SIGSTOP of all: records are old, and so is the last turn
    embedded.restamp(embedded.only_record(ipc_dir), EXPIRE + 5)
    client._last_turn -= EXPIRE
    assert look(client) == {one.id}


# Modes


def modes(ipc_dir):
    found = {}
    for folder, _, names in os.walk(os.path.join(ipc_dir, 'registry')):
        found[folder] = stat.S_IMODE(os.stat(folder).st_mode)
        for name in names:
            path = os.path.join(folder, name)
            found[path] = stat.S_IMODE(os.stat(path).st_mode)
    return found


@pytest.mark.parametrize('umask', [0o000, 0o007, 0o022, 0o077])
@pytest.mark.parametrize('mode, of_files', [(0o2770, 0o660), (0o700, 0o600),
                                            (0o770, 0o660), (0o755, 0o644)])
def test_modes_are_those_of_the_directory(ipc_dir, umask, mode, of_files):
    os.chmod(ipc_dir, mode)
    found = forks.Forked(registered_with_umask, ipc_dir, umask).result()
    assert {mode for path, mode in found.items()
            if path.endswith(('.raw', '.metadata'))} == {of_files}
    assert {mode for path, mode in found.items()
            if not path.endswith(('.raw', '.metadata'))} == {mode}


def registered_with_umask(ipc_dir, umask):
    os.umask(umask)
    mine = engines.embedded(ipc_dir, EXPIRE)
    for _ in range(2):
        mine.register(instance(), [KEY])
    mine.beat()
    return modes(ipc_dir)


needs_root = pytest.mark.skipif(os.getuid() != 0, reason='needs root: users')


def as_user(uid, group, function, *args):
    def run():
        os.setgroups([group])
        os.setgid(uid)
        os.setuid(uid)
        return function(*args)
    return forks.Forked(run).result()


def registered_as_user(ipc_dir, number):
    os.umask(0o077)
    mine = engines.embedded(ipc_dir, EXPIRE)
    mine.register(record.Instance(bytes([number]) * 16, ('ipc:///a',)),
                  [KEY])
    return len(mine.lookup(KEY))


@needs_root
@pytest.mark.parametrize('mode', [0o2770, 0o770])
def test_users_of_a_group_share_a_registry_whatever_their_umask(ipc_dir,
                                                                mode):
    os.chown(ipc_dir, 0, 4242)
    os.chmod(ipc_dir, mode)
    assert as_user(3001, 4242, registered_as_user, ipc_dir, 1) == 1
    assert as_user(3002, 4242, registered_as_user, ipc_dir, 2) == 2
    assert len(engines.embedded(ipc_dir, EXPIRE).lookup(KEY)) == 2


def looked_up_in_vain(ipc_dir):
    mine = engines.embedded(ipc_dir, EXPIRE)
    try:
        mine.lookup(KEY)
    except OSError as error:
        return mine.explain(error)


@needs_root
def test_unreadable_registry_names_path_cause_and_owner(ipc_dir, registry):
    os.chmod(ipc_dir, 0o755)
    registry().register(instance(), [KEY])
    group, = groups(ipc_dir)
    os.chmod(group, 0o700)
    text = as_user(3001, 3001, looked_up_in_vain, ipc_dir)
    for part in (group, 'Permission denied', 'user root', '0700', '3001'):
        assert part in text


# Full disks


def on_full_disk(ipc_dir):
    """A process that may write no more than it has: as ENOSPC, EFBIG."""
    import resource
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    mine, services = engines.embedded(ipc_dir, EXPIRE), [
        instance() for _ in range(2)]
    mine.register(services[0], [KEY])
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    failed = 0
    for _ in range(5):
        try:
            mine.register(services[1], [KEY])
        except OSError:
            failed += 1
    found = len(mine.lookup(KEY))
    left = os.listdir(os.path.join(ipc_dir, 'registry', 'tmp'))
    resource.setrlimit(resource.RLIMIT_FSIZE, 2 * (resource.RLIM_INFINITY,))
    mine.beat()
    return failed, found, left, len(mine.lookup(KEY))


def test_full_disk_leaves_no_files_and_old_records_behind(ipc_dir):
    assert forks.Forked(on_full_disk, ipc_dir).result() == [5, 1, [], 2]


