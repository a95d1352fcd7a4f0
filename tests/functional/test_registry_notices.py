# SPDX-License-Identifier: Apache-2.0
"""Who comes to a registry is found at once, and so is who goes. The servers
are real.
"""

import contextlib
import itertools
import os
import shutil
import statistics
import time

import pytest

from tests.support import parties
from tests.support import servers
from tests.support import tls_servers
from tests.support import waiting
from zmq_threaded import topic as topics
from zmq_threaded.registry import engines
from zmq_threaded.registry import look_ups

EXPIRE, UPDATE = 30, 10
TIMES = 20
_numbers = itertools.count()


@pytest.fixture(scope='module', params=servers.parallel(servers.NAMES))
def engine(request):
    with servers.open_engine(request.param) as opened:
        yield opened


@pytest.fixture
def topic():
    """That no other test has."""
    return topics.rpc('exchange', f'tøpic/{next(_numbers)}')


@contextlib.contextmanager
def opened(make_store, expire=EXPIRE):
    with servers.no_client_left(), parties.opened(
            lambda: make_store(expire), UPDATE, expire) as make:
        yield make


@pytest.fixture
def party(engine):
    """party(): a Registry of its own, as of another process."""
    engine.ensure_running()
    with opened(engine.store) as make:
        yield make


@pytest.fixture
def local(ipc_dir, no_leaks):
    """As party, of an embedded registry."""
    with opened(lambda expire: engines.embedded(ipc_dir, expire)) as make:
        yield make


@pytest.fixture(autouse=True)
def rare_look_ups(monkeypatch):
    """Without a notice a topic is looked up only after many seconds."""
    monkeypatch.setattr(look_ups, '_FIRST_SPACING', UPDATE)


def told(client, topic):
    """Have a topic looked up, and wait until its changes are told."""
    looked = []
    client.ask(topic, looked.append)
    waiting.until(lambda: looked)
    # Its thread does one after the other.
    assert client._do(lambda: True, 10)


def comes(client, topic, one, seconds=5):
    """:returns: the seconds until it is found"""
    began = time.monotonic()
    waiting.until(lambda: one in client.cache.listed(topic), seconds)
    return time.monotonic() - began


def goes(client, topic, one, seconds=5):
    """:returns: the seconds until it is no longer found"""
    began = time.monotonic()
    waiting.until(lambda: one not in client.cache.listed(topic), seconds)
    return time.monotonic() - began


def test_who_comes_and_goes_is_found_at_once(party, topic):
    client, service = party(), party()
    told(client, topic)
    took = []
    for _ in range(TIMES):
        one = parties.instance()
        service.register(one, [topic])
        took.append(comes(client, topic, one))
        service.unregister(one)
        took.append(goes(client, topic, one))
    assert statistics.median(took) < 0.3 and max(took) < 1


def test_one_more_of_a_topic_and_one_less(party, topic):
    client, services = party(), [party(), party()]
    first, second, third = (parties.instance() for _ in range(3))
    services[0].register(first, [topic])
    told(client, topic)
    services[1].register(second, [topic])
    comes(client, topic, second, 2)
    # In a record that is there already.
    services[1].register(third, [topic])
    comes(client, topic, third, 2)
    services[0].unregister(first)
    goes(client, topic, first, 2)
    services[1].unregister(third)
    goes(client, topic, third, 2)
    assert client.cache.listed(topic) == (second,)


def test_many_topics_of_one_process(party):
    client, service = party(), party()
    many = [topics.rpc('exchange', f'many-{next(_numbers)}')
            for _ in range(30)]
    for each in many:
        told(client, each)
    for each in (many[0], many[15], many[29]):
        one = parties.instance()
        service.register(one, [each])
        comes(client, each, one, 2)


def test_a_registry_that_comes_back_tells_again(party, topic, engine):
    client, service = party(), party()
    told(client, topic)
    engine.restart()
    one = parties.instance()
    service.register(one, [topic])
    comes(client, topic, one, 3 * UPDATE)

    def is_told():
        other = parties.instance()
        service.register(other, [topic])
        with contextlib.suppress(AssertionError):
            return comes(client, topic, other, 1) < 1
    waiting.until(is_told, 6 * UPDATE)


def test_it_is_found_as_before_when_there_are_no_notices(party, topic,
                                                         monkeypatch):
    client, service, one = party(), party(), parties.instance()
    monkeypatch.setattr(client._look_ups, 'notice', lambda key, count: None)
    told(client, topic)
    service.register(one, [topic])
    assert client.resolve(topic, time.monotonic() + 5) == one


# Of the embedded registry


def test_a_registry_that_was_made_anew_is_watched_again(local, ipc_dir,
                                                        topic):
    client, service = local(), local()
    told(client, topic)
    shutil.rmtree(os.path.join(ipc_dir, 'registry'))
    os.makedirs(os.path.join(ipc_dir, 'registry', 'groups'))
    time.sleep(0.3)     # it looks at once, and watches what is there now
    one = parties.instance()
    service.register(one, [topic])
    comes(client, topic, one, 2)


def test_without_notices_of_the_kernel_it_is_found_as_before(
        local, topic, monkeypatch):
    from zmq_threaded.net import inotify

    def fails(self):
        raise OSError(24, 'Too many open files')
    monkeypatch.setattr(inotify.Inotify, '__init__', fails)
    client, service, one = local(), local(), parties.instance()
    told(client, topic)
    service.register(one, [topic])
    assert client.resolve(topic, time.monotonic() + 5) == one


# Of redis


@pytest.fixture
def admin(redis):
    with redis.coordinator() as coordinator:
        yield coordinator._client


def subscribers(admin, topic):
    return admin.pubsub_numsub(f'zmq_threaded:{topic.key}')[0][1]


def test_a_subscription_that_was_cut_is_made_again(redis, admin, topic):
    with opened(redis.store) as make:
        client, service, one, other = (make(), make(), parties.instance(),
                                       parties.instance())
        told(client, topic)
        assert subscribers(admin, topic) == 1
        assert admin.client_kill_filter(_type='pubsub') == 1
        waiting.until(lambda: not subscribers(admin, topic))
        service.register(one, [topic])
        comes(client, topic, one, 2 * UPDATE)
        waiting.until(lambda: subscribers(admin, topic) == 1, 2 * UPDATE)
        service.register(other, [topic])
        comes(client, topic, other, 1)


def test_who_never_looks_anything_up_has_one_connection(redis, admin, topic):
    before = len(admin.client_list())
    with opened(redis.store) as make:
        make().register(parties.instance(), [topic])
        assert len(admin.client_list()) == before + 1
        told(make(), topic)
        assert len(admin.client_list()) == before + 3


def test_the_record_of_a_dead_process_that_is_taken_off_is_told(
        redis, admin, topic):
    with opened(redis.store, expire=2) as make:
        client = make()
        told(client, topic)
        listener = admin.pubsub(ignore_subscribe_messages=True)
        listener.subscribe(f'zmq_threaded:{topic.key}')
        admin.hset(f'_tooz_group:{topic.key}', 'dead', b'nonsense')
        told(client, topic)
        time.sleep(2.1)
        told(client, topic)
        waiting.until(lambda: listener.get_message(timeout=0.1), 5)
        listener.close()


def test_a_user_with_the_rights_of_the_page_has_notices(redis, admin, topic):
    admin.execute_command('ACL', 'SETUSER', 'page', 'on', '>pw',
                          *tls_servers.RIGHTS)
    port = redis.url.rpartition(':')[2]
    url = f'redis://page:pw@127.0.0.1:{port}'
    with opened(lambda expire: engines.distributed(url, expire)) as make:
        client, service, one = make(), make(), parties.instance()
        told(client, topic)
        assert subscribers(admin, topic) == 1
        service.register(one, [topic])
        comes(client, topic, one, 2)
        service.unregister(one)
        goes(client, topic, one, 2)


def test_a_user_who_may_not_publish_or_subscribe_is_served(
        redis, admin, topic, caplog):
    admin.acl_setuser('limited', enabled=True, passwords=['+pw'],
                      keys=['*'], commands=['+@all'], reset_channels=True)
    port = redis.url.rpartition(':')[2]
    url = f'redis://limited:pw@127.0.0.1:{port}'
    with opened(lambda expire: engines.distributed(url, expire)) as make:
        client, service, one = make(), make(), parties.instance()
        told(client, topic)
        service.register(one, [topic])
        assert client.resolve(topic, time.monotonic() + 5) == one
        assert not client._operations.why and not service._operations.why
        told(client, topics.rpc('exchange', f'more-{next(_numbers)}'))
        waiting.until(lambda: caplog.text.count('+@pubsub') == 1)


def test_what_strangers_publish_breaks_nothing(redis, admin, topic):
    with opened(redis.store) as make:
        client, service, one = make(), make(), parties.instance()
        told(client, topic)
        for said in (b'', b'\xff' * 1000, b'9' * 100, b'-1', b'1e9', b'nan'):
            admin.publish(f'zmq_threaded:{topic.key}', said)
        service.register(one, [topic])
        comes(client, topic, one, 2)
