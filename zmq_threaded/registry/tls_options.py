# SPDX-License-Identifier: Apache-2.0
"""What the URLs of the registry say about TLS (pure).

Who asks for TLS and does not get it would send a password in the clear, in
silence. So all that the client libraries would ignore is refused here.
"""

import re
from collections.abc import Iterable
from collections.abc import Mapping
from urllib import parse

from zmq_threaded.registry import tooz_url

# By the names of the transport URL, which are those of redis: the names that
# tooz has for etcd.
_FILES = {'ssl_ca_certs': 'ca_cert', 'ssl_certfile': 'cert_cert',
          'ssl_keyfile': 'cert_key'}
_SENTINELS = {'sentinel_ssl', 'sentinel_username', 'sentinel_password'}
# What a transport URL may say of its registry.
NAMES = {'ssl'} | _FILES.keys() | _SENTINELS
_KNOWN = {'redis': NAMES - _SENTINELS, 'etcd': NAMES - _SENTINELS,
          'sentinel': NAMES}
_SWITCHES = ('ssl', 'sentinel_ssl')
_TRUE = tooz_url.TRUE
_FALSE = ('0', 'f', 'false', 'off', 'n', 'no')
# Of a tooz URL for redis.
_TOOZ = NAMES | {'sentinel', 'sentinel_fallback'}
# A name that is shown in an error; any other one may be a part of a password.
_SHOWN = re.compile('(ssl|sentinel)[a-z_]*')


def is_wanted(given: Mapping[str, str]) -> bool:
    """Whether the options of a transport URL ask for TLS.

    :raises: ValueError
    """
    return _is_true('transport_url', 'ssl', given.get('ssl', 'no'))


def of_transport_url(engine: str, given: Mapping[str, str]
                     ) -> list[tuple[str, str]]:
    """The options of the tooz URL, for those of a transport URL.

    :param engine: 'redis', 'sentinel', 'etcd' or another one
    :param given: those options of the transport URL that are in NAMES
    :raises: ValueError
    """
    for name in sorted(given.keys() - _KNOWN.get(engine, set())):
        raise ValueError(
            f'transport_url: {name} means nothing for the registry {engine}')
    if engine != 'etcd':
        return sorted(given.items())
    if not is_wanted(given):
        _refuse_files('transport_url', given.keys() & _FILES.keys(),
                      'ssl=true')
    return sorted((_FILES[name], value) for name, value in given.items()
                  if name in _FILES)


def check(option: str, url: str) -> None:
    """Refuse a tooz URL whose options of TLS cannot be meant so.

    :param option: of the driver, to be named
    :raises: ValueError, which shows no value
    """
    parts = tooz_url.split(url)
    given = dict(parse.parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme == 'redis':
        _check_redis(option, given)
    elif parts.scheme.startswith('etcd'):
        _check_etcd(option, given, parts.scheme.endswith('https'))
    for name in (*_FILES, *_FILES.values()):
        if given.get(name) == '':
            raise ValueError(f'{option}: {name} has no value')


def files(url: str) -> tuple[str, str, str]:
    """The files that a tooz URL names: those of the CA, of the certificate
    and of its key, '' for none.
    """
    given = dict(parse.parse_qsl(tooz_url.split(url).query))
    ca, certificate, key = (
        given.get(name) or given.get(_FILES[name]) or '' for name in _FILES)
    return ca, certificate, key


def _check_redis(option: str, given: Mapping[str, str]) -> None:
    for name in sorted(given.keys() - _TOOZ):
        if _SHOWN.fullmatch(name):
            raise ValueError(f'{option}: tooz has no option {name} for redis; '
                             f'there are {", ".join(sorted(NAMES))}')
    switched = [_is_true(option, name, given[name])
                for name in _SWITCHES if name in given]
    if not any(switched):
        _refuse_files(option, given.keys() & _FILES.keys(), 'ssl=true')
    if 'sentinel' not in given and given.keys() & _SENTINELS:
        raise ValueError(f'{option}: sentinel_ssl, sentinel_username and '
                         'sentinel_password are for redis by sentinels, and '
                         'the URL names none')
    if 'ssl_keyfile' in given and 'ssl_certfile' not in given:
        raise ValueError(f'{option}: ssl_keyfile is given without '
                         'ssl_certfile')


def _check_etcd(option: str, given: Mapping[str, str],
                is_https: bool) -> None:
    if not is_https:
        _refuse_files(option, given.keys() & set(_FILES.values()),
                      'etcd3+https://')
    if ('cert_cert' in given) != ('cert_key' in given):
        raise ValueError(f'{option}: of the certificate for etcd and its key '
                         'only one is given')


def _refuse_files(option: str, given: Iterable[str], wanted: str) -> None:
    for name in sorted(given):
        raise ValueError(f'{option}: {name} is given without {wanted}, and '
                         'the registry would be reached without TLS')


def _is_true(option: str, name: str, value: str) -> bool:
    if value.strip().lower() not in _TRUE + _FALSE:
        # tooz reads any other word as false.
        raise ValueError(f'{option}: {name} is neither true nor false')
    return value.strip().lower() in _TRUE
