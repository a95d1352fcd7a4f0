# SPDX-License-Identifier: Apache-2.0
"""What every engine of the registry does, with its real server."""

import contextlib
import itertools
import logging
import os
import threading
import time

import pytest

from tests.support import leaks
from tests.support import servers
from tests.support import waiting
from zmq_threaded import topic
from zmq_threaded.registry import engines
from zmq_threaded.registry import record
from zmq_threaded.registry import registry_url

# Seconds; the short one only where something is to expire.
EXPIRE, SOON = 30, 3
_numbers = itertools.count()


@pytest.fixture(scope='module', params=servers.parallel(servers.NAMES))
def engine(request):
    with servers.open_engine(request.param) as opened:
        yield opened


@pytest.fixture
def key():
    """Of a topic that no other test has."""
    return topic.rpc('exchange', f'tøpic/{next(_numbers)}').key


@pytest.fixture
def registry(engine):
    """registry(): a Store of its own; none leaves a thread or a
    descriptor behind.
    """
    engine.groups()
    with leaks.nothing_left(engine.data()), contextlib.ExitStack() as stack:
        def make(expire=EXPIRE):
            made = engine.store(expire)
            stack.callback(made.close)
            return made
        yield make


def instance(endpoint='tcp://node-1:49153', **fields):
    return record.Instance(os.urandom(16), (endpoint,), **fields)


def ids(instances):
    return {each.id for each in instances}


def test_nobody_is_registered_at_first(registry, key):
    assert registry().lookup(key) == []


def test_registered_instance_is_found_by_others(registry, key):
    service = record.Instance(
        os.urandom(16), ('ipc:///a/b.sock', 'tcp://[::1]:5'), 'pööl', True)
    registry().register(service, [key, key + '2'])
    assert registry().lookup(key) == registry().lookup(key + '2') == [service]


def test_instances_are_found_in_one_order_by_everybody(registry, key):
    services = [instance() for _ in range(10)]
    writers = [registry() for _ in range(3)]
    for service, writer in zip(services, itertools.cycle(writers)):
        writer.register(service, [key])
    found = [registry().lookup(key) for _ in range(2)]
    assert found[0] == found[1]
    assert ids(found[0]) == ids(services)


def test_registering_again_is_harmless(registry, key):
    mine, service = registry(), instance()
    for _ in range(3):
        mine.register(service, [key])
    assert mine.lookup(key) == [service]


def test_instances_of_one_process_come_and_go_apart(registry, key):
    mine, first, second = registry(), instance(), instance()
    for service in (first, second):
        mine.register(service, [key])
    assert ids(registry().lookup(key)) == ids([first, second])
    mine.unregister(first)
    mine.beat()
    assert registry().lookup(key) == [second]


def test_unregistered_instance_is_gone_and_others_stay(registry, key):
    mine, theirs, stays, goes = registry(), registry(), instance(), instance()
    mine.register(goes, [key])
    theirs.register(stays, [key])
    mine.unregister(goes)
    assert registry().lookup(key) == [stays]


def test_unregistering_what_is_not_registered_is_harmless(registry, key):
    mine, service = registry(), instance()
    mine.unregister(service)
    mine.register(service, [key])
    mine.unregister(service)
    mine.unregister(service)
    assert mine.lookup(key) == []


def test_groups_are_removed_when_they_are_empty(registry, engine, key):
    mine, theirs, first, last = registry(), registry(), instance(), instance()
    mine.register(first, [key])
    theirs.register(last, [key])
    mine.unregister(first)
    assert key in engine.groups()
    theirs.unregister(last)
    assert key not in engine.groups()
    assert mine.lookup(key) == []


def test_closing_unregisters_everything(registry, engine, key):
    mine = registry()
    for _ in range(3):
        mine.register(instance(), [key])
    mine.close()
    assert registry().lookup(key) == []
    assert key not in engine.groups()


def test_a_closed_one_can_be_used_again(registry, key):
    mine, service = registry(), instance()
    mine.register(service, [key])
    mine.close()
    assert not mine.has_records()
    mine.register(service, [key])
    assert registry().lookup(key) == [service]


def test_beats_keep_a_record_alive(registry, key):
    mine, reader, service = registry(SOON), registry(SOON), instance()
    mine.register(service, [key])
    until = time.monotonic() + 2 * SOON
    while time.monotonic() < until:
        mine.beat()
        assert reader.lookup(key) == [service]
        time.sleep(SOON / 6)


def test_first_registration_long_after_the_first_look_up(registry, key):
    mine, service = registry(SOON), instance()
    mine.lookup(key)
    time.sleep(SOON + 1)
    mine.register(service, [key])
    assert registry(SOON).lookup(key) == [service]


def test_beat_puts_back_what_somebody_removed(registry, engine, key):
    mine, service = registry(), instance()
    mine.register(service, [key])
    with member_as(engine, mine) as coordinator:
        coordinator.leave_group(key.encode()).get()
    assert registry().lookup(key) == []
    mine.beat()
    assert registry().lookup(key) == [service]


@contextlib.contextmanager
def member_as(engine, mine):
    """Somebody who can take the records of this Store away."""
    with engine.coordinator(mine._member._session.member_id) as coordinator:
        yield coordinator


# Of these engines only etcd can.
@pytest.mark.parametrize('engine', servers.parallel(['etcd']), indirect=True)
def test_group_that_was_deleted_while_it_was_joined_is_made_again(
        registry, engine, key):
    mine, service = registry(), instance()
    mine.register(service, [key])
    with engine.coordinator() as coordinator:
        coordinator.client.delete(f'tooz/groups/{key}/')
    assert registry().lookup(key) == []
    mine.beat()
    assert registry().lookup(key) == [service]


NONSENSE = [None, 5, 'text', [], {}, {'instances': None},
            {'instances': [{}]}, {'instances': [{'id': b'short'}]}]


def test_records_that_are_none_of_ours_are_ignored(registry, engine, key):
    mine, service = registry(), instance()
    mine.register(service, [key])
    with contextlib.ExitStack() as stack:
        for number, record in enumerate(NONSENSE):
            stranger = stack.enter_context(
                engine.coordinator(b'stranger-%d' % number))
            stranger.join_group(key.encode(), record).get()
        assert registry().lookup(key) == [service]
        mine.beat()
        assert registry().lookup(key) == [service]


def test_record_that_cannot_be_read_is_ignored(registry, engine, key):
    mine, service = registry(), instance()
    mine.register(service, [key])
    engine.put_garbage(key)
    for _ in range(2):
        assert registry().lookup(key) == [service]
    engine.remove_garbage(key)


# Several processes

def process(engine, key, expire=EXPIRE, keep='beat'):
    return servers.service_process(engine, key, expire, keep)


def test_killed_process_is_gone_within_its_expiry(registry, engine, key):
    reader = registry(SOON)
    with process(engine, key, SOON) as child:
        assert ids(reader.lookup(key)) == {child.instance_id}
        child.kill()
        waiting.until(lambda: reader.lookup(key) == [], SOON + 20)


def test_process_that_was_paused_too_long_comes_back(registry, engine, key):
    reader = registry(SOON)
    with process(engine, key, SOON) as child:
        with servers.paused(child):
            waiting.until(lambda: reader.lookup(key) == [], SOON + 25)
        waiting.until(lambda: ids(reader.lookup(key)) == {child.instance_id},
                      SOON + 25)
        # It stays, too: nothing of its first life takes it away.
        until = time.monotonic() + SOON
        while time.monotonic() < until:
            assert ids(reader.lookup(key)) == {child.instance_id}


def test_processes_that_come_and_go_lose_nobody(registry, engine, key):
    mine, stays = registry(), instance()
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(process(engine, key, keep='15'))
                for _ in range(3)]
        for child in busy:
            assert child.wait(60) == 0
    assert registry().lookup(key) == []
    mine.register(stays, [key])
    assert registry().lookup(key) == [stays]


def test_a_reader_never_misses_who_stays(registry, engine, key):
    mine, stays, reader = registry(), instance(), registry()
    mine.register(stays, [key])
    with process(engine, key, keep='50') as child:
        while child.poll() is None:
            assert stays in reader.lookup(key)
            mine.beat()
        assert child.wait() == 0


# Several clouds


@pytest.mark.parametrize('name', ['redis', 'sentinel'])
def test_clouds_in_two_databases_of_one_redis_do_not_meet(name, key):
    services = [instance() for _ in range(3)]
    with servers.open_engine(name) as engine, contextlib.ExitStack() as stack:
        clouds = [registry_url.of_virtual_host(engine.url, number)
                  for number in (None, '1', '2')]
        for url, service in zip(clouds, services):
            mine = engines.distributed(url, EXPIRE)
            stack.callback(mine.close)
            mine.register(service, [key])
        for url, service in zip(clouds, services):
            reader = engines.distributed(url, EXPIRE)
            stack.callback(reader.close)
            assert reader.lookup(key) == [service]


# What it costs


def test_one_thread_and_one_connection_whatever_runs_here(registry, engine,
                                                          key):
    registry().lookup(key)      # for what is made once in a process
    threads, sockets = threading.active_count(), servers.sockets()
    mine = registry()
    mine.register(instance(), [key])
    one = threading.active_count() - threads, servers.sockets() - sockets
    for number in range(5):
        mine.register(instance(), [key, f'{key}{number}'])
        mine.beat()
    assert (threading.active_count() - threads,
            servers.sockets() - sockets) == one
    print(f'{engine.name}: {one[0]} threads, {one[1]} sockets')


# What operators get wrong


@pytest.mark.parametrize('scheme, extra', [
    ('redis', 'redis'), ('etcd3+http', 'etcd'), ('zookeeper', 'zookeeper')])
def test_missing_library_is_named_with_its_extra(monkeypatch, scheme, extra):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(engines.MissingLibrary,
                       match=rf'pip install zmq-threaded\[{extra}\]'):
        engines.check(f'{scheme}://h')


def test_engine_that_tooz_does_not_have_is_refused():
    with pytest.raises(ValueError, match='^rpc_zmq_matchmaker: .*mongo'):
        engines.check('mongo://h')


@pytest.mark.parametrize('name', servers.DISTRIBUTED)
def test_installed_engine_passes_the_check(name):
    engines.check({'redis': 'redis://h', 'sentinel': 'redis://h?sentinel=x',
                      'etcd': 'etcd3+http://h',
                      'zookeeper': 'zookeeper://h'}[name])


def test_wrong_password_is_no_answer_and_not_logged(caplog):
    caplog.set_level(logging.DEBUG)
    with servers.open_engine('redis') as engine:
        mine = engines.distributed(
            engine.url.replace(engine.escaped, 'wr0ng-s3cret'), EXPIRE)
        # Of the client library, which raises what it likes.
        with pytest.raises(Exception):      # noqa: B017
            mine.lookup('key')
        mine.close()
    assert 'wr0ng-s3cret' not in caplog.text
