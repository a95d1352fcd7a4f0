# SPDX-License-Identifier: Apache-2.0
"""The engines, as tooz has them: what differs, and how each is opened."""

import functools
import importlib.metadata
import importlib.util
import logging
import os
from collections.abc import Callable
from typing import Any
from urllib import parse

from stevedore import driver

from zmq_threaded import counters
from zmq_threaded import options
from zmq_threaded import threads
from zmq_threaded.registry import etcd_notices
from zmq_threaded.registry import files
from zmq_threaded.registry import folder_notices
from zmq_threaded.registry import folders
from zmq_threaded.registry import notices as noticing
from zmq_threaded.registry import patience
from zmq_threaded.registry import reading
from zmq_threaded.registry import redis_notices
from zmq_threaded.registry import session as sessions
from zmq_threaded.registry import shared_facts
from zmq_threaded.registry import store
from zmq_threaded.registry import tls_files
from zmq_threaded.registry import tooz_url
from zmq_threaded.registry import zookeeper_notices

_LIBRARIES = {'redis': ('redis', 'redis'), 'etcd3+http': ('etcd3gw', 'etcd'),
              'etcd3+https': ('etcd3gw', 'etcd'),
              'zookeeper': ('kazoo', 'zookeeper'),
              'kazoo': ('kazoo', 'zookeeper')}
_FOR_TLS = '; for TLS write redis://HOST:PORT?ssl=true'
_PATIENCE = 5.0
# Seconds after which an operation is given up for lost. Most clients try on,
# and notice soon when their engine is back; kazoo can wait for an answer of a
# server that was just starting for as long as its session may live.
_STUCK, _SESSION_STUCK = 60.0, 6.0


class MissingLibrary(Exception):
    """The client library of an engine is not installed; the text says what to
    install.

    Thread: any.
    """


def check(url: str) -> None:
    """Refuse a URL that cannot work here, without connecting.

    :raises: MissingLibrary; ValueError, naming rpc_zmq_matchmaker, if tooz
        has no such engine, or naming a file of TLS that cannot be used
    """
    scheme = tooz_url.split(url).scheme
    library, extra = _LIBRARIES.get(scheme, (None, None))
    if library and importlib.util.find_spec(library) is None:
        raise MissingLibrary(
            f'rpc_zmq_matchmaker: {scheme}:// needs the library {library}; '
            f'pip install zmq-threaded[{extra}]')
    if not importlib.metadata.entry_points(group='tooz.backends',
                                           name=scheme):
        raise ValueError(f'rpc_zmq_matchmaker: tooz has no engine {scheme}'
                         + (_FOR_TLS if scheme == 'rediss' else ''))
    tls_files.check(url)


def opened(settings: options.Settings, ipc_dir: str) -> store.Store:
    """The Store that the settings name.

    :raises: options.InvalidOption
    """
    if settings.matchmaker != options.EMBEDDED:
        return distributed(settings.matchmaker, settings.expire)
    try:
        return embedded(ipc_dir, settings.expire)
    except OSError as error:
        raise options.InvalidOption(f'rpc_zmq_ipc_dir: {error}') from None


def distributed(url: str, expire: float) -> store.Store:
    """The Store of an engine that is given by its tooz URL.

    :param expire: seconds after which a record that is not renewed is gone
    """
    scheme = tooz_url.split(url).scheme
    differs: dict[str, Any] = {}
    stuck = _STUCK
    if scheme in ('zookeeper', 'kazoo'):
        # It warns of each connection that it tries.
        logging.getLogger('kazoo.client').addFilter(_may_log_kazoo)
        differs = {'keeps_sessions': True, 'release': _close_kazoo}
        stuck = _SESSION_STUCK
    reader, notices = _reading(scheme, expire, tooz_url.hider(url))
    engine = sessions.Engine(
        functools.partial(_connect, url, expire), expire,
        reader=reader, place=tooz_url.place(url), facts=_facts(scheme),
        notices=notices, **differs)
    return store.Store(
        engine, patience.Patient(threads.REGISTRY_ENGINE,
                                 min(_PATIENCE, expire / 2), stuck),
        tooz_url.hider(url))


def _reading(scheme: str, expire: float, hide: Callable[[str], str]
             ) -> tuple[Callable[[], reading.Reader], noticing.Tolerant]:
    """What makes a Reader, and who tells when to read."""
    if scheme.startswith('etcd'):
        return (lambda: reading.ETCD), noticing.Tolerant(
            etcd_notices.EtcdNotices(), hide)
    if scheme in ('zookeeper', 'kazoo'):
        watches = zookeeper_notices.ZookeeperNotices()
        return (lambda: reading.zookeeper(watches)), noticing.Tolerant(
            watches, hide)
    notices = noticing.Tolerant(redis_notices.RedisNotices(), hide)

    def make() -> reading.Reader:
        watched = reading.Expired(expire, notices.announce)
        return reading.Reader(watched.group, watched.own, watched.watch,
                              watched.tend)
    return make, notices


def _facts(scheme: str) -> shared_facts.Access:
    if scheme.startswith('etcd'):
        return shared_facts.ETCD
    if scheme in ('zookeeper', 'kazoo'):
        return shared_facts.ZOOKEEPER
    return shared_facts.REDIS


def embedded(ipc_dir: str, expire: float) -> store.Store:
    """The Store of one machine: files, and no server.

    :param expire: seconds after which a record that is not renewed is gone
    :raises: OSError, unless what is wrong may end by itself
    """
    folder = folders.Folders(os.path.abspath(ipc_dir))
    try:
        folder.begin()
    except OSError as error:
        if error.errno not in folders.PASSING:
            raise
    engine = sessions.Engine(
        functools.partial(files.Driver, folder, expire), expire,
        forgets=False, place=f'files in {folder.top}',
        notices=noticing.Tolerant(
            folder_notices.FolderNotices(folder.groups), str))
    return store.Store(engine, patience.Patient(
        threads.REGISTRY_ENGINE, min(_PATIENCE, expire / 2), _STUCK))


_kazoo = counters.Seldom()


def _may_log_kazoo(line: logging.LogRecord) -> bool:
    return line.levelno >= logging.ERROR or _kazoo.allows()


def _close_kazoo(coordinator: Any) -> None:
    coordinator._coord.close()      # tooz only stops it


class _Decoded(parse.SplitResult):
    """tooz takes the password of a URL as it is written there.

    Thread: any.
    """

    @property
    def username(self) -> str | None:
        """The name of the user, decoded."""
        given = super().username
        return given and parse.unquote(given)

    @property
    def password(self) -> str | None:
        """The password, decoded."""
        given = super().password
        return given and parse.unquote(given)


def _connect(url: str, expire: float, member_id: bytes) -> Any:
    # As coordination.get_coordinator() does it, but for the decoding.
    parts = _Decoded(*tooz_url.split(url))
    options = tooz_url.options(url, expire)
    made: Any = driver.DriverManager(
        'tooz.backends', parts.scheme, invoke_on_load=True,
        invoke_args=(member_id, parts, options)).driver
    if parts.scheme == 'redis':
        made._make_client = functools.partial(_impatient, made._make_client)
    elif 'ca_cert' in options:
        # The environment would win (REQUESTS_CA_BUNDLE).
        made.client.session.trust_env = False
    return made


def _impatient(make_client: Callable[..., Any], *args: Any) -> Any:
    """A client of redis that tries once more at once, and then says what is
    wrong; its own pauses, fifteen times over, hide that for minutes.
    """
    from redis import backoff
    from redis import retry
    client = make_client(*args)
    once = retry.Retry(backoff.NoBackoff(), 1)
    manager = getattr(client.connection_pool, 'sentinel_manager', None)
    for each in (client, *(manager.sentinels if manager else ())):
        each.set_retry(once)
        _check_name(each.connection_pool)
    if manager:
        _let_explain(manager)
    return client


def _let_explain(manager: Any) -> None:
    """When no sentinel names a master, redis says of each of them only the
    class of its error.
    """
    said: list[str] = []
    for each in manager.sentinels:
        each.sentinel_masters = functools.partial(
            _noted, said, each.sentinel_masters)
    manager.discover_master = functools.partial(
        _discovered, said, manager.discover_master)


def _noted(said: list[str], ask: Callable[..., Any], *args: Any) -> Any:
    try:
        return ask(*args)
    except Exception as error:
        said.append(str(error))
        raise


def _discovered(said: list[str], discover: Callable[[str], Any],
                group: str) -> Any:
    from redis import sentinel
    said.clear()
    try:
        return discover(group)
    except sentinel.MasterNotFoundError as error:
        raise type(error)('; '.join([f'No master found for {group!r}',
                                     *said])) from None


def _check_name(pool: Any) -> None:
    """The certificate has to be that of the host: redis before 6 looks only
    at who has signed the certificate.
    """
    from redis import connection
    if issubclass(pool.connection_class, connection.SSLConnection):
        pool.connection_kwargs['ssl_check_hostname'] = True
