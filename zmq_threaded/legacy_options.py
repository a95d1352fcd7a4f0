# SPDX-License-Identifier: Apache-2.0
"""Names of earlier ZeroMQ drivers that no longer mean anything here.

They are registered so that an old configuration file still loads; oslo.config
logs each one that is set, with its reason. Nothing reads them.
"""

from oslo_config import cfg


def _gone(option_class, name, reason, **kwargs):
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
