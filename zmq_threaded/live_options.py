# SPDX-License-Identifier: Apache-2.0
"""The options of [oslo_messaging_zmq] that mean something.

Their names are those that operators have from the Kilo and Queens drivers.
"""

import socket

from oslo_config import cfg

DEFAULT_MESSAGE_SIZE = 100 * 1024 * 1024


def _live(option_class, name, **kwargs):
    return option_class(name, deprecated_group='DEFAULT', **kwargs)


OPTIONS = [
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
    _live(cfg.StrOpt, 'rpc_zmq_metrics_address',
          help='ADDRESS:PORT on which the receiver of a node serves the '
               'metrics of all processes of the node to Prometheus, without '
               'authentication: 127.0.0.1:9502, [::1]:9502, :9502 for all '
               'addresses. Needs the extra zmq-threaded[metrics]. By default '
               'none is served.'),
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
    _live(cfg.StrOpt, 'rpc_zmq_encryption',
          choices=[('disabled', 'all TCP is open'),
                   ('connect', 'own ports are open; what has a key is '
                               'connected to with encryption'),
                   ('serve', 'own ports are encrypted; open ones are still '
                             'connected to'),
                   ('required', 'nothing goes over TCP in the clear')],
          help='Whether TCP is encrypted and authenticated (CURVE). By '
               'default required if rpc_zmq_key_file is set, else disabled. '
               'A cloud is switched on by three rolling restarts, each with '
               'the next value. IPC is guarded by rpc_zmq_ipc_dir.'),
    _live(cfg.StrOpt, 'rpc_zmq_key_file',
          help='File of the secret key of this node or service, as '
               '"oslo-messaging-zmq keys create" makes it. Only its owner '
               'may be able to read it.'),
    _live(cfg.StrOpt, 'rpc_zmq_trusted_keys',
          help='Directory with the public keys (files *.key) of all who may '
               'connect to this process over TCP, and to whom it connects. '
               'It is read again when it changes.'),
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
    _live(cfg.IntOpt, 'rpc_zmq_stuck_workers_after', default=60, min=1,
          help='Seconds for which no worker of a service may be free, while '
               'messages wait, before the service is reported as stuck (in '
               'the log, and by oslo-messaging-zmq health and status). The '
               'default is that of rpc_response_timeout. Calls that take '
               'longer are legal: set it to more than they take.'),
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
    _live(cfg.StrOpt, 'rpc_zmq_custody', default='memory',
          choices=[('memory', 'they are lost with their process'),
                   ('process', 'they survive the death of the process'),
                   ('disk', 'they survive the loss of power as well')],
          help='What casts, fanouts and notifications survive once cast() or '
               'notify() has returned. All but "memory" keep them in a '
               'journal in rpc_zmq_custody_dir. When their process dies, '
               'another one with the same directory and registry sends '
               'them. Contexts, and the tokens in them, then lie on disk in '
               'the clear.'),
    _live(cfg.StrOpt, 'rpc_zmq_custody_dir',
          sample_default='<rpc_zmq_ipc_dir>/journals',
          help='Directory of the journals, as an absolute path. For "disk" '
               'it must not be a tmpfs, as /var/run often is.'),
    _live(cfg.IntOpt, 'rpc_zmq_custody_ttl', default=86400, min=1,
          help='Seconds after which a message in a journal that nobody took '
               'is dropped and reported; what rpc_message_ttl is for those '
               'in memory. A pool without a listener is known for as long.'),
    _live(cfg.IntOpt, 'rpc_zmq_custody_bytes', default=1 << 30, min=1 << 16,
          help='Bytes of the messages in one journal. When it is full, the '
               'oldest messages for which nobody listens are dropped and '
               'reported. If there are none a sender waits rpc_cast_timeout, '
               'and fails.'),
    _live(cfg.StrOpt, 'rpc_zmq_custody_when_full', default='fail',
          choices=[('fail', 'the cast or notification fails'),
                   ('memory', 'it is kept in memory alone')],
          help='What happens to a message that cannot be written into its '
               'journal, for instance since the disk is full.'),
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
    _live(cfg.StrOpt, 'rpc_zmq_bridge', secret=True,
          help='A transport URL of another driver, such as '
               'rabbit://user:password@host:5672/. While it is set, this '
               'process listens over zmq and over that driver, so that a '
               'cloud can move from one to the other process by process. '
               'In the query of transport_url all of it has to be escaped.'),
    _live(cfg.StrOpt, 'rpc_zmq_bridge_send', default='other',
          choices=[('other', 'the driver of rpc_zmq_bridge'),
                   ('zmq', 'zmq; nothing goes to services that listen only '
                           'on the other driver')],
          help='Over which driver a process with rpc_zmq_bridge sends. A '
               'reply goes back the way its request came.'),
]

# Not in the sample configuration: for those who package an upgrade.
HIDDEN = [
    cfg.BoolOpt('rpc_zmq_two_message_replies', default=False,
                deprecated_for_removal=True,
                deprecated_reason='All releases read replies of one message.',
                help='Reply in two messages, the result and then an ending, '
                     'as the older kind of servers does.'),
]
