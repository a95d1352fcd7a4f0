# SPDX-License-Identifier: Apache-2.0
"""From what operators write to a tooz URL."""

import importlib.metadata
import importlib.util
from urllib import parse

import oslo_messaging
import pytest
from oslo_config import cfg

from zmq_threaded import errors
from zmq_threaded.registry import registry_url
from zmq_threaded.registry import tls_options
from zmq_threaded.registry import tooz_url


def backend(transport_url='zmq://', matchmaker='embedded', **kwargs):
    """As the driver asks for it, from a real transport URL."""
    url = oslo_messaging.TransportURL.parse(cfg.CONF, transport_url)
    hosts = [(host.hostname, host.port, host.username, host.password)
             for host in url.hosts]
    tls = {name: value for name, value in url.query.items()
           if name in tls_options.NAMES}
    return registry_url.backend(url.transport.partition('+')[2], hosts,
                                matchmaker, tls=tls, **kwargs)


@pytest.mark.parametrize('transport_url, expected', [
    ('zmq://', None),
    ('zmq+redis://', 'redis://localhost:6379'),
    ('zmq+redis://h1', 'redis://h1:6379'),
    ('zmq+redis://:6380', 'redis://localhost:6380'),
    ('zmq+redis://h1:1/?rpc_zmq_host=x', 'redis://h1:1'),
    ('zmq+redis://:secret@h1:6379', 'redis://:secret@h1:6379'),
    ('zmq+redis://me:secret@h1:6379', 'redis://me:secret@h1:6379'),
    ('zmq+redis://:p%40s%2Fs%3A%25@h1', 'redis://:p%40s%2Fs%3A%25@h1:6379'),
    ('zmq+redis://[::1]:7', 'redis://[::1]:7'),
    ('zmq+redis://[fe80::1]', 'redis://[fe80::1]:6379'),
    ('zmq+sentinel://h1:1,h2:2,h3',
     'redis://h1:1?sentinel=oslo-messaging-zeromq'
     '&sentinel_fallback=h2%3A2&sentinel_fallback=h3%3A26379'),
    ('zmq+sentinel://[::1]:2',
     'redis://[::1]:2?sentinel=oslo-messaging-zeromq'),
    ('zmq+sentinel://:pw@h1,:pw@h2',
     'redis://:pw@h1:26379?sentinel=oslo-messaging-zeromq'
     '&sentinel_fallback=h2%3A26379'),
    ('zmq+sentinel://:pw@h1,h2',
     'redis://:pw@h1:26379?sentinel=oslo-messaging-zeromq'
     '&sentinel_fallback=h2%3A26379'),
    ('zmq+etcd://', 'etcd3+http://localhost:2379'),
    ('zmq+etcd://[::1]', 'etcd3+http://[::1]:2379'),
    ('zmq+zookeeper://h1,h2:3', 'zookeeper://h1:2181,h2:3'),
    ('zmq+zookeeper://[::1]', 'zookeeper://[::1]:2181'),
    ('zmq+zookeeper://u:p@h1,u:p@h2', 'zookeeper://u:p@h1:2181,h2:2181')])
def test_transport_url(transport_url, expected):
    assert backend(transport_url) == expected


@pytest.mark.parametrize('name, expected', [
    ('embedded', None), ('dummy', None), ('local', None),
    ('oslo_messaging._drivers.matchmaker.MatchMakerLocalhost', None),
    ('redis', 'redis://localhost:6379'),
    ('MatchMakerRedis', 'redis://localhost:6379'),
    ('oslo_messaging._drivers.zmq_driver.matchmaker.matchmaker_redis.'
     'MatchmakerRedis', 'redis://localhost:6379'),
    ('sentinel',
     'redis://localhost:26379?sentinel=oslo-messaging-zeromq'),
    ('etcd', 'etcd3+http://localhost:2379'),
    ('zookeeper', 'zookeeper://localhost:2181'),
    ('redis://h?db=2&ssl=true', 'redis://h?db=2&ssl=true'),
    ('etcd3+https://h:1?ca_cert=/x', 'etcd3+https://h:1?ca_cert=/x'),
    ('redis://[::1]:1?sentinel=x&sentinel_fallback=[::1]:2',
     'redis://[::1]:1?sentinel=x&sentinel_fallback=[::1]:2'),
    ('zookeeper://a:1,b:2?timeout=3', 'zookeeper://a:1,b:2?timeout=3')])
def test_option(name, expected):
    assert backend(matchmaker=name) == expected


def test_hosts_of_a_plain_url_are_those_of_the_registry_that_is_named():
    assert backend('zmq://:pw@h1:7', 'redis') == 'redis://:pw@h1:7'


def test_transport_url_wins_over_the_option():
    assert backend('zmq+etcd://', 'redis://x') == 'etcd3+http://localhost:2379'


@pytest.mark.parametrize('name, legacy, expected', [
    ('redis', {'host': 'h', 'port': 1, 'password': 'p@'},
     'redis://:p%40@h:1'),
    ('redis', {'host': '::1', 'password': ''}, 'redis://[::1]:6379'),
    ('redis', {'port': 5}, 'redis://localhost:5'),
    ('redis', {'socket_timeout': 1500},
     'redis://localhost:6379?socket_timeout=1.5'),
    ('sentinel', {'sentinel_hosts': ['h1:1', '[::1]:2'], 'password': 'p',
                  'sentinel_group_name': 'mine'},
     'redis://:p@h1:1?sentinel=mine&sentinel_fallback=%5B%3A%3A1%5D%3A2'),
    ('etcd', {'host': 'redis-host'}, 'etcd3+http://localhost:2379')])
def test_legacy_options(name, legacy, expected):
    assert backend(matchmaker=name, legacy=legacy) == expected


def test_transport_url_wins_over_legacy_hosts():
    assert backend('zmq+redis://h', legacy={'host': 'x', 'port': 9}) == (
        'redis://h:6379')


def test_sentinel_group_option_wins_over_the_legacy_one():
    url = backend('zmq+sentinel://h', sentinel_group='mine',
                  legacy={'sentinel_group_name': 'theirs'})
    assert dict(parse.parse_qsl(parse.urlsplit(url).query)) == {
        'sentinel': 'mine'}


@pytest.mark.parametrize('transport_url, matchmaker, option', [
    ('zmq+mongo://', 'embedded', 'transport_url'),
    ('zmq+embedded://', 'embedded', 'transport_url'),
    ('zmq+redis://h1,h2', 'embedded', 'transport_url'),
    ('zmq+etcd://h1,h2', 'embedded', 'transport_url'),
    ('zmq+etcd://u:p@h1', 'embedded', 'transport_url'),
    ('zmq+zookeeper://a:b@h1,c:d@h2', 'embedded', 'transport_url'),
    ('zmq://', 'MatchMakerRing', 'rpc_zmq_matchmaker'),
    ('zmq://', 'nonsense', 'rpc_zmq_matchmaker'),
    ('zmq://', 'redis://h:port', 'rpc_zmq_matchmaker'),
    ('zmq://', 'redis://h/2', 'rpc_zmq_matchmaker'),
    ('zmq://', 'redis://h1,h2', 'rpc_zmq_matchmaker'),
    ('zmq://', 'etcd3+http://u:p@h', 'rpc_zmq_matchmaker')])
def test_what_cannot_work_is_refused_by_name(transport_url, matchmaker,
                                             option):
    with pytest.raises(ValueError, match=f'^{option}: '):
        backend(transport_url, matchmaker)


# Engines of tooz that cannot be the registry


def test_files_of_tooz_are_refused_for_those_of_ours():
    with pytest.raises(ValueError, match='^rpc_zmq_matchmaker: .*file.*'
                       'embedded.*rpc_zmq_ipc_dir'):
        backend(matchmaker='file:///var/lib/registry')


def engines_of_tooz():
    """Each scheme, and whether its driver gives all records of a group."""
    for entry in importlib.metadata.entry_points(group='tooz.backends'):
        # Not imported: most of their libraries are not installed.
        source = importlib.util.find_spec(entry.module).origin
        with open(source) as text:
            yield entry.name, ('def get_members_with_capabilities('
                               in text.read())


@pytest.mark.parametrize('scheme, lists', [
    each for each in engines_of_tooz() if each[0] != 'file'])
def test_engine_that_does_not_give_all_records_is_refused(scheme, lists):
    if lists:
        assert backend(matchmaker=f'{scheme}://h') == f'{scheme}://h'
        return
    with pytest.raises(ValueError,
                       match=f'^rpc_zmq_matchmaker: .*{scheme}.*redis'):
        backend(matchmaker=f'{scheme}://me:s3cret@h/path')


def test_refusal_of_an_engine_reaches_who_starts_the_service():
    for url in ('file:///x', 'mysql://u:p@h/db'):
        with pytest.raises(errors.ConfigurationError,
                           match='^rpc_zmq_matchmaker: '):
            registry_of('zmq://', rpc_zmq_matchmaker=url)


# The virtual host of the transport URL


def registry_of(transport_url, **query):
    """Where a real transport looks; nothing is connected."""
    if query:
        transport_url += '?' + parse.urlencode(query)
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, transport_url)
    return transport._driver._settings.matchmaker


@pytest.mark.parametrize('virtual_host', ['', '/', '//', '/%2F'])
@pytest.mark.parametrize('place, registry', [
    ('zmq://', 'embedded'), ('zmq+redis://h1', 'redis://h1:6379'),
    ('zmq+etcd://h1', 'etcd3+http://h1:2379')])
def test_no_virtual_host_however_it_is_written(place, registry, virtual_host):
    assert registry_of(place + virtual_host) == registry


@pytest.mark.parametrize('url, registry', [
    ('zmq+redis://h1/2', 'redis://h1:6379?db=2'),
    ('zmq+redis://:p%40@h1/0?rpc_zmq_host=x', 'redis://:p%40@h1:6379?db=0'),
    ('zmq+sentinel://h1/12', 'redis://h1:26379?'
     'sentinel=oslo-messaging-zeromq&db=12')])
def test_virtual_host_of_redis_is_the_number_of_its_database(url, registry):
    assert registry_of(url) == registry


@pytest.mark.parametrize('matchmaker, registry', [
    ('redis', 'redis://localhost:6379?db=2'),
    ('redis://h', 'redis://h?db=2'), ('redis://h?db=2', 'redis://h?db=2')])
def test_virtual_host_of_a_plain_url_is_for_the_registry_that_is_named(
        matchmaker, registry):
    assert registry_of('zmq:///2', rpc_zmq_matchmaker=matchmaker) == registry


@pytest.mark.parametrize('url', [
    'zmq+redis://h1/cloudA', 'zmq+redis://h1/-1', 'zmq+redis://h1//2',
    'zmq+redis://h1/²', 'zmq+sentinel://h1/cloudA',
    'zmq+etcd://h1/cloudA', 'zmq+zookeeper://h1/2', 'zmq:///cloudA',
    'zmq:///2'])
def test_other_virtual_host_is_refused_by_name(url):
    name = oslo_messaging.TransportURL.parse(cfg.CONF, url).virtual_host
    with pytest.raises(errors.ConfigurationError,
                       match=f"^transport_url: .*'{name}'"):
        registry_of(url)


def test_refused_virtual_host_of_the_embedded_registry_says_what_to_do():
    with pytest.raises(errors.ConfigurationError, match='rpc_zmq_ipc_dir'):
        registry_of('zmq:///cloudA')


def test_two_different_databases_are_refused():
    with pytest.raises(errors.ConfigurationError,
                       match='^transport_url: .*2.*rpc_zmq_matchmaker.*3'):
        registry_of('zmq:///2', rpc_zmq_matchmaker='redis://h?db=3')


# IPv6 in a list of hosts: Python's URL parser takes that in old releases only,
# and each Python is to refuse the same configurations.


@pytest.mark.parametrize('others', [
    [('::1', 2, None, None)], [('::1', None, None, 'pw')],
    [('h2', 2, None, None), ('fe80::1', 3, None, None)]])
@pytest.mark.parametrize('scheme', ['sentinel', 'zookeeper'])
def test_ipv6_in_a_list_of_a_transport_url_is_refused_by_name(scheme, others):
    for hosts in ([('h1', 1, None, None), *others],
                  [*others, ('h1', 1, None, None)]):
        with pytest.raises(ValueError, match=r'^transport_url: .*\[.*::1\]'):
            registry_url.backend(scheme, hosts, 'embedded')


@pytest.mark.parametrize('url', [
    'zookeeper://a:1,[::1]:2', 'zookeeper://[::1]:1,b', 'redis://a,[::1]',
    'zookeeper://u:s3cret@a,u:s3cret@[::1]:2/chroot?timeout=3'])
def test_ipv6_in_a_list_of_a_tooz_url_is_refused_by_name(url):
    with pytest.raises(ValueError, match='^rpc_zmq_matchmaker: ') as refusal:
        backend(matchmaker=url)
    assert '[::1]' in str(refusal.value)
    assert 's3cret' not in str(refusal.value)


@pytest.mark.parametrize('url', [
    'redis://[', 'zookeeper://a]b', 'redis://[x]'])
def test_what_is_no_url_is_refused_by_name(url):
    with pytest.raises(ValueError, match='^rpc_zmq_matchmaker: '):
        backend(matchmaker=url)


@pytest.mark.parametrize('url', [
    'zmq+sentinel://h1:1,[::1]:2,h3', 'zmq+zookeeper://[::1],h2'])
def test_ipv6_in_a_list_reaches_nobody(url):
    """Where oslo.messaging itself does not refuse the URL (it does so without
    a name), the driver does.
    """
    with pytest.raises(ValueError, match='IPv6'):
        try:
            oslo_messaging.get_rpc_transport(cfg.CONF, url)
        except errors.ConfigurationError as error:
            raise ValueError(str(error)) from None


def test_bad_sentinel_hosts_are_refused_by_name():
    with pytest.raises(ValueError, match='^sentinel_hosts: '):
        backend(matchmaker='sentinel', legacy={'sentinel_hosts': ['h:port']})


@pytest.mark.parametrize('url', [
    'zmq+redis://:s3cret@h1', 'zmq+sentinel://me:s3cret@h1,me:s3cret@h2',
    'zmq+zookeeper://me:s3cret@h1,h2'])
def test_no_password_is_shown(url):
    shown = tooz_url.without_password(backend(url))
    assert 's3cret' not in shown
    assert 'h1' in shown


def test_no_password_of_a_query_is_shown():
    shown = tooz_url.without_password(
        'redis://a:s3cret@h?sentinel=x&sentinel_password=s3cret&db=1')
    assert shown == 'redis://a:***@h?sentinel=x&sentinel_password=***&db=1'


def test_a_refusal_shows_no_password():
    for url in ('redis://:s3cret@h:port', 'etcd3+http://u:s3cret@h'):
        with pytest.raises(ValueError) as refusal:
            backend(matchmaker=url)
        assert 's3cret' not in str(refusal.value)


@pytest.mark.parametrize('url, name', [
    ('redis://h', 'membership_timeout'), ('zookeeper://h', 'timeout'),
    ('etcd3+http://h', 'membership_timeout')])
def test_life_of_a_record_is_the_options(url, name):
    assert tooz_url.options(f'{url}?{name}=99', 7)[name] == '7'


@pytest.mark.parametrize('url, name', [
    ('redis://h', 'socket_timeout'), ('etcd3+http://h', 'timeout')])
def test_timeouts_are_explicit_and_may_be_set(url, name):
    assert float(tooz_url.options(url, 30)[name]) < 10
    assert tooz_url.options(f'{url}?{name}=99', 30)[name] == '99'


def test_all_sentinels_are_passed_on():
    url = backend('zmq+sentinel://h1,h2,h3')
    assert tooz_url.options(url, 30)['sentinel_fallback'] == [
        'h2:26379', 'h3:26379']


# Hosts for which there is no registry, and ports that are none


@pytest.mark.parametrize('url, meant', [
    ('zmq://host1:5672,host2:5672', 'zmq+sentinel://host1:26379,host2:26379'),
    ('zmq://guest:guest@h/', 'zmq+redis://h:6379'),
    ('zmq://guest:guest@h:5672/', 'zmq+redis://h:6379'),
    ('zmq://localhost', 'zmq+redis://localhost:6379'),
    ('zmq://:5672', 'zmq+redis://HOST:6379')])
def test_hosts_without_a_registry_are_refused_with_what_was_meant(url, meant):
    with pytest.raises(errors.ConfigurationError,
                       match='^transport_url: ') as refusal:
        registry_of(url)
    assert f' {meant}, ' in str(refusal.value)
    assert 'guest' not in str(refusal.value)


@pytest.mark.parametrize('port', [0, 65536, 99999])
def test_port_that_is_none_is_refused_by_name(port):
    for option, url, matchmaker, hosts in [
            ('transport_url', f'zmq+redis://h:{port}', 'embedded', []),
            ('transport_url', f'zmq+sentinel://h1:1,h2:{port}', 'x', []),
            ('rpc_zmq_matchmaker', 'zmq://', f'redis://h:{port}', []),
            ('rpc_zmq_matchmaker', 'zmq://', f'zookeeper://a:{port},b', []),
            ('rpc_zmq_matchmaker', 'zmq://', 'redis://h:1?sentinel=x'
             f'&sentinel_fallback=h2:{port}', []),
            ('sentinel_hosts', 'zmq://', 'sentinel', [f'h:{port}'])]:
        with pytest.raises(ValueError, match=f'^{option}: .*port'):
            backend(url, matchmaker, legacy={'sentinel_hosts': hosts})


@pytest.mark.parametrize('url', [
    'zookeeper://[::1]:2', 'zookeeper://u:p@[fe80::1%eth0]:2'])
def test_one_ipv6_address_is_a_host(url):
    assert backend(matchmaker=url) == url
    assert ':2' in tooz_url.place(url)


def test_ipv6_addresses_of_sentinels():
    url = backend(matchmaker='sentinel',
                  legacy={'sentinel_hosts': ['::1', '[::2]:7', 'h']})
    assert tooz_url.place(url) == (
        'redis by the sentinels [::1]:26379, [::2]:7, h:26379')


# No part of a password in what is refused or shown


UNPARSABLE = [
    'redis://:{}/word@127.0.0.1:1', 'redis://:{}#x@127.0.0.1:1',
    'redis://:{}?x@127.0.0.1:1', 'redis://[{}@h', 'redis://:x]{}@h:p',
    'redis://:12345678/{}@h', 'redis://:1/{}@h', 'redis://u:{}@h:port',
    'redis://:{}@h/0', 'redis://:{}@h1,h2', 'zookeeper://u:{}/x@h',
    'zookeeper://u:{}#@h', ':{}@h://', 'redis:{}@h',
    'etcd3+http://u:{}@h', 'redis://h?sentinel_fallback=u:{}@x',
    'redis://{}@h:x', 'file://:{}@/x', 'mysql://u:{}@h/x']


@pytest.mark.parametrize('url', UNPARSABLE)
@pytest.mark.parametrize('secret', ['s3cr3tPW', '87654321', 's3c,r3t'])
def test_no_part_of_a_password_is_in_a_refusal(url, secret):
    try:
        registry_of('zmq://', rpc_zmq_matchmaker=url.format(secret))
    except errors.ConfigurationError as refusal:
        error, texts = refusal, ''
        while error is not None:
            texts += str(error)
            error = error.__cause__ or error.__context__
        assert secret not in texts and secret[:5] not in texts
        assert texts.startswith('rpc_zmq_matchmaker: ')


def test_no_part_of_a_password_is_in_a_refused_virtual_host():
    with pytest.raises(errors.ConfigurationError) as refusal:
        registry_of('zmq+redis://:1234/s3cret@h:1')
    assert 's3cret' not in str(refusal.value)


@pytest.mark.parametrize('name', ['passwd', 'sentinel_kwargs', 'token', 'x',
                                  'sentinel_password', 'ssl_keyfile'])
def test_values_that_may_be_secrets_are_not_shown(name):
    shown = tooz_url.without_password(f'redis://h?{name}=s3cret&db=1')
    assert shown == f'redis://h?{name}=***&db=1'


def test_a_name_that_stands_alone_may_be_a_password():
    assert tooz_url.without_password('redis://s3cret@h') == (
        'redis://***@h')


@pytest.mark.parametrize('url, place', [
    ('redis://u:p%2Fw@h:1?db=2', 'redis at h:1'),
    ('redis:///run/redis.sock', 'redis at /run/redis.sock'),
    ('zookeeper://u:p@a:1,b', 'zookeeper at a:1, b'),
    ('etcd3+https://h:1', 'etcd with TLS at h:1'),
    ('redis://h:1?ssl=true', 'redis with TLS at h:1'),
    ('redis://h:1?ssl=false', 'redis at h:1'),
    ('redis://:p@h1:1?sentinel=x&sentinel_fallback=h2:2',
     'redis by the sentinels h1:1, h2:2')])
def test_place_of_the_registry(url, place):
    assert tooz_url.place(url) == place


def test_passwords_are_taken_out_of_texts():
    hide = tooz_url.hider('redis://u:p%40ss%2Fword@h?token=t0ken&db=12')
    assert hide('p@ss/word, p%40ss%2Fword, t0ken, db 12') == (
        '***, ***, ***, db 12')
    assert tooz_url.hider('redis://h')('redis') == 'redis'


def test_hosts_beside_a_registry_by_url_are_refused_and_named():
    with pytest.raises(ValueError) as raised:
        backend('zmq://user:secret@host1,host2', 'redis://:pw@there:6379')
    text = str(raised.value)
    assert 'host1, host2' in text and 'rpc_zmq_matchmaker' in text
    assert 'remove' in text and 'secret' not in text and 'pw' not in text


# TLS


@pytest.mark.parametrize('transport_url, expected', [
    ('zmq+redis://me:p%40@h?ssl=true&ssl_ca_certs=/e/ca.pem',
     'redis://me:p%40@h:6379?ssl=true&ssl_ca_certs=%2Fe%2Fca.pem'),
    ('zmq+redis://h?ssl=True&ssl_certfile=/c&ssl_keyfile=/k',
     'redis://h:6379?ssl=True&ssl_certfile=%2Fc&ssl_keyfile=%2Fk'),
    ('zmq+redis://h?ssl=no', 'redis://h:6379?ssl=no'),
    ('zmq+sentinel://h1,h2?ssl=true&sentinel_ssl=true'
     '&sentinel_username=u&sentinel_password=p+%2B',
     'redis://h1:26379?sentinel=oslo-messaging-zeromq'
     '&sentinel_fallback=h2%3A26379&sentinel_password=p%20%2B'
     '&sentinel_ssl=true&sentinel_username=u&ssl=true'),
    ('zmq+etcd://h?ssl=true', 'etcd3+https://h:2379'),
    ('zmq+etcd://h?ssl=false', 'etcd3+http://h:2379'),
    ('zmq+etcd://h?ssl=true&ssl_ca_certs=/ca&ssl_certfile=/c&ssl_keyfile=/k',
     'etcd3+https://h:2379?ca_cert=%2Fca&cert_cert=%2Fc&cert_key=%2Fk')])
def test_tls_of_a_transport_url(transport_url, expected):
    assert backend(transport_url) == expected


def test_tls_of_a_registry_that_is_named():
    assert backend('zmq://h?ssl=true', 'redis') == 'redis://h:6379?ssl=true'
    assert registry_of('zmq+redis://h/2', ssl='true') == (
        'redis://h:6379?ssl=true&db=2')


@pytest.mark.parametrize('query', [
    'ssl_ca_certs=/ca', 'ssl_certfile=/c', 'ssl=maybe', 'ssl=required',
    'ssl=false&ssl_ca_certs=/ca', 'ssl=true&ssl_keyfile=/k',
    'sentinel_ssl=true', 'sentinel_password=s3cret', 'ssl='])
@pytest.mark.parametrize('scheme', ['redis', 'etcd'])
def test_tls_that_would_be_ignored_is_refused(scheme, query):
    for option, url, matchmaker in [
            ('transport_url', f'zmq+{scheme}://:x@h?{query}', 'x'),
            ('rpc_zmq_matchmaker', 'zmq://', f'redis://:x@h?{query}')]:
        if scheme == 'etcd':
            url = url.replace(':x@', '')
        if query == 'ssl=' and option == 'transport_url':
            continue    # oslo.messaging leaves out what has no value
        with pytest.raises(ValueError, match=f'^{option}: ') as refusal:
            backend(url, matchmaker)
        assert 's3cret' not in str(refusal.value)


@pytest.mark.parametrize('url', [
    'redis://h?ssl=true&ssl_cacerts=/ca', 'redis://h?ssl_cert_reqs=none',
    'redis://h?sentinel=x&sentinel_tls=true', 'redis://h?ssl=true&ssl_ca_certs=',
    'etcd3+http://h?ca_cert=/ca', 'etcd3+https://h?cert_cert=/c',
    'etcd3+https://h?cert_key=/k', 'etcd3+https://h?ca_cert='])
def test_tls_of_a_tooz_url_that_would_be_ignored_is_refused(url):
    with pytest.raises(ValueError, match='^rpc_zmq_matchmaker: '):
        backend(matchmaker=url)


@pytest.mark.parametrize('url, matchmaker', [
    ('zmq+zookeeper://h?ssl=true', 'x'), ('zmq://?ssl=true', 'embedded'),
    ('zmq://?ssl_ca_certs=/ca', 'embedded'), ('zmq://?ssl=true', 'redis://h'),
    ('zmq+redis://h?sentinel_ssl=true', 'x')])
def test_tls_where_it_means_nothing_is_refused(url, matchmaker):
    with pytest.raises(ValueError, match='^transport_url: .*ssl'):
        backend(url, matchmaker)


def test_rediss_is_refused_with_what_is_meant():
    with pytest.raises(errors.ConfigurationError, match='ssl=true'):
        registry_of('zmq://', rpc_zmq_matchmaker='rediss://:s3cret@h')


def test_a_password_with_a_space_is_taken_out_of_texts():
    hide = tooz_url.hider('redis://h?sentinel=x&sentinel_password=a+b%2Bc')
    assert hide('a b+c, a+b%2Bc') == '***, ***'
