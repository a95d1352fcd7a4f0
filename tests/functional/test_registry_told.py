# SPDX-License-Identifier: Apache-2.0
"""What an operator is told of a registry that fails, and when its clock or
its records do what nobody expects. The servers are real.
"""

import contextlib
import logging
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest

from tests.support import parties
from tests.support import ports
from tests.support import servers
from tests.support import waiting
from zmq_threaded import counters
from zmq_threaded import logs
from zmq_threaded import topic as topics
from zmq_threaded.registry import engines
from zmq_threaded.registry import operations as running

TOPIC = topics.rpc('exchange', 'topic')
EXPIRE, UPDATE = 6, 2
SECRET = 's3cr3tPW'


@pytest.fixture
def party():
    """party(url): a Registry, as of another process."""
    with parties.opened(lambda url: engines.distributed(url, EXPIRE),
                        UPDATE, EXPIRE) as make:
        yield make


def look(client):
    return parties.listed(client, TOPIC)


def lines(caplog, *texts):
    logs.flush()
    return [record.getMessage() for record in caplog.records
            if all(text in record.getMessage() for text in texts)]


# Why, and where


@contextlib.contextmanager
def tls_server(folder):
    """Something that speaks TLS alone."""
    key, certificate = (os.path.join(folder, name) for name in 'kc')
    subprocess.run(
        ['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days',
         '1', '-subj', '/CN=localhost', '-keyout', key, '-out', certificate],
        check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listening = socket.create_server(('127.0.0.1', 0))
    port = listening.getsockname()[1]
    ended = threading.Event()
    listening.settimeout(0.1)

    def serve():
        while not ended.is_set():
            with contextlib.suppress(OSError):
                accepted, _ = listening.accept()
                with accepted:
                    accepted.settimeout(1)
                    context.wrap_socket(accepted, server_side=True)
    thread = threading.Thread(target=serve)
    thread.start()
    yield port
    ended.set()
    thread.join()
    listening.close()


def wrong_password(redis):
    return (f'redis://:{SECRET}@127.0.0.1:{redis._port}',
            f'127.0.0.1:{redis._port}', 'AuthenticationError')


def no_password(redis):
    return (f'redis://127.0.0.1:{redis._port}', f'127.0.0.1:{redis._port}',
            'uthentication')


def wrong_user(redis):
    return (f'redis://nobody:{SECRET}@127.0.0.1:{redis._port}',
            f'127.0.0.1:{redis._port}', 'AuthenticationError')


def tls_to_plain(redis):
    return (f'redis://:{SECRET}@127.0.0.1:{redis._port}?ssl=true',
            f'redis with TLS at 127.0.0.1:{redis._port}', 'Timeout')


def refused(_, scheme='redis'):
    port = ports.free_port()
    return f'{scheme}://127.0.0.1:{port}', f'127.0.0.1:{port}', 'refused'


def refused_etcd(_):
    return refused(_, 'etcd3+http')


def unresolvable(_):
    return (f'redis://:{SECRET}@no-such-host.invalid:1',
            'no-such-host.invalid:1', 'not known')


def no_sentinel(_):
    port = ports.free_port()
    return (f'redis://:{SECRET}@127.0.0.1:{port}?sentinel=ours',
            f'sentinels 127.0.0.1:{port}', 'MasterNotFound')


@pytest.mark.parametrize('wrong', [
    wrong_password, no_password, wrong_user, tls_to_plain, refused,
    refused_etcd, unresolvable, no_sentinel])
def test_a_failing_registry_says_why_and_where(redis, party, caplog, wrong):
    caplog.set_level(logging.DEBUG)
    url, where, why = wrong(redis)
    client = party(url)
    waiting.until(lambda: look(client) or why.lower()
                  in client._operations.why.lower(), 25,
                  lambda: client._operations.why)
    assert where in client._operations.why
    waiting.until(lambda: lines(caplog, 'The registry fails', where))
    assert SECRET not in caplog.text + client._operations.why


def test_plain_to_tls_says_why_and_where(party, tmp_path, caplog):
    if not shutil.which('openssl'):
        pytest.skip('openssl is missing: apt-get install -y openssl')
    with tls_server(tmp_path) as port:
        client = party(f'redis://:{SECRET}@127.0.0.1:{port}')
        waiting.until(lambda: look(client) or 'onnection'
                      in client._operations.why, 25)
        assert f'redis at 127.0.0.1:{port}' in client._operations.why


def test_the_late_error_of_a_client_library_is_told():
    from zmq_threaded.registry import patience
    runner, goes_on = patience.Patient('zmq-registry-engine', 0.1, 60), (
        threading.Event())

    def late():
        goes_on.wait(10)
        raise ConnectionError('the cause')
    try:
        with pytest.raises(Exception, match='^no answer within 0.1 s$'):
            runner.run(late)
        goes_on.set()
        waiting.until(lambda: not runner._worker.busy_for())
        goes_on.clear()
        with pytest.raises(Exception, match='no answer .*; the client '
                           'library says: ConnectionError: the cause'):
            runner.run(late)
    finally:
        goes_on.set()
        runner.finish(lambda: None)


# Once, and only if it is so


def test_who_cannot_register_is_told_once_with_the_reason(party, caplog):
    caplog.set_level(logging.INFO)
    url, where, _ = refused(None)
    service, one = party(url), parties.instance()
    service.register(one, [TOPIC])
    # On a busy machine something was read meanwhile, which is told by itself.
    warnings = [line for line in lines(caplog, where)
                if 'fails in reading' not in line]
    assert len(warnings) == 1, warnings
    for part in ('did not take one on node-1', 'refused', 'trying on'):
        assert part in warnings[0]


def test_what_asks_no_server_is_no_sign_that_it_answers(party, caplog):
    caplog.set_level(logging.INFO)
    url, _, _ = refused(None)
    service, one = party(url), parties.instance()
    service.register(one, [TOPIC])
    service.unregister(one)
    service.unregister(one)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        look(service)
    assert not lines(caplog, 'answers again')


def test_a_registry_that_only_reads_does_not_flap(party, redis, caplog):
    # A copy of redis, as after a fail-over: it takes no writes
    caplog.set_level(logging.INFO)
    service, client = party(redis.url), party(redis.url)
    one = parties.instance()
    service.register(one, [TOPIC])
    assert look(client) == {one.id}
    with redis.coordinator() as coordinator:
        command = coordinator._client.execute_command
        command('REPLICAOF', '127.0.0.1', str(ports.free_port()))
        try:
            waiting.until(lambda: lines(caplog, 'fails in writing',
                                        'read only'), 15)
            until = time.monotonic() + 4
            while time.monotonic() < until:
                look(service)
                assert not lines(caplog, 'answers again')
        finally:
            command('REPLICAOF', 'NO', 'ONE')
    waiting.until(lambda: lines(caplog, 'answers again'), 15)
    assert look(client) == {one.id}


# Redis lets beats expire by a clock that may be set


def expire_all_beats(redis):
    """What a step of its clock does."""
    with redis.coordinator() as coordinator:
        client = coordinator._client
        for beat in client.keys('_tooz_beats:*'):
            client.delete(beat)


@pytest.mark.parametrize('count', [1, 2, 5])
def test_when_all_beats_expire_at_once_nobody_is_missed(redis, party, count):
    services = [party(redis.url) for _ in range(count)]
    instances = [parties.instance() for _ in services]
    for service, one in zip(services, instances):
        service.register(one, [TOPIC])
    everybody, client = {one.id for one in instances}, party(redis.url)
    assert look(client) == everybody
    expire_all_beats(redis)
    until = time.monotonic() + EXPIRE
    while time.monotonic() < until:
        assert look(client) == everybody
    # And who comes finds them when they have beaten, and they stay.
    late = party(redis.url)
    waiting.until(lambda: look(late) == everybody, EXPIRE)
    for service, one in zip(services, instances):
        service.unregister(one)
    assert look(client) == set()


def test_one_of_several_who_expires_is_gone(redis, party):
    services = [party(redis.url) for _ in range(3)]
    instances = [parties.instance() for _ in services]
    for service, one in zip(services, instances):
        service.register(one, [TOPIC])
    client = party(redis.url)
    assert len(look(client)) == 3
    dead = services[0]._store._member
    services[0]._store.beat = lambda: True     # as one that hangs
    with redis.coordinator() as coordinator:
        coordinator._client.delete(coordinator._encode_beat_id(dead._session.member_id))
    assert look(client) == {one.id for one in instances[1:]}


def test_the_dead_are_removed_from_redis(redis):
    key = topics.rpc('exchange', 'dead').key
    with servers.service_process(redis, key, EXPIRE) as child:
        child.kill()
    reader = redis.store(1)
    with redis.coordinator() as coordinator:
        def members():
            reader.lookup(key)
            return len(coordinator._client.hgetall(
                f'_tooz_group:{key}')) - 1
        assert members() == 1
        waiting.until(lambda: members() == 0, EXPIRE + 20)
    reader.close()


@pytest.fixture
def seldom():
    """As party, with a beat every 30 seconds."""
    with parties.opened(lambda url: engines.distributed(url, 90),
                        UPDATE, 90) as make:
        yield make


def test_own_look_up_puts_a_lost_record_back_at_once(redis, seldom, caplog):
    service, one = seldom(redis.url), parties.instance()
    service.register(one, [TOPIC])
    waiting.until(lambda: service._registrations.next_beat
                  > time.monotonic() + 15, 30)
    with redis.coordinator() as coordinator:
        coordinator._client.hdel(f'_tooz_group:{TOPIC.key}',
                                 service._store._member._session.member_id)
    look(service)
    client = seldom(redis.url)
    waiting.until(lambda: look(client) == {one.id}, 14)
    waiting.until(lambda: lines(caplog, 'lost 1 of the 1', 'put back'))


def _fail(text):
    raise OSError(text)


def test_a_warning_that_its_caller_gives_uses_up_no_other(caplog):
    seen = running.Operations(1.0, str, counters.Counters())
    seen.run(running.WRITING, _fail, 'first', is_told=True)
    seen.run(running.READING, _fail, 'second')
    logs.flush()
    assert 'going on with what is known: second' in caplog.text
