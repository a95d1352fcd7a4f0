# SPDX-License-Identifier: Apache-2.0
"""Where the registry is: from what operators write to a tooz URL (pure).

Credentials in these URLs are percent-encoded; tooz does not decode them, the
matchmaker does.
"""

import re
from urllib import parse

_EMBEDDED = ('', 'embedded', 'dummy', 'local', 'matchmakerlocalhost')
# What operators write: the engine, and its port.
_ENGINES = {'redis': ('redis', 6379), 'matchmakerredis': ('redis', 6379),
            'sentinel': ('sentinel', 26379),
            'matchmakersentinel': ('sentinel', 26379),
            'etcd': ('etcd', 2379), 'zookeeper': ('zookeeper', 2181)}
_SCHEMES = {'redis': 'redis', 'sentinel': 'redis', 'etcd': 'etcd3+http',
            'zookeeper': 'zookeeper'}
# They do not give all records of a group at once, which look-ups need.
_CANNOT_LIST = ('ipc', 'kubernetes', 'mysql', 'postgresql')
_SENTINEL_GROUP = 'oslo-messaging-zeromq'    # the default of old
_OPTION = 'rpc_zmq_matchmaker'
# Seconds. For an engine that does not answer at all; its client adds retries.
_SOCKET_TIMEOUT = 3.0
_LONGEST_RECONNECT_INTERVAL = 1.0


def backend(scheme, hosts, matchmaker, sentinel_group=None, legacy=None):
    """The tooz URL of the registry, or None for the embedded one.

    :param scheme: what follows ``zmq+`` in the transport URL, or ''
    :param hosts: of the transport URL: (hostname, port, username, password)
        tuples, decoded, each part may be None
    :param matchmaker: value of rpc_zmq_matchmaker: a name or a tooz URL; the
        scheme wins over it
    :param sentinel_group: name of the group that the sentinels watch
    :param legacy: those options of [matchmaker_redis] that are set
    :raises: ValueError, naming the option
    """
    if not scheme and '://' in matchmaker:
        return _checked(matchmaker)
    name = (scheme or matchmaker.rpartition('.')[2]).lower()
    if name in _EMBEDDED and not scheme:
        return None
    if name not in _ENGINES:
        where = 'transport_url: zmq+' if scheme else f'{_OPTION}: '
        raise ValueError(
            f'{where}{name} is no registry; there are redis, sentinel, etcd '
            f'and zookeeper, tooz URLs of these in {_OPTION}, and embedded')
    engine, port = _ENGINES[name]
    legacy = legacy or {}
    given = _places(hosts)
    _refuse_ipv6_in_a_list([_address(each[0], port) for each in given],
                           'transport_url')
    places = given or _legacy_places(engine, legacy)
    return _url(engine, port, places, legacy,
                sentinel_group or legacy.get('sentinel_group_name')
                or _SENTINEL_GROUP)


def of_virtual_host(url, virtual_host):
    """The registry of one of the clouds that a virtual host keeps apart.

    Who asks for one and does not get it would meet the others in silence,
    and run their calls: so all that cannot be kept apart is refused.

    :param url: of tooz, or the name of the embedded registry
    :param virtual_host: of the transport URL; None, '' and '/' are none
    :raises: ValueError, naming it
    """
    if virtual_host in (None, '', '/'):
        return url
    parts = parse.urlsplit(url)
    if parts.scheme != 'redis':
        instead = 'a registry' if parts.scheme else 'an rpc_zmq_ipc_dir'
        raise ValueError(
            f'transport_url: the virtual host {virtual_host!r} cannot be had '
            f'here; give each cloud {instead} of its own')
    if not (virtual_host.isascii() and virtual_host.isdigit()):
        raise ValueError(
            f'transport_url: the virtual host of redis is the number of a '
            f'database, not {virtual_host!r}')
    return _in_database(parts, int(virtual_host))


def without_password(url):
    """The URL as a log may show it."""
    parts = parse.urlsplit(url)
    netloc = ','.join(_hidden(place) for place in parts.netloc.split(','))
    query = '&'.join(
        f'{name}=***' if 'password' in name.lower() else f'{name}={value}'
        for name, value in (each.partition('=')[::2]
                            for each in parts.query.split('&') if each))
    return parse.urlunsplit(parts._replace(netloc=netloc, query=query))


def options(url, expire):
    """The options that tooz is given beside its URL: explicit timeouts. Those
    of the URL win, but for the life of a record, which is zmq_target_expire.

    :param expire: seconds
    :returns: dict of name to value
    """
    parts = parse.urlsplit(url)
    query = dict(parse.parse_qsl(parts.query))
    if parts.scheme in ('zookeeper', 'kazoo'):
        # Jittered by kazoo; its own limit is a minute.
        return {**query, 'timeout': str(int(expire)),
                'connection_retry': {
                    'max_tries': -1, 'max_jitter': 1.0,
                    'max_delay': _LONGEST_RECONNECT_INTERVAL}}
    life = {'membership_timeout': str(int(expire)), 'executor': 'sync'}
    if parts.scheme != 'redis':
        return {'timeout': str(int(_SOCKET_TIMEOUT)), **query, **life}
    others = parse.parse_qs(parts.query).get('sentinel_fallback')
    return {'socket_timeout': str(_SOCKET_TIMEOUT),
            'socket_connect_timeout': str(_SOCKET_TIMEOUT),
            'socket_keepalive': 'true', **query, **life,
            **({'sentinel_fallback': others} if others else {})}


def _in_database(parts, number):
    given = dict(parse.parse_qsl(parts.query)).get('db', str(number))
    if given != str(number):
        raise ValueError(f'transport_url: its virtual host is database '
                         f'{number}, but {_OPTION} has db={given}')
    query = [each for each in parts.query.split('&')
             if each and not each.startswith('db=')]
    return parse.urlunsplit(
        parts._replace(query='&'.join([*query, f'db={number}'])))


def _checked(url):
    _refuse_ipv6_in_a_list(_hosts(url), _OPTION)
    try:
        parts = parse.urlsplit(url)
    except ValueError as error:
        raise ValueError(f'{_OPTION}: {error}') from None
    _refuse_engine(parts.scheme)
    try:
        # The last host's: urlsplit knows of one only.
        parts._replace(netloc=parts.netloc.rpartition(',')[2]).port
    except ValueError as error:
        raise ValueError(f'{_OPTION}: {error}') from None
    if parts.scheme == 'redis' and parts.path.strip('/') and parts.netloc:
        raise ValueError(f'{_OPTION}: the number of a redis database is given '
                         'as ?db=NUMBER, not in the path')
    if parts.scheme == 'redis' and ',' in parts.netloc:
        raise ValueError(f'{_OPTION}: redis has one host; for sentinels give '
                         '?sentinel=GROUP&sentinel_fallback=HOST:PORT')
    if parts.scheme.startswith('etcd') and '@' in parts.netloc:
        raise ValueError(f'{_OPTION}: tooz sends no password to etcd')
    return url


def _hosts(url):
    """What stands between the commas, where urlsplit may refuse the URL."""
    netloc = re.split('[/?#]', url.partition('://')[2], maxsplit=1)[0]
    return [each.rpartition('@')[2] for each in netloc.split(',')]


def _refuse_ipv6_in_a_list(addresses, option):
    """Python's urllib takes them in a list of hosts no more (since 3.11.12,
    3.12.9 and 3.13.2), and so neither oslo.messaging nor tooz.
    """
    literals = [each for each in addresses if each.startswith('[')]
    if literals and len(addresses) > 1:
        raise ValueError(
            f'{option}: an IPv6 address ({literals[0]}) cannot stand in a '
            'list of hosts; give names that lead to these addresses')


def _refuse_engine(scheme):
    if scheme == 'file':
        # It would lack what makes the embedded one safe with forks and kills.
        raise ValueError(
            f'{_OPTION}: file:// is not supported; for a registry in files '
            'set embedded, and its place with rpc_zmq_ipc_dir')
    if scheme in _CANNOT_LIST:
        raise ValueError(f'{_OPTION}: {scheme} cannot be the registry; there '
                         'are redis, etcd3+http, etcd3+https and zookeeper')


def _places(hosts):
    return [each for each in hosts if any(each)]


def _legacy_places(engine, legacy):
    """What [matchmaker_redis] says; it was about redis and sentinel only."""
    password = legacy.get('password') or None
    if engine == 'redis' and legacy.keys() & {'host', 'port', 'password'}:
        return [(legacy.get('host'), legacy.get('port'), None, password)]
    if engine == 'sentinel':
        return [(*_host_and_port(each), None, password)
                for each in legacy.get('sentinel_hosts') or ()]
    return []


def _host_and_port(text):
    try:
        parts = parse.urlsplit(f'//{text.strip()}')
        return parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f'sentinel_hosts: {text!r}: {error}') from None


def _url(engine, default_port, places, legacy, group):
    places = places or [(None, None, None, None)]
    if len(places) > 1 and engine in ('redis', 'etcd'):
        hint = ('; use zmq+sentinel:// for several' if engine == 'redis' else
                '; give a name or address that leads to all of them')
        raise ValueError(f'transport_url: {engine} has one host here{hint}')
    addresses = [_address(host, port or default_port)
                 for host, port, _, _ in places]
    credentials = _credentials(engine, places)
    query = _query(engine, addresses, legacy, group)
    netloc = ','.join(addresses if engine == 'zookeeper' else addresses[:1])
    return parse.urlunsplit((_SCHEMES[engine], credentials + netloc, '',
                             query, ''))


def _address(host, port):
    host = host or 'localhost'
    return f'[{host}]:{port}' if ':' in host else f'{host}:{port}'


def _credentials(engine, places):
    given = {(username or '', password or '')
             for _, _, username, password in places if username or password}
    if not given:
        return ''
    if len(given) > 1:
        raise ValueError('transport_url: all hosts of the registry have one '
                         'username and password')
    if engine == 'etcd':
        raise ValueError('transport_url: tooz sends no password to etcd')
    return ':'.join(parse.quote(part, safe='') for part in given.pop()) + '@'


def _query(engine, addresses, legacy, group):
    query = []
    if engine == 'sentinel':
        query = [('sentinel', group), *(('sentinel_fallback', address)
                                        for address in addresses[1:])]
    if _SCHEMES[engine] == 'redis' and legacy.get('socket_timeout'):
        # Milliseconds of old.
        query.append(('socket_timeout', int(legacy['socket_timeout']) / 1000))
    return parse.urlencode(query)


def _hidden(place):
    credentials, at, address = place.rpartition('@')
    username = credentials.partition(':')[0]
    return f'{username}:***{at}{address}' if at else place
