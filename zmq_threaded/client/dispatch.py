# SPDX-License-Identifier: Apache-2.0
"""Gives a message to an instance that can be reached."""

import time
from collections.abc import Callable

from zmq_threaded.client import connections
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import losses
from zmq_threaded.client import waiting

Delivery = deliveries.Delivery
# Instances that are tried in one turn for one topic: others wait as well.
_TRIES = 64
# Seconds in which a service whose socket file was removed makes it anew.
_MADE_ANEW = 5.0
_CLOSING = 'its service is closing, and takes no new messages'


class Dispatch:
    """Chooses the instance for a message and queues the message for it.

    :param cache: registry.cache.Cache, from which instances are chosen
    :param reached: the connections of the outbox
    :param waiting: gets the messages for which there is no instance
    :param drop: called with a message that its instance cannot take, a
        losses.Cause and the reason
    :param drop_copy: called with a copy whose instance cannot be reached
    :param allows: whether a message may be queued for an instance now; if
        not, it is routed again later

    Thread: outbox.
    """

    def __init__(self, cache, reached: connections.Connections,
                 waiting: waiting.Waiting, drop: Callable,
                 drop_copy: Callable, allows: Callable):
        self._cache = cache
        self._connections = reached
        self._waiting = waiting
        self._drop = drop
        self._drop_copy = drop_copy
        self._allows = allows

    def give(self, delivery: Delivery) -> None:
        """Queue a message for an instance of its topic that can be reached,
        or let the message wait.

        :raises: descriptors.Short
        """
        if delivery.pinned:
            return self._give_copy(delivery)
        for _ in range(_TRIES):
            delivery.instance = (delivery.chosen
                                 or self._cache.choose(delivery.topic))
            delivery.chosen = None
            if delivery.instance is None:
                return self._waiting.add(delivery)
            queue = self._queue_for(delivery)
            if queue and not queue.connection.is_closing():
                return self._push(queue, delivery)
            # Without a queue the connections have said why.
            if queue:
                self._cache.unreachable(delivery.instance, _CLOSING)
        delivery.instance = None
        self._waiting.go_on(delivery)

    def _give_copy(self, copy):
        queue = self._queue_for(copy)
        if queue:
            self._push(queue, copy)
        else:
            self._drop_copy(copy)

    def _queue_for(self, delivery):
        return self._connections.to(delivery.instance,
                                    lambda: self._is_patient(delivery))

    def _is_patient(self, delivery):
        """Whether a message waits for the socket file of its instance, which
        may be made anew: the message can go to nobody else.
        """
        return (time.monotonic() - delivery.since < _MADE_ANEW
                and (delivery.pinned
                     or len(self._cache.listed(delivery.topic)) == 1))

    def _push(self, queue, delivery):
        delivery.held_up = ''
        limit, size = queue.instance.limit, sum(map(len, delivery.body))
        if limit and size > limit:
            # It would cost the connection, each time it is sent.
            return self._drop(delivery, losses.REFUSED, (
                f'it has {size} bytes, and {queue.instance} takes {limit} '
                '(rpc_zmq_max_message_size, which is to be the same '
                'everywhere)'))
        if self._allows(delivery, queue.instance):
            queue.push(delivery)
