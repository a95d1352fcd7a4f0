# SPDX-License-Identifier: Apache-2.0
"""Where the registry is: from what operators write to a tooz URL (pure).

Credentials in these URLs are percent-encoded; tooz does not decode them, the
matchmaker does. What cannot be parsed is never shown: a password may be
anywhere in it.
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
_ESCAPE = ('characters like / ? # @ [ and % in a name or password are written '
           'percent-encoded, as %2F for /')
_NAME = re.compile(r'[\w.+-]*', re.ASCII)
_LITERAL = r'\[[0-9a-fA-F.]*:[0-9a-fA-F:.]*(%[\w.-]*)?\]'
_IPV6 = re.compile(rf'{_LITERAL}(:\d*)?$', re.ASCII)
_PLACE = re.compile(rf'(?P<host>[\w.-]*|{_LITERAL})(:(?P<port>\d*))?',
                    re.ASCII)
# Of the query of a URL; the values of others may be secrets.
_SHOWN = {'db', 'sentinel', 'sentinel_fallback', 'timeout', 'socket_timeout',
          'socket_connect_timeout', 'socket_keepalive', 'ssl', 'sentinel_ssl',
          'health_check_interval', 'ssl_certfile', 'ssl_ca_certs', 'encoding',
          'retry_on_timeout', 'membership_timeout', 'lock_timeout', 'hosts',
          'namespace', 'ca_cert', 'cert_cert', 'api_version', 'use_ssl'}
# As oslo.utils reads it.
_TRUE = ('1', 't', 'true', 'on', 'y', 'yes')
# A secret that is shorter is not looked for in texts: it is in most.
_SHORTEST_SECRET = 3


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
        _refuse_one_of_two(_addresses(hosts))
        return _checked(matchmaker)
    name = (scheme or matchmaker.rpartition('.')[2]).lower()
    if name in _EMBEDDED and not scheme:
        _refuse_hosts(_addresses(hosts))
        return None
    if name not in _ENGINES:
        where = 'transport_url: zmq+' if scheme else f'{_OPTION}: '
        shown = name if _NAME.fullmatch(name) else 'what it says'
        raise ValueError(
            f'{where}{shown} is no registry; there are redis, sentinel, etcd '
            f'and zookeeper, tooz URLs of these in {_OPTION}, and embedded')
    engine, port = _ENGINES[name]
    legacy = legacy or {}
    given = _addresses(hosts)
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
    parts = split(url)
    if '@' in virtual_host:
        raise ValueError(f'transport_url: its virtual host has an @; '
                         f'{_ESCAPE}')
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


def split(url):
    """The parts of a URL: as urlsplit() gives them, which refuses lists of
    hosts with IPv6 addresses in some Pythons, and shows what it refuses.
    """
    scheme, there, rest = url.partition('://')
    if not there:
        return parse.SplitResult('', '', url, '', '')
    rest, _, fragment = rest.partition('#')
    rest, _, query = rest.partition('?')
    netloc, slash, path = rest.partition('/')
    return parse.SplitResult(scheme.lower(), netloc, slash + path, query,
                             fragment)


def without_password(url):
    """The URL as a log may show it."""
    parts = split(url)
    netloc = ','.join(_hidden(place) for place in parts.netloc.split(','))
    query = '&'.join(
        f'{name}={value}' if name in _SHOWN else f'{name}=***'
        for name, value in (each.partition('=')[::2]
                            for each in parts.query.split('&') if each))
    return parse.urlunsplit(parts._replace(netloc=netloc, query=query))


def place(url):
    """The engine of a tooz URL and where it is, as a log may show it."""
    parts = split(url)
    query = parse.parse_qs(parts.query)
    hosts = [each.rpartition('@')[2] for each in parts.netloc.split(',')]
    # Who speaks TLS to a server that does not waits in vain.
    tls = (' with TLS' if parts.scheme.endswith('https')
           or query.get('ssl', [''])[0].lower() in _TRUE else '')
    if 'sentinel' in query:
        hosts += query.get('sentinel_fallback', [])
        return f'redis{tls} by the sentinels {", ".join(hosts)}'
    engine = parts.scheme.partition('+')[0].replace('etcd3', 'etcd') + tls
    where = ', '.join(each for each in hosts if each) or parts.path
    return f'{engine} at {where}' if where else engine


def hider(url):
    """A function that takes the passwords of a URL out of a text."""
    parts = split(url)
    found = [parts.netloc.rpartition('@')[0].partition(':')[2]]
    found += [value for name, _, value in (
        each.partition('=') for each in parts.query.split('&'))
        if name not in _SHOWN]
    secrets = {form for each in found for form in (
        each, parse.unquote(each), parse.quote(parse.unquote(each)))
        if len(form) >= _SHORTEST_SECRET}

    def hide(text):
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, '***')
        return text
    return hide


def options(url, expire):
    """The options that tooz is given beside its URL: explicit timeouts. Those
    of the URL win, but for the life of a record, which is zmq_target_expire.

    :param expire: seconds
    :returns: dict of name to value
    """
    parts = split(url)
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


def _refuse_hosts(places):
    """With the embedded registry each node would be an island."""
    if not places:
        return
    # Without what may be a password, and without the ports of rabbit.
    hosts = [host for host, *_ in places
             if host and _NAME.fullmatch(host)] or ['HOST']
    meant = (f'zmq+redis://{hosts[0]}:6379' if len(hosts) == 1 else
             'zmq+sentinel://' + ','.join(f'{host}:26379' for host in hosts))
    raise ValueError(
        'transport_url: zmq:// has no host, for its registry is on this '
        f'machine; for a registry on another one write {meant}, or '
        'zmq+etcd:// or zmq+zookeeper://, for services on one machine only '
        'zmq://')


def _refuse_one_of_two(places):
    """Both would name the registry, and one would be ignored."""
    if places:
        hosts = ', '.join(host for host, *_ in places
                          if host and _NAME.fullmatch(host)) or 'its hosts'
        raise ValueError(
            f'transport_url: the registry is what {_OPTION} says, a URL, and '
            f'zmq:// has no host; remove {hosts} from transport_url, or, if '
            f'the registry is there, remove {_OPTION} and write '
            'zmq+redis://HOST:6379 or the like')


def _checked(url):
    _refuse_ipv6_in_a_list(_hosts(url), _OPTION)
    parts = split(url)
    if not _NAME.fullmatch(parts.scheme):
        raise ValueError(f'{_OPTION}: it is no URL of tooz')
    _refuse_engine(parts.scheme)
    if parts.fragment or '@' in parts.path:
        raise ValueError(f'{_OPTION}: it is no URL of tooz; {_ESCAPE}')
    for each in parts.netloc.split(','):
        _check_place(_OPTION, each.rpartition('@')[2])
    for each in parse.parse_qs(parts.query).get('sentinel_fallback', ()):
        _check_place(f'{_OPTION}: sentinel_fallback', each)
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
    return [each.rpartition('@')[2] for each in split(url).netloc.split(',')]


def _refuse_ipv6_in_a_list(addresses, option):
    """Python's urllib takes them in a list of hosts no more (since 3.11.12,
    3.12.9 and 3.13.2), and so neither oslo.messaging nor tooz.
    """
    literals = [each for each in addresses if _IPV6.match(each)]
    if literals and len(addresses) > 1:
        raise ValueError(
            f'{option}: an IPv6 address ({literals[0]}) cannot stand in a '
            'list of hosts; give names that lead to these addresses')


def _check_place(option, text):
    """:raises: ValueError, which does not show it"""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise ValueError(f'{option}: a host is not HOST:PORT, with a port '
                         f'from 1 to 65535; {_ESCAPE}')
    if found['port']:
        _check_port(option, int(found['port'][:6]))
    return found['host'].strip('[]') or None, int(found['port'] or 0) or None


def _check_port(option, port):
    if port is not None and not 0 < port < 65536:
        # Not shown: it may be the beginning of a password.
        raise ValueError(f'{option}: a port is not from 1 to 65535')


def _refuse_engine(scheme):
    if scheme == 'file':
        # It would lack what makes the embedded one safe with forks and kills.
        raise ValueError(f'{_OPTION}: file:// is not supported; for a '
                         'registry in files set embedded, and its place with '
                         'rpc_zmq_ipc_dir')
    if scheme in _CANNOT_LIST:
        raise ValueError(f'{_OPTION}: {scheme} cannot be the registry; there '
                         'are redis, etcd3+http, etcd3+https and zookeeper')


def _addresses(hosts):
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
    text = text.strip()
    # An IPv6 address alone has no brackets.
    if text.count(':') > 1 and not text.startswith('['):
        text = f'[{text}]'
    return _check_place('sentinel_hosts', text)


def _url(engine, default_port, places, legacy, group):
    places = places or [(None, None, None, None)]
    if len(places) > 1 and engine in ('redis', 'etcd'):
        hint = ('; use zmq+sentinel:// for several' if engine == 'redis' else
                '; give a name or address that leads to all of them')
        raise ValueError(f'transport_url: {engine} has one host here{hint}')
    for _, port, _, _ in places:
        _check_port('transport_url', port)
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
    username, colon, _ = credentials.partition(':')
    # What stands alone may have been meant as a password.
    shown = f'{username}:***' if colon else '***'
    return f'{shown}{at}{address}' if at else place
