# SPDX-License-Identifier: Apache-2.0
"""What a tooz URL of the registry says, and how it may be shown (pure)."""

from collections.abc import Callable
from typing import Any
from urllib import parse

# Seconds. For an engine that does not answer at all; its client adds retries.
_SOCKET_TIMEOUT = 3.0
_LONGEST_RECONNECT_INTERVAL = 1.0
# Of the query of a URL; the values of others may be secrets.
_SHOWN = {'db', 'sentinel', 'sentinel_fallback', 'timeout', 'socket_timeout',
          'socket_connect_timeout', 'socket_keepalive', 'ssl', 'sentinel_ssl',
          'health_check_interval', 'ssl_certfile', 'ssl_ca_certs', 'encoding',
          'retry_on_timeout', 'membership_timeout', 'lock_timeout', 'hosts',
          'namespace', 'ca_cert', 'cert_cert', 'api_version', 'use_ssl'}
# As oslo.utils reads it.
TRUE = ('1', 't', 'true', 'on', 'y', 'yes')
# A secret that is shorter is not looked for in texts: it is in most.
_SHORTEST_SECRET = 3


def split(url: str) -> parse.SplitResult:
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


def without_password(url: str) -> str:
    """The URL as a log may show it."""
    parts = split(url)
    netloc = ','.join(_hidden(place) for place in parts.netloc.split(','))
    query = '&'.join(
        f'{name}={value}' if name in _SHOWN else f'{name}=***'
        for name, value in (each.partition('=')[::2]
                            for each in parts.query.split('&') if each))
    return parse.urlunsplit(parts._replace(netloc=netloc, query=query))


def place(url: str) -> str:
    """The engine of a tooz URL and where it is, as a log may show it."""
    parts = split(url)
    query = parse.parse_qs(parts.query)
    hosts = [each.rpartition('@')[2] for each in parts.netloc.split(',')]
    # Who speaks TLS to a server that does not waits in vain.
    tls = (' with TLS' if parts.scheme.endswith('https')
           or query.get('ssl', [''])[0].lower() in TRUE else '')
    if 'sentinel' in query:
        hosts += query.get('sentinel_fallback', [])
        return f'redis{tls} by the sentinels {", ".join(hosts)}'
    engine = parts.scheme.partition('+')[0].replace('etcd3', 'etcd') + tls
    where = ', '.join(each for each in hosts if each) or parts.path
    return f'{engine} at {where}' if where else engine


def hider(url: str) -> Callable[[str], str]:
    """A function that takes the passwords of a URL out of a text."""
    parts = split(url)
    found = [parts.netloc.rpartition('@')[0].partition(':')[2]]
    found += [value for name, _, value in (
        each.partition('=') for each in parts.query.split('&'))
        if name not in _SHOWN]
    secrets = {form for each in found for form in (
        each, parse.unquote(each), parse.unquote_plus(each),
        parse.quote(parse.unquote(each)))
        if len(form) >= _SHORTEST_SECRET}

    def hide(text: str) -> str:
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, '***')
        return text
    return hide


def options(url: str, expire: float) -> dict[str, Any]:
    """The options that tooz is given beside its URL: explicit timeouts. Those
    of the URL win, but for the life of a record, which is zmq_target_expire.

    :param expire: seconds
    :returns: dict of name to value
    """
    parts = split(url)
    query: dict[str, Any] = dict(parse.parse_qsl(parts.query))
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


def _hidden(place: str) -> str:
    credentials, at, address = place.rpartition('@')
    username, colon, _ = credentials.partition(':')
    # What stands alone may have been meant as a password.
    shown = f'{username}:***' if colon else '***'
    return f'{shown}{at}{address}' if at else place
