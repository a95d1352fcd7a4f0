# SPDX-License-Identifier: Apache-2.0
"""Names of earlier ZeroMQ drivers that no longer mean anything here.

They are registered so that an old configuration file still loads; oslo.config
logs each one that is set, with its reason. Nothing reads them, but for
[matchmaker_redis], which still says where redis is.
"""

from typing import Any

from oslo_config import cfg


def _gone(option_class: type[cfg.Opt], name: str, reason: str,
          **kwargs: Any) -> cfg.Opt:
    return option_class(name, deprecated_group='DEFAULT',
                        deprecated_for_removal=True,
                        deprecated_reason=reason,
                        help='Accepted and ignored.', **kwargs)


_ALWAYS_ACKNOWLEDGED = ('Every cast is acknowledged and resent on evidence '
                        'that it did not arrive, never by a timer.')
_NO_PUB_SUB = 'PUB/SUB loses messages silently; fanouts are acknowledged.'
_ON_DEMAND = 'Connections are opened when they are needed.'

OPTIONS = [
    _gone(cfg.IntOpt, 'rpc_poll_timeout', 'Threads wait for events.'),
    _gone(cfg.IntOpt, 'rpc_thread_pool_size',
          'Set [DEFAULT] executor_thread_pool_size of oslo.messaging.'),
    _gone(cfg.StrOpt, 'rpc_zmq_concurrency', 'There are only threads.'),
    _gone(cfg.BoolOpt, 'use_pub_sub', _NO_PUB_SUB),
    _gone(cfg.IntOpt, 'rpc_zmq_port_pub', _NO_PUB_SUB),
    _gone(cfg.ListOpt, 'subscribe_on', _NO_PUB_SUB),
    _gone(cfg.BoolOpt, 'use_dynamic_connections', _ON_DEMAND),
    _gone(cfg.IntOpt, 'zmq_failover_connections', _ON_DEMAND),
    _gone(cfg.BoolOpt, 'zmq_immediate',
          'Nothing is ever queued for a peer that is not connected.'),
    _gone(cfg.BoolOpt, 'rpc_use_acks', _ALWAYS_ACKNOWLEDGED),
    _gone(cfg.IntOpt, 'rpc_ack_timeout_base', _ALWAYS_ACKNOWLEDGED),
    _gone(cfg.IntOpt, 'rpc_ack_timeout_multiplier', _ALWAYS_ACKNOWLEDGED),
    _gone(cfg.IntOpt, 'rpc_retry_attempts',
          'The retry argument of the messaging API decides.'),
    _gone(cfg.IntOpt, 'matchmaker_heartbeat_freq',
          'Records are renewed three times in zmq_target_expire.'),
    _gone(cfg.IntOpt, 'matchmaker_heartbeat_ttl', 'Set zmq_target_expire.'),
]

REDIS_GROUP = 'matchmaker_redis'
_REDIS = ('Give the servers in transport_url (zmq+redis://, zmq+sentinel://) '
          'or in rpc_zmq_matchmaker.')


def _redis(option_class: type[cfg.Opt], name: str, **kwargs: Any) -> cfg.Opt:
    return option_class(name, deprecated_for_removal=True,
                        deprecated_reason=_REDIS, **kwargs)


REDIS_OPTIONS = [
    _redis(cfg.StrOpt, 'host', help='Host of redis.'),
    _redis(cfg.PortOpt, 'port', help='Port of redis.'),
    _redis(cfg.StrOpt, 'password', secret=True, help='Password of redis.'),
    _redis(cfg.ListOpt, 'sentinel_hosts',
           help='Sentinels of redis, host:port each.'),
    _redis(cfg.StrOpt, 'sentinel_group_name',
           help='Name under which the sentinels watch the master.'),
    _redis(cfg.IntOpt, 'socket_timeout',
           help='Milliseconds for which an answer of redis is waited for.'),
    _redis(cfg.IntOpt, 'wait_timeout', help='Accepted and ignored.'),
    _redis(cfg.IntOpt, 'check_timeout', help='Accepted and ignored.'),
]


def register(conf: cfg.ConfigOpts, those: list[cfg.Opt], group: str) -> None:
    """Register options, some of which may be there as copies."""
    for option in those:
        try:
            conf.register_opt(option, group=group)
        except cfg.DuplicateOptError:
            # A pickled configuration (a spawned worker's) brings a copy,
            # and a copy that has told of its deprecation is another option.
            if not option.deprecated_for_removal:
                raise


def matchmaker_redis(conf: cfg.ConfigOpts) -> dict[str, Any]:
    """Those options of [matchmaker_redis] that are set, by name."""
    register(conf, REDIS_OPTIONS, REDIS_GROUP)
    values = {option.dest: getattr(conf.matchmaker_redis, option.dest)
              for option in REDIS_OPTIONS}
    return {name: value for name, value in values.items()
            if value is not None}
