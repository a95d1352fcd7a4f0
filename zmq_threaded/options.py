# SPDX-License-Identifier: Apache-2.0
"""Settings: what the options of [oslo_messaging_zmq] say, checked.

The options that mean something are in :mod:`zmq_threaded.live_options`, the
names of old in :mod:`zmq_threaded.legacy_options`.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterable
from typing import Any

from oslo_config import cfg

from zmq_threaded import legacy_options
from zmq_threaded import live_options
from zmq_threaded import logs
from zmq_threaded.registry import registry_url
from zmq_threaded.registry import tls_options

LOG = logs.get(__name__)

GROUP = 'oslo_messaging_zmq'
# Of rpc_zmq_encryption.
DISABLED, CONNECT, SERVE, REQUIRED = (
    'disabled', 'connect', 'serve', 'required')
# The registry is a directory on this machine.
EMBEDDED = 'embedded'
# What rpc_zmq_custody says: what the accepted messages survive.
MEMORY, PROCESS, DISK = 'memory', 'process', 'disk'
_LONGEST_LINGER = 30


class InvalidOption(ValueError):
    """An option has a value that cannot work; the text names the option."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the options say, checked and in units of seconds.

    :ivar matchmaker: EMBEDDED, or a URL of tooz, perhaps with a password
    :ivar encryption: DISABLED, CONNECT, SERVE or REQUIRED
    :ivar key_file: '' only if encryption is DISABLED; likewise trusted_keys
    :ivar bridge: transport URL, perhaps with a password; '' for no bridge
    """

    matchmaker: str = dataclasses.field(repr=False)
    ipc_dir: str
    topology: str
    receiver_port: int
    metrics_address: str
    transport: str
    bind_address: str
    host: str
    encryption: str
    key_file: str
    trusted_keys: str
    ports: range
    bind_retries: int
    io_threads: int
    backlog: int
    stuck_after: float
    max_message_size: int
    outbox_limit: int
    cast_timeout: float
    exit_timeout: float
    message_ttl: float
    custody: str
    custody_dir: str
    custody_ttl: float
    custody_bytes: int
    custody_when_full: str
    linger: float
    expire: float
    update: float
    executor: str
    serialization: str
    two_messages: bool
    pool_size: int
    pool_ttl: float
    keepalive: int
    keepalive_idle: int
    keepalive_cnt: int
    keepalive_intvl: int
    bridge: str = dataclasses.field(repr=False)
    bridge_send: str

    @property
    def lifetime(self) -> float:
        """Seconds for which a cast, fanout or notification is kept."""
        return (self.message_ttl if self.custody == MEMORY
                else self.custody_ttl)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """For oslo.config's sample generator (entry point oslo.config.opts)."""
    return [(GROUP, live_options.OPTIONS + legacy_options.OPTIONS),
            (legacy_options.REDIS_GROUP, legacy_options.REDIS_OPTIONS)]


def of_url(conf: cfg.ConfigOpts, url: Any) -> Settings:
    """The Settings of a driver.

    :param conf: oslo.config ConfigOpts
    :param url: oslo_messaging.TransportURL
    :raises: InvalidOption, ValueError
    """
    hosts = [(host.hostname, host.port, host.username, host.password)
             for host in url.hosts]
    settings = read(conf, url.query, url.transport.partition('+')[2], hosts)
    return dataclasses.replace(
        settings, matchmaker=registry_url.of_virtual_host(
            settings.matchmaker, url.virtual_host))


def read(conf: cfg.ConfigOpts, query: dict[str, str], scheme: str = '',
         hosts: Iterable[tuple[Any, ...]] = ()) -> Settings:
    """Read and check the options, without touching the file system.

    :param conf: oslo.config ConfigOpts
    :param query: dict of the transport URL's query; it wins over the files,
        and may say how the registry is reached (tls_options.NAMES)
    :param scheme: of the transport URL, what follows ``zmq+``
    :param hosts: of the transport URL: (hostname, port, username, password)
    :raises: InvalidOption
    :returns: Settings
    """
    live = live_options.OPTIONS + live_options.HIDDEN
    legacy_options.register(conf, live + legacy_options.OPTIONS, GROUP)
    known = {option.dest for option in live + legacy_options.OPTIONS}
    for name in query.keys() - known - tls_options.NAMES:
        raise InvalidOption(f'{name}: the zmq driver has no such option')
    for option in legacy_options.OPTIONS:
        # Not used; but oslo.config warns of an option when it is read.
        with contextlib.suppress(InvalidOption):
            _value(conf, query, option)
    value = {option.dest: _value(conf, query, option) for option in live}
    tls = {name: query[name] for name in query.keys() & tls_options.NAMES}
    return _settings(value, _registry(conf, value, scheme, hosts, tls))


def _registry(conf: cfg.ConfigOpts, value: dict[str, Any], scheme: str,
              hosts: Iterable[tuple[Any, ...]], tls: dict[str, str]) -> str:
    try:
        return registry_url.backend(
            scheme, hosts, value['rpc_zmq_matchmaker'],
            value['rpc_zmq_sentinel_group'],
            legacy_options.matchmaker_redis(conf), tls) or EMBEDDED
    except ValueError as error:
        raise InvalidOption(str(error)) from None


def _value(conf: cfg.ConfigOpts, query: dict[str, str],
           option: cfg.Opt) -> Any:
    if option.dest in query and option.deprecated_for_removal:
        # oslo.config warns of what it reads itself.
        LOG.warning('Option %s of the transport URL is deprecated for '
                    'removal: %s', option.dest, option.deprecated_reason)
    try:
        value = (option.type(query[option.dest]) if option.dest in query
                 else getattr(getattr(conf, GROUP), option.dest))
    except ValueError as error:
        raise InvalidOption(f'{option.dest}: {error}') from None
    if value is None and option.default is not None:
        raise InvalidOption(f'{option.dest}: has no value')
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidOption(f'{option.dest}: {value} is no duration')
    return value


def _settings(value: dict[str, Any], matchmaker: str) -> Settings:
    is_embedded = matchmaker == EMBEDDED
    return Settings(
        matchmaker=matchmaker,
        ipc_dir=value['rpc_zmq_ipc_dir'] or '',
        topology=_topology(value['rpc_zmq_topology'],
                           value['use_router_proxy'], is_embedded),
        receiver_port=value['rpc_zmq_port'],
        metrics_address=value['rpc_zmq_metrics_address'] or '',
        transport=value['rpc_zmq_transport'] or ('ipc' if is_embedded
                                                 else 'tcp'),
        bind_address=value['rpc_zmq_bind_address'],
        host=value['rpc_zmq_host'],
        encryption=_encryption(value['rpc_zmq_encryption'],
                               value['rpc_zmq_key_file'],
                               value['rpc_zmq_trusted_keys']),
        key_file=value['rpc_zmq_key_file'] or '',
        trusted_keys=value['rpc_zmq_trusted_keys'] or '',
        ports=_ports(value['rpc_zmq_min_port'], value['rpc_zmq_max_port']),
        bind_retries=value['rpc_zmq_bind_port_retries'],
        io_threads=value['rpc_zmq_contexts'],
        backlog=value['rpc_zmq_topic_backlog'],
        stuck_after=float(value['rpc_zmq_stuck_workers_after']),
        max_message_size=value['rpc_zmq_max_message_size'],
        outbox_limit=value['rpc_zmq_outbox_limit'],
        cast_timeout=_cast_timeout(value['rpc_cast_timeout']),
        exit_timeout=min(value['rpc_zmq_exit_timeout'],
                         _cast_timeout(value['rpc_cast_timeout'])),
        message_ttl=float(value['rpc_message_ttl']),
        custody=value['rpc_zmq_custody'],
        custody_dir=_custody_dir(value['rpc_zmq_custody_dir'] or ''),
        custody_ttl=float(value['rpc_zmq_custody_ttl']),
        custody_bytes=value['rpc_zmq_custody_bytes'],
        custody_when_full=value['rpc_zmq_custody_when_full'],
        linger=_linger(value['zmq_linger']),
        expire=float(value['zmq_target_expire']),
        update=_update(value['zmq_target_update'],
                       value['zmq_target_expire']),
        executor=value['rpc_zmq_executor'],
        serialization=value['rpc_zmq_serialization'],
        two_messages=value['rpc_zmq_two_message_replies'],
        pool_size=value['rpc_conn_pool_size'],
        pool_ttl=float(value['conn_pool_ttl']),
        keepalive=value['zmq_tcp_keepalive'],
        keepalive_idle=value['zmq_tcp_keepalive_idle'],
        keepalive_cnt=value['zmq_tcp_keepalive_cnt'],
        keepalive_intvl=value['zmq_tcp_keepalive_intvl'],
        bridge=value['rpc_zmq_bridge'] or '',
        bridge_send=value['rpc_zmq_bridge_send'])


def _topology(topology: str | None, use_router_proxy: bool | None,
              is_embedded: bool) -> str:
    if topology:
        return topology
    if use_router_proxy is not None:
        return 'receiver' if use_router_proxy else 'direct'
    return 'direct' if is_embedded else 'receiver'


def _encryption(mode: str | None, key_file: str | None,
                trusted_keys: str | None) -> str:
    if mode == DISABLED or not (mode or key_file or trusted_keys):
        return DISABLED
    if not key_file:
        raise InvalidOption(
            'rpc_zmq_key_file: it is not set, and nothing can be encrypted '
            'without a key. Make one with "oslo-messaging-zmq keys create '
            'NAME", and set rpc_zmq_key_file to the file that ends with '
            '.key_secret')
    if not trusted_keys:
        raise InvalidOption(
            'rpc_zmq_trusted_keys: it is not set, so nobody could be '
            'trusted. Set it to a directory with the public keys (*.key) of '
            'all nodes, this one among them')
    return mode or REQUIRED


def _ports(lowest: int, highest: int) -> range:
    highest = min(highest, 65535)
    if lowest > highest:
        raise InvalidOption(f'rpc_zmq_min_port: {lowest} is above '
                            f'rpc_zmq_max_port, {highest}')
    return range(lowest, highest + 1)


def _cast_timeout(seconds: float) -> float:
    if seconds < 0 and seconds != -1:
        raise InvalidOption(f'rpc_cast_timeout: {seconds} is no duration')
    return seconds if seconds >= 0 else 30.0


def _custody_dir(path: str) -> str:
    if path and not os.path.isabs(path):
        raise InvalidOption(
            f'rpc_zmq_custody_dir: {path} is not an absolute path. Each '
            'process would look below its own working directory, and '
            'processes would not find the journals of each other. Write the '
            'whole path, which begins with /')
    return path


def _linger(seconds: float) -> float:
    return float(seconds if 0 <= seconds <= _LONGEST_LINGER
                 else _LONGEST_LINGER)


def _update(update: float, expire: float) -> float:
    if update >= expire:
        raise InvalidOption(
            f'zmq_target_update: {update} s is not shorter than '
            f'zmq_target_expire, {expire} s; live services would be lost')
    return float(update)
