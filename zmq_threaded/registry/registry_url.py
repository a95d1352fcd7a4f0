# SPDX-License-Identifier: Apache-2.0
"""Where the registry is: from what operators write to a tooz URL (pure).

Credentials in these URLs are percent-encoded. tooz does not decode them;
registry/engines.py does. What cannot be parsed is never shown: a password may
be anywhere in it.
"""

import re
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from urllib import parse

from zmq_threaded.registry import tls_options
from zmq_threaded.registry import tooz_url

# A host of the transport URL: (hostname, port, username, password).
Host = tuple[str | None, int | None, str | None, str | None]

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
_ESCAPE = ('characters like / ? # @ [ and % in a name or password are written '
           'percent-encoded, as %2F for /')
_NAME = re.compile(r'[\w.+-]*', re.ASCII)
_LITERAL = r'\[[0-9a-fA-F.]*:[0-9a-fA-F:.]*(%[\w.-]*)?\]'
_IPV6 = re.compile(rf'{_LITERAL}(:\d*)?$', re.ASCII)
_PLACE = re.compile(rf'(?P<host>[\w.-]*|{_LITERAL})(:(?P<port>\d*))?',
                    re.ASCII)


def backend(scheme: str, hosts: Iterable[Host], matchmaker: str,
            sentinel_group: str | None = None,
            legacy: Mapping[str, Any] | None = None,
            tls: Mapping[str, str] | None = None) -> str | None:
    """The tooz URL of the registry, or None for the embedded one.

    :param scheme: what follows ``zmq+`` in the transport URL, or ''
    :param hosts: of the transport URL: (hostname, port, username, password)
        tuples, decoded, each part may be None
    :param matchmaker: value of rpc_zmq_matchmaker: a name or a tooz URL; the
        scheme wins over it
    :param sentinel_group: name of the group that the sentinels watch
    :param legacy: those options of [matchmaker_redis] that are set
    :param tls: those options of the transport URL that are in
        tls_options.NAMES
    :raises: ValueError, naming the option
    """
    if not scheme and '://' in matchmaker:
        _refuse_one_of_two(_addresses(hosts), tls or {})
        return _checked(matchmaker)
    name = (scheme or matchmaker.rpartition('.')[2]).lower()
    if name in _EMBEDDED and not scheme:
        _refuse_hosts(_addresses(hosts))
        tls_options.of_transport_url('embedded', tls or {})
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
    url = _url(engine, port, places, legacy,
               sentinel_group or legacy.get('sentinel_group_name')
               or _SENTINEL_GROUP, tls or {})
    tls_options.check('transport_url', url)
    return url


def of_virtual_host(url: str, virtual_host: str | None) -> str:
    """The registry of one of the clouds that a virtual host keeps apart.

    Who asks for one and does not get it would meet the others in silence,
    and run their calls: so all that cannot be kept apart is refused.

    :param url: of tooz, or the name of the embedded registry
    :param virtual_host: of the transport URL; None, '' and '/' are none
    :raises: ValueError, naming it
    """
    if virtual_host is None or virtual_host in ('', '/'):
        return url
    parts = tooz_url.split(url)
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


def _in_database(parts: parse.SplitResult, number: int) -> str:
    given = dict(parse.parse_qsl(parts.query)).get('db', str(number))
    if given != str(number):
        raise ValueError(f'transport_url: its virtual host is database '
                         f'{number}, but {_OPTION} has db={given}')
    query = [each for each in parts.query.split('&')
             if each and not each.startswith('db=')]
    return parse.urlunsplit(
        parts._replace(query='&'.join([*query, f'db={number}'])))


def _refuse_hosts(places: Sequence[Host]) -> None:
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


def _refuse_one_of_two(places: Sequence[Host],
                       tls: Mapping[str, str]) -> None:
    """Both would name the registry, and one would be ignored."""
    for name in sorted(tls):
        raise ValueError(f'transport_url: {name} is for a registry that '
                         'transport_url names; write it into the URL in '
                         f'{_OPTION}')
    if places:
        hosts = ', '.join(host for host, *_ in places
                          if host and _NAME.fullmatch(host)) or 'its hosts'
        raise ValueError(
            f'transport_url: the registry is what {_OPTION} says, a URL, and '
            f'zmq:// has no host; remove {hosts} from transport_url, or, if '
            f'the registry is there, remove {_OPTION} and write '
            'zmq+redis://HOST:6379 or the like')


def _checked(url: str) -> str:
    _refuse_ipv6_in_a_list(_hosts(url), _OPTION)
    parts = tooz_url.split(url)
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
    tls_options.check(_OPTION, url)
    return url


def _hosts(url: str) -> list[str]:
    return [each.rpartition('@')[2]
            for each in tooz_url.split(url).netloc.split(',')]


def _refuse_ipv6_in_a_list(addresses: Sequence[str], option: str) -> None:
    """Python's urllib takes them in a list of hosts no more (since 3.11.12,
    3.12.9 and 3.13.2), and so neither oslo.messaging nor tooz.
    """
    literals = [each for each in addresses if _IPV6.match(each)]
    if literals and len(addresses) > 1:
        raise ValueError(
            f'{option}: an IPv6 address ({literals[0]}) cannot stand in a '
            'list of hosts; give names that lead to these addresses')


def _check_place(option: str, text: str) -> tuple[str | None, int | None]:
    """:raises: ValueError, which does not show it"""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise ValueError(f'{option}: a host is not HOST:PORT, with a port '
                         f'from 1 to 65535; {_ESCAPE}')
    if found['port']:
        _check_port(option, int(found['port'][:6]))
    return found['host'].strip('[]') or None, int(found['port'] or 0) or None


def _check_port(option: str, port: int | None) -> None:
    if port is not None and not 0 < port < 65536:
        # Not shown: it may be the beginning of a password.
        raise ValueError(f'{option}: a port is not from 1 to 65535')


def _refuse_engine(scheme: str) -> None:
    if scheme == 'file':
        # It would lack what makes the embedded one safe with forks and kills.
        raise ValueError(f'{_OPTION}: file:// is not supported; for a '
                         'registry in files set embedded, and its place with '
                         'rpc_zmq_ipc_dir')
    if scheme in _CANNOT_LIST:
        raise ValueError(f'{_OPTION}: {scheme} cannot be the registry; there '
                         'are redis, etcd3+http, etcd3+https and zookeeper')


def _addresses(hosts: Iterable[Host]) -> list[Host]:
    return [each for each in hosts if any(each)]


def _legacy_places(engine: str, legacy: Mapping[str, Any]) -> list[Host]:
    """What [matchmaker_redis] says; it was about redis and sentinel only."""
    password = legacy.get('password') or None
    if engine == 'redis' and legacy.keys() & {'host', 'port', 'password'}:
        return [(legacy.get('host'), legacy.get('port'), None, password)]
    if engine == 'sentinel':
        return [(*_host_and_port(each), None, password)
                for each in legacy.get('sentinel_hosts') or ()]
    return []


def _host_and_port(text: str) -> tuple[str | None, int | None]:
    text = text.strip()
    # An IPv6 address alone has no brackets.
    if text.count(':') > 1 and not text.startswith('['):
        text = f'[{text}]'
    return _check_place('sentinel_hosts', text)


def _url(engine: str, default_port: int, places: Sequence[Host],
         legacy: Mapping[str, Any], group: str,
         tls: Mapping[str, str]) -> str:
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
    query += tls_options.of_transport_url(engine, tls)
    netloc = ','.join(addresses if engine == 'zookeeper' else addresses[:1])
    scheme = ('etcd3+https' if engine == 'etcd' and tls_options.is_wanted(tls)
              else _SCHEMES[engine])
    return parse.urlunsplit((scheme, credentials + netloc, '', parse.urlencode(
        query, quote_via=parse.quote), ''))


def _address(host: str | None, port: int) -> str:
    host = host or 'localhost'
    return f'[{host}]:{port}' if ':' in host else f'{host}:{port}'


def _credentials(engine: str, places: Sequence[Host]) -> str:
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


def _query(engine: str, addresses: Sequence[str],
           legacy: Mapping[str, Any], group: str) -> list[tuple[str, Any]]:
    query: list[tuple[str, Any]] = []
    if engine == 'sentinel':
        query = [('sentinel', group), *(('sentinel_fallback', address)
                                        for address in addresses[1:])]
    if _SCHEMES[engine] == 'redis' and legacy.get('socket_timeout'):
        # Milliseconds of old.
        query.append(('socket_timeout', int(legacy['socket_timeout']) / 1000))
    return query
