# SPDX-License-Identifier: Apache-2.0
"""What oslo.messaging calls for a transport URL of zmq://."""

from zmq_threaded import driver as drivers
from zmq_threaded.bridge import driver as bridges
from zmq_threaded.bridge import other as others


def driver(conf, url, default_exchange=None, allowed_remote_exmods=None):
    """The driver of a transport: with a bridge if rpc_zmq_bridge is set.

    :param conf: oslo.config ConfigOpts
    :param url: oslo_messaging.TransportURL
    :raises: errors.ConfigurationError
    """
    zmq = drivers.ZmqDriver(conf, url, default_exchange,
                            allowed_remote_exmods)
    if not zmq.settings.bridge:
        return zmq
    return bridges.BridgeDriver(
        zmq, others.Other(conf, zmq.settings.bridge, default_exchange,
                          allowed_remote_exmods),
        zmq.settings.bridge_send == 'other')
