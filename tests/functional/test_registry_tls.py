# SPDX-License-Identifier: Apache-2.0
"""A registry over TLS, with a user and a password: the servers are real."""

import contextlib
import logging
import re
import time
from urllib import parse

import oslo_messaging
import pytest
from oslo_config import cfg

from tests.support import parties
from tests.support import ports
from tests.support import tls_servers
from zmq_threaded import errors
from zmq_threaded import options
from zmq_threaded import topic as topics
from zmq_threaded.registry import engines

TOPIC = topics.rpc('exchange', 'topic')
EXPIRE, UPDATE = 6, 2
WRONG_PASSWORD = 'AuthenticationError: invalid username-password'
pytestmark = pytest.mark.xdist_group('tls')


@contextlib.contextmanager
def opened(name):
    with tls_servers.open_engine(name) as engine:
        yield engine


@pytest.fixture(scope='module')
def redis():
    with opened('redis') as engine:
        yield engine


@pytest.fixture(scope='module')
def sentinel():
    with opened('sentinel') as engine:
        yield engine


@pytest.fixture(scope='module')
def etcd():
    with opened('etcd') as engine:
        yield engine


@pytest.fixture(scope='module')
def stranger(tmp_path_factory):
    """The certificates of a CA that nobody knows."""
    return tls_servers.Certificates(str(tmp_path_factory.mktemp('other')),
                                    'stranger')


@pytest.fixture
def party():
    """party(url): a Registry, as of another process."""
    with parties.opened(lambda url: engines.distributed(url, EXPIRE),
                        UPDATE, EXPIRE) as make:
        yield make


def found(client):
    return parties.listed(client, TOPIC)


def of_transport_url(url):
    """The URL of tooz that a driver makes of it."""
    parsed = oslo_messaging.TransportURL.parse(cfg.CONF, url)
    return options.of_url(cfg.CONF, parsed).matchmaker


def written(engine):
    """What an operator writes as transport_url for the same engine."""
    if isinstance(engine, tls_servers.TlsEtcd):
        certificate, key = engine.client
        return (f'zmq+etcd://127.0.0.1:{engine.port}?ssl=true'
                f'&ssl_ca_certs={engine.certificates.ca}'
                f'&ssl_certfile={certificate}&ssl_keyfile={key}')
    by = parse.urlsplit(engine.url)
    if isinstance(engine, tls_servers.TlsSentinel):
        who = f'{engine.user}:{engine.escaped}'
        query = re.sub('sentinel(_fallback)?=[^&]*&', '', by.query)
        return (f'zmq+sentinel://{who}@127.0.0.1:{engine.ports[1]},'
                f'{who}@127.0.0.1:{engine.ports[2]}?{query}'
                '&rpc_zmq_sentinel_group=ours')
    return f'zmq+redis://{by.netloc}?{by.query}'


@pytest.mark.parametrize('name', ['redis', 'clients', 'sentinel', 'etcd'])
def test_services_are_found_by_both_ways_to_write_it(party, name):
    with opened(name) as engine:
        engines.check(engine.url)
        one, service = parties.instance(), party(engine.url)
        service.register(one, [TOPIC])
        assert not service._operations.why
        assert found(party(of_transport_url(written(engine)))) == {one.id}
        service.unregister(one)
        assert found(party(engine.url)) == set()
        # Nobody was alive: the record of one who is killed is removed, too.
        engine.groups()


def test_a_database_of_its_own_and_tls(party, redis):
    one = parties.instance()
    by = parse.urlsplit(redis.url)
    party(f'{redis.url}&db=3').register(one, [TOPIC])
    url = f'zmq+redis://{by.netloc}/3?{by.query}'
    assert found(party(of_transport_url(url))) == {one.id}
    assert found(party(redis.url)) == set()


def test_calls_find_their_server(redis, node):
    url = f'{written(redis)}&' + parse.urlencode({
        'rpc_zmq_ipc_dir': node.ipc_dir, 'rpc_zmq_topology': 'direct',
        'rpc_zmq_host': '127.0.0.1'})
    node.url = lambda **query: url
    node.server(topic='secret')
    assert node.client(topic='secret').call({}, 'echo', value=1) == 1


# What is wrong is said: of whom, and never with the password


def wrong_ca(redis, etcd, stranger):
    return redis.url.replace(redis.certificates.ca, stranger.ca), (
        'CERTIFICATE_VERIFY_FAILED')


def no_ca(redis, etcd, stranger):
    return redis.url.partition('&')[0], 'CERTIFICATE_VERIFY_FAILED'


def wrong_ca_of_etcd(redis, etcd, stranger):
    return etcd.url.replace(etcd.certificates.ca, stranger.ca), (
        'CERTIFICATE_VERIFY_FAILED')


def no_certificate_for_etcd(redis, etcd, stranger):
    return etcd.url.partition('?')[0] + f'?ca_cert={etcd.certificates.ca}', (
        'certificate.required|bad.certificate')


def strange_certificate_for_etcd(redis, etcd, stranger):
    certificate, key = stranger.of('client')
    return (f'{etcd.url.partition("&")[0]}&cert_cert={certificate}'
            f'&cert_key={key}'), '(bad|unknown).(certificate|ca)'


def wrong_password(redis, etcd, stranger):
    return redis.url.replace(redis.escaped, 's3cr3tPW'), WRONG_PASSWORD


def wrong_user(redis, etcd, stranger):
    return redis.url.replace('zmq:', 'other:'), WRONG_PASSWORD


def no_user(redis, etcd, stranger):
    return redis.url.replace(f'zmq:{redis.escaped}@', ''), 'uthentication'


def no_tls(redis, etcd, stranger):
    return redis.url.partition('?')[0], 'onnection'


def etcd_without_tls(redis, etcd, stranger):
    return f'etcd3+http://127.0.0.1:{etcd.port}', (
        'Connection|HTTP|API version')


def nobody(redis, etcd, stranger):
    return re.sub(r':\d+\?', f':{ports.free_port()}?', redis.url), 'refused'


@pytest.mark.parametrize('wrong', [
    wrong_ca, no_ca, wrong_ca_of_etcd, no_certificate_for_etcd,
    strange_certificate_for_etcd, wrong_password, wrong_user, no_user,
    no_tls, etcd_without_tls, nobody])
def test_what_is_wrong_is_said_without_the_password(
        party, redis, etcd, stranger, caplog, wrong):
    caplog.set_level(logging.DEBUG)
    url, why = wrong(redis, etcd, stranger)
    said = told(party(url), why)
    port = parse.urlsplit(url).port
    kind = 'etcd' if url.startswith('etcd') else 'redis'
    tls = ' with TLS' if 'https' in url or 'ssl=true' in url else ''
    assert f'{kind}{tls} at 127.0.0.1:{port}' in said
    for secret in (redis.password, redis.escaped, 's3cr3tPW'):
        assert secret not in caplog.text + said


def told(client, why):
    """What the registry says is wrong."""
    until = time.monotonic() + 25
    while not re.search(why, client._operations.why, re.IGNORECASE):
        assert not found(client)
        assert time.monotonic() < until, client._operations.why
    return client._operations.why


def test_a_good_certificate_of_another_host_is_refused(party):
    with opened('another') as engine:
        said = told(party(engine.url), 'CERTIFICATE_VERIFY_FAILED')
        assert "'127.0.0.1'" in said


@pytest.mark.parametrize('part, instead, why', [
    ('sentinel_password=l%20%2B%25k', 'sentinel_password=s3cr3tPW',
     'invalid username-password'),
    ('&ssl_ca_certs={ca}', '', 'CERTIFICATE_VERIFY_FAILED'),
    ('&sentinel_ssl=true', '', 'onnection'),
    ('p%40ss', 's3cr3tPW', 'invalid username-password')])
def test_what_is_wrong_with_sentinels_is_said(party, sentinel, caplog, part,
                                              instead, why):
    caplog.set_level(logging.DEBUG)
    part = part.format(ca=sentinel.certificates.ca)
    assert part in sentinel.url
    said = told(party(sentinel.url.replace(part, instead)), why)
    assert 'redis with TLS by the sentinels 127.0.0.1:' in said
    for secret in ('s3cr3tPW', 'l +%k', 'l%20', sentinel.password):
        assert secret not in caplog.text + said


def test_who_may_not_write_is_told(party, redis):
    import redis as client
    with client.Redis('127.0.0.1', redis.port, username='admin',
                      password='admin', ssl=True,
                      ssl_ca_certs=redis.certificates.ca) as admin:
        admin.execute_command('ACL', 'SETUSER', 'reader', 'on', '>r3ader',
                              '~_tooz*', '+@all', '-@write')
    url = redis.url.replace(f'zmq:{redis.escaped}', 'reader:r3ader')
    assert 'psetex' in told(party(url), 'NoPermission').lower()


# Before anything is connected


@pytest.fixture
def files(stranger, tmp_path):
    certificate, key = stranger.of('one')
    _, other = stranger.of('two')
    garbage = tmp_path / 'garbage.pem'
    garbage.write_text('no certificate')
    return {'ca': stranger.ca, 'cert': certificate, 'key': key,
            'other': other, 'garbage': garbage,
            'missing': tmp_path / 'missing.pem'}


@pytest.mark.parametrize('way, query, named', [
    (way, *each) for way in ('zmq+redis', 'zmq+etcd', 'redis') for each in (
    ('ssl=true&ssl_ca_certs={missing}', 'missing'),
    ('ssl=true&ssl_ca_certs={garbage}', 'garbage'),
    ('ssl=true&ssl_certfile={missing}&ssl_keyfile={key}', 'missing'),
    ('ssl=true&ssl_certfile={cert}&ssl_keyfile={missing}', 'missing'),
    ('ssl=true&ssl_certfile={cert}&ssl_keyfile={other}', 'other'),
    ('ssl=true&ssl_certfile={cert}', 'cert'))
    # etcd wants a file of its own for the key.
    if way != 'zmq+etcd' or 'keyfile' in each[0] or 'ca_certs' in each[0]])
def test_a_file_that_is_of_no_use_is_named_at_start(files, way, query, named):
    query = query.format(**files)
    url = f'{way}://:s3cret@h?{query}'.replace(
        'etcd://:s3cret@', 'etcd://')
    if way == 'redis':
        url = 'zmq://?' + parse.urlencode({'rpc_zmq_matchmaker': url})
    with pytest.raises(errors.ConfigurationError) as refusal:
        oslo_messaging.get_rpc_transport(cfg.CONF, url)
    assert str(files[named]) in str(refusal.value)
    assert 's3cret' not in str(refusal.value)


def test_good_files_are_taken(files):
    query = ('ssl=true&ssl_ca_certs={ca}&ssl_certfile={cert}'
             '&ssl_keyfile={key}').format(**files)
    for way in ('zmq+redis', 'zmq+etcd', 'zmq+sentinel'):
        oslo_messaging.get_rpc_transport(cfg.CONF, f'{way}://h?{query}')
