# SPDX-License-Identifier: Apache-2.0
"""The options of [oslo_messaging_zmq], and the Settings read from them.

The names are those that operators have from the Kilo and Queens drivers; the
names that no longer mean anything are in :mod:`zmq_threaded.legacy_options`.
"""

import contextlib
import dataclasses
import math
import os
import socket
import stat

from oslo_config import cfg

from zmq_threaded import legacy_options
from zmq_threaded import logs
from zmq_threaded.registry import registry_url

LOG = logs.get(__name__)

GROUP = 'oslo_messaging_zmq'
DEFAULT_MESSAGE_SIZE = 100 * 1024 * 1024


def _live(option_class, name, **kwargs):
    return option_class(name, deprecated_group='DEFAULT', **kwargs)


_OPTIONS = [
    _live(cfg.StrOpt, 'rpc_zmq_matchmaker', default='embedded', secret=True,
          help='Where services are registered. "embedded" is a directory on '
               'this machine (see rpc_zmq_ipc_dir) and needs no server; '
               '"dummy" and the old MatchMakerLocalhost mean the same. '
               '"redis", "sentinel", "etcd" and "zookeeper" are servers on '
               'this host, or those of [matchmaker_redis]; or any URL of '
               'tooz. A transport URL of zmq+redis:// and the like wins.'),
    _live(cfg.StrOpt, 'rpc_zmq_sentinel_group',
          help='Name under which the sentinels of redis watch its master; '
               'by default sentinel_group_name of [matchmaker_redis].'),
    _live(cfg.StrOpt, 'rpc_zmq_ipc_dir', sample_default='/var/run/openstack',
          help='Directory of the IPC sockets and of the embedded registry. '
               'Processes find each other only in the same directory. When '
               'it is not set and /var/run/openstack cannot be used, a '
               'private directory of this user is taken, '
               '/tmp/openstack-zmq-<uid>.'),
    _live(cfg.StrOpt, 'rpc_zmq_topology',
          choices=[('direct', 'each service at its own endpoints'),
                   ('receiver', 'all through the receiver of the node, '
                                'oslo-messaging-zmq-receiver, on one TCP '
                                'port')],
          help='How a service is reached. By default direct with the '
               'embedded matchmaker and receiver with any other. Clients '
               'reach services of both kinds.'),
    _live(cfg.BoolOpt, 'use_router_proxy', deprecated_for_removal=True,
          deprecated_reason='Set rpc_zmq_topology.',
          help='True means rpc_zmq_topology=receiver.'),
    _live(cfg.PortOpt, 'rpc_zmq_port', default=9501, min=1,
          help='TCP port of the receiver of a node.'),
    _live(cfg.StrOpt, 'rpc_zmq_transport',
          choices=[('ipc', 'only from this machine'),
                   ('tcp', 'over the network, and over IPC as well')],
          help='What a service binds with rpc_zmq_topology=direct. By '
               'default ipc with the embedded matchmaker and tcp with any '
               'other.'),
    _live(cfg.StrOpt, 'rpc_zmq_bind_address', default='*',
          help='Address to which TCP ports are bound: "*" for all, an IP '
               'address of either version, or the name of an interface (its '
               'IPv4 address).'),
    _live(cfg.StrOpt, 'rpc_zmq_host', default=socket.gethostname(),
          sample_default='localhost',
          help='Name or address under which clients on other hosts reach the '
               'TCP ports of this node; another one for each node.'),
    _live(cfg.PortOpt, 'rpc_zmq_min_port', default=49153, min=1,
          help='Lowest TCP port that a service may bind.'),
    _live(cfg.IntOpt, 'rpc_zmq_max_port', default=65535, min=1, max=65536,
          help='Highest TCP port that a service may bind. (65536, the '
               'default of old, is read as 65535.)'),
    _live(cfg.IntOpt, 'rpc_zmq_bind_port_retries', default=100, min=1,
          help='How many ports of the range are tried before the service '
               'gives up.'),
    _live(cfg.IntOpt, 'rpc_zmq_contexts', default=1, min=1, max=64,
          help='I/O threads of the ZeroMQ context. One moves about a '
               'gigabyte per second.'),
    _live(cfg.IntOpt, 'rpc_zmq_topic_backlog', default=1000, min=1,
          help='How many unacknowledged messages a service holds: calls and '
               'casts that no worker has begun, notifications that are not '
               'handled. With more it stops reading, and its senders wait.'),
    _live(cfg.IntOpt, 'rpc_zmq_max_message_size', default=DEFAULT_MESSAGE_SIZE,
          min=1024, max=2 ** 31,
          help='Bytes that one message may have, encoded. A bigger request '
               'is refused where it is sent, a bigger reply becomes a '
               'failure that says so. What arrives with more costs its '
               'sender the connection, so set the same everywhere, the '
               'receivers included. What a peer may make a process hold '
               'grows with it.'),
    _live(cfg.IntOpt, 'rpc_zmq_outbox_limit', default=10000, min=1,
          help='How many messages (casts, fanout copies) a sender keeps for '
               'one topic until they are acknowledged. At the limit a sender '
               'waits rpc_cast_timeout for a live service; with nobody there '
               'the oldest message is dropped and reported.'),
    _live(cfg.FloatOpt, 'rpc_cast_timeout', default=30.0, min=-1.0,
          help='Longest time in seconds for which a cast waits for room in '
               'the outbox, and for which cleanup() waits for outstanding '
               'acknowledgements. -1, for ever in the drivers of old, is '
               'read as 30.'),
    _live(cfg.FloatOpt, 'rpc_zmq_exit_timeout', default=10.0, min=0.0,
          help='Longest time in seconds for which the exit of a process waits '
               'for outstanding acknowledgements; never longer than '
               'rpc_cast_timeout. Most supervisors kill a process that takes '
               '30 seconds.'),
    _live(cfg.IntOpt, 'rpc_message_ttl', default=300, min=1,
          help='Seconds after which a message that nobody took is dropped '
               'and reported, and for which a service remembers what it has '
               'taken.'),
    _live(cfg.IntOpt, 'zmq_linger', default=1, min=-1,
          help='Longest time in seconds for which closing waits for what was '
               'already handed to ZeroMQ. -1, for ever in the drivers of '
               'old, is read as 30: no exit may hang on a dead peer.'),
    _live(cfg.IntOpt, 'zmq_target_expire', default=30, min=3,
          help='Seconds after which the record of a service that died is '
               'gone. A living one renews its record three times as often.'),
    _live(cfg.IntOpt, 'zmq_target_update', default=10, min=1,
          help='Seconds after which a client looks again at the records of '
               'the topics in use. Must be shorter than zmq_target_expire.'),
    _live(cfg.StrOpt, 'rpc_zmq_executor', default='fast',
          help='What runs the endpoints of a server: "fast" is a pool of '
               'threads that costs a third of the one which oslo.messaging '
               'makes, with as many threads (executor_thread_pool_size); '
               '"server" is the one of oslo.messaging; or another name of '
               'the entry point group zmq_threaded.executors.'),
    _live(cfg.StrOpt, 'rpc_zmq_serialization', default='json',
          choices=('json', 'msgpack'),
          help='Encoding of what this process sends; every process reads '
               'both. A reply is encoded as its request was.'),
    _live(cfg.IntOpt, 'rpc_conn_pool_size', default=128, min=1,
          help='How many idle connections for calls are kept, over all '
               'services.'),
    _live(cfg.IntOpt, 'conn_pool_ttl', default=60, min=1,
          help='Seconds after which an idle connection is closed.'),
    _live(cfg.IntOpt, 'zmq_tcp_keepalive', default=-1, min=-1, max=1,
          help='TCP keepalive: -1 leaves it to the system, 0 switches it '
               'off, 1 on.'),
    _live(cfg.IntOpt, 'zmq_tcp_keepalive_idle', default=-1, min=-1,
          help='Seconds of silence before the first keepalive probe; -1 '
               'leaves it to the system.'),
    _live(cfg.IntOpt, 'zmq_tcp_keepalive_cnt', default=-1, min=-1,
          help='Unanswered keepalive probes that end a connection; -1 leaves '
               'it to the system.'),
    _live(cfg.IntOpt, 'zmq_tcp_keepalive_intvl', default=-1, min=-1,
          help='Seconds between keepalive probes; -1 leaves it to the '
               'system.'),
]

# Not in the sample configuration: for those who package an upgrade.
_HIDDEN = [
    cfg.BoolOpt('rpc_zmq_two_message_replies', default=False,
                deprecated_for_removal=True,
                deprecated_reason='All releases read replies of one message.',
                help='Reply in two messages, the result and then an ending, '
                     'as the older kind of servers does.'),
]

_warned_of = {}
_DEFAULT_IPC_DIR = '/var/run/openstack'
_FALLBACK_IPC_DIR = '/tmp/openstack-zmq-%d'
EMBEDDED = 'embedded'
_LONGEST_LINGER = 30


class InvalidOption(ValueError):
    """An option has a value that cannot work; the text names the option."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the options say, checked and in units of seconds.

    :ivar matchmaker: EMBEDDED, or a URL of tooz, perhaps with a password
    """

    matchmaker: str = dataclasses.field(repr=False)
    ipc_dir: str
    topology: str
    receiver_port: int
    transport: str
    bind_address: str
    host: str
    ports: range
    bind_retries: int
    io_threads: int
    backlog: int
    max_message_size: int
    outbox_limit: int
    cast_timeout: float
    exit_timeout: float
    message_ttl: float
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


def list_opts():
    """For oslo.config's sample generator (entry point oslo.config.opts)."""
    return [(GROUP, _OPTIONS + legacy_options.OPTIONS),
            (legacy_options.REDIS_GROUP, legacy_options.REDIS_OPTIONS)]


def read(conf, query, scheme='', hosts=()):
    """Read and check the options, without touching the file system.

    :param conf: oslo.config ConfigOpts
    :param query: dict of the transport URL's query; it wins over the files
    :param scheme: of the transport URL, what follows ``zmq+``
    :param hosts: of the transport URL: (hostname, port, username, password)
    :raises: InvalidOption
    :returns: Settings
    """
    live = _OPTIONS + _HIDDEN
    _register(conf, live + legacy_options.OPTIONS)
    known = {option.dest for option in live + legacy_options.OPTIONS}
    for name in query.keys() - known:
        raise InvalidOption(f'{name}: the zmq driver has no such option')
    for option in legacy_options.OPTIONS:
        # Not used; but oslo.config warns of an option when it is read.
        with contextlib.suppress(InvalidOption):
            _value(conf, query, option)
    value = {option.dest: _value(conf, query, option) for option in live}
    return _settings(value, _registry(conf, value, scheme, hosts))


def _register(conf, those):
    for option in those:
        try:
            conf.register_opt(option, group=GROUP)
        except cfg.DuplicateOptError:
            # A pickled configuration (a spawned worker's) brings a copy,
            # and a copy that has told of its deprecation is another option.
            if not option.deprecated_for_removal:
                raise


def _registry(conf, value, scheme, hosts):
    try:
        return registry_url.backend(
            scheme, hosts, value['rpc_zmq_matchmaker'],
            value['rpc_zmq_sentinel_group'],
            legacy_options.matchmaker_redis(conf)) or EMBEDDED
    except ValueError as error:
        raise InvalidOption(str(error)) from None


def _value(conf, query, option):
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


def _settings(value, matchmaker):
    is_embedded = matchmaker == EMBEDDED
    return Settings(
        matchmaker=matchmaker,
        ipc_dir=value['rpc_zmq_ipc_dir'] or '',
        topology=_topology(value['rpc_zmq_topology'],
                           value['use_router_proxy'], is_embedded),
        receiver_port=value['rpc_zmq_port'],
        transport=value['rpc_zmq_transport'] or ('ipc' if is_embedded
                                                 else 'tcp'),
        bind_address=value['rpc_zmq_bind_address'],
        host=value['rpc_zmq_host'],
        ports=_ports(value['rpc_zmq_min_port'], value['rpc_zmq_max_port']),
        bind_retries=value['rpc_zmq_bind_port_retries'],
        io_threads=value['rpc_zmq_contexts'],
        backlog=value['rpc_zmq_topic_backlog'],
        max_message_size=value['rpc_zmq_max_message_size'],
        outbox_limit=value['rpc_zmq_outbox_limit'],
        cast_timeout=_cast_timeout(value['rpc_cast_timeout']),
        exit_timeout=min(value['rpc_zmq_exit_timeout'],
                         _cast_timeout(value['rpc_cast_timeout'])),
        message_ttl=float(value['rpc_message_ttl']),
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
        keepalive_intvl=value['zmq_tcp_keepalive_intvl'])


def _topology(topology, use_router_proxy, is_embedded):
    if topology:
        return topology
    if use_router_proxy is not None:
        return 'receiver' if use_router_proxy else 'direct'
    return 'direct' if is_embedded else 'receiver'


def _ports(lowest, highest):
    highest = min(highest, 65535)
    if lowest > highest:
        raise InvalidOption(f'rpc_zmq_min_port: {lowest} is above '
                            f'rpc_zmq_max_port, {highest}')
    return range(lowest, highest + 1)


def _cast_timeout(seconds):
    if seconds < 0 and seconds != -1:
        raise InvalidOption(f'rpc_cast_timeout: {seconds} is no duration')
    return seconds if seconds >= 0 else 30.0


def _linger(seconds):
    return float(seconds if 0 <= seconds <= _LONGEST_LINGER
                 else _LONGEST_LINGER)


def _update(update, expire):
    if update >= expire:
        raise InvalidOption(
            f'zmq_target_update: {update} s is not shorter than '
            f'zmq_target_expire, {expire} s; live services would be lost')
    return float(update)


def ipc_directory(settings):
    """The directory for sockets and registry, made when it is missing.

    A directory that was asked for by name never falls back: two users in
    different directories would miss each other in silence.

    :raises: InvalidOption
    """
    path = _usable_directory(settings)
    _warn_if_open(path)
    return path


def _warn_if_open(path):
    mode, pid = os.stat(path).st_mode, os.getpid()
    if not mode & stat.S_IXOTH:
        return
    may_write = bool(mode & stat.S_IWOTH)
    # Once for each process and directory; a Runtime is made for each driver.
    if _warned_of.setdefault((pid, path, may_write), token := object()
                             ) is not token:
        return
    what = ('write into %s, and so call the services, and take their messages'
            if may_write else
            'enter %s: they reach each socket there whose own mode lets them, '
            'which those of this driver do not')
    LOG.warning(f'rpc_zmq_ipc_dir: every user of this machine may {what}; '
                'give it to one user or group (mode 0700 or 2770)', path)


def _usable_directory(settings):
    if settings.ipc_dir:
        path = os.path.abspath(settings.ipc_dir)
        _ensure(path)
        return path
    is_there = os.path.lexists(_DEFAULT_IPC_DIR)
    try:
        _ensure(_DEFAULT_IPC_DIR)
        _refuse_read_only(_DEFAULT_IPC_DIR)
        return _DEFAULT_IPC_DIR
    except InvalidOption as error:
        path = _private_directory(_FALLBACK_IPC_DIR % os.getuid())
        if is_there:
            LOG.warning('%s; %s is used in its place, where only processes of '
                        'this user are found', error, path)
        return path


def check_ipc_directory(settings):
    """Refuse a directory that was asked for and can never work; makes none,
    for a service may drop its privileges later.

    :raises: InvalidOption
    """
    path = settings.ipc_dir and os.path.abspath(settings.ipc_dir)
    if path and os.path.lexists(path):
        _ensure(path)


def _ensure(path):
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise InvalidOption(f'rpc_zmq_ipc_dir: {error}') from None
    if os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return
    if not (_is_read_only(path) and os.access(path, os.R_OK | os.X_OK)):
        status = os.stat(path)
        raise InvalidOption(
            f'rpc_zmq_ipc_dir: no permission for {path} (it belongs to user '
            f'{status.st_uid} and group {status.st_gid}, mode '
            f'{stat.S_IMODE(status.st_mode):04o}; this process runs as user '
            f'{os.geteuid()})')
    # It may be written again; clients work meanwhile.
    LOG.warning('rpc_zmq_ipc_dir: %s is on a read-only file system; no '
                'service can start or be registered there', path)


def _refuse_read_only(path):
    if _is_read_only(path):
        raise InvalidOption(f'rpc_zmq_ipc_dir: {path} is on a read-only file '
                            'system')


def _is_read_only(path):
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _private_directory(path):
    _ensure(path)
    status = os.lstat(path)
    # /tmp is everybody's: somebody else may have made it, or a link.
    if (status.st_uid != os.getuid() or status.st_mode & 0o077
            or not os.path.isdir(path) or os.path.islink(path)):
        raise InvalidOption(f'rpc_zmq_ipc_dir: {path} is not a private '
                            'directory of this user; set the option')
    return path
