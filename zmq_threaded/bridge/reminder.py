# SPDX-License-Identifier: Apache-2.0
"""A word to the operator who sends over zmq too early."""

import os

from zmq_threaded import logs
from zmq_threaded import topic as topics
from zmq_threaded.registry import registry as registries

LOG = logs.get(__name__)


class Reminder:
    """Says once for each topic without anybody on zmq that the bridge may
    lead to somebody.

    :param other: bridge.other.Other

    Thread: any.
    """

    def __init__(self, other) -> None:
        self._other = other
        self._asking: set[tuple] = set()
        self._told: set[tuple] = set()

    def sending(self, topic: topics.Topic,
                registry: registries.Registry) -> None:
        """A message for a topic is about to be sent over zmq."""
        name = topic.exchange, topic.name
        if name in self._told or registry.cache.listed(topic):
            return
        asked = os.getpid(), topic.key
        if asked not in self._asking:
            self._asking.add(asked)
            registry.ask(topic, lambda looked_at: self._looked_up(
                topic, asked, looked_at is not None
                and not registry.cache.listed(topic)))

    def _looked_up(self, topic, asked, is_empty):
        self._asking.discard(asked)
        name = topic.exchange, topic.name
        if not is_empty or name in self._told:
            return
        self._told.add(name)
        LOG.warning(
            'Nobody listens over zmq on %s, and this process sends over zmq '
            '(rpc_zmq_bridge_send). There may be services that listen only '
            'on the other side of the bridge, %s; messages never go there by '
            'themselves. What to do: if there are such services, set '
            'rpc_zmq_bridge_send=other until they listen on both.', topic,
            self._other)
