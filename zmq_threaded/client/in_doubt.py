# SPDX-License-Identifier: Apache-2.0
"""Which messages were sent and may have to be sent again (pure)."""

import collections
import heapq

from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries

# Ids of ended messages that the heap may keep beside as many as are in doubt.
_SLACK = 1000


class InDoubt:
    """Ids of the messages that were sent and are still in custody, wherever
    they are now. Services have to remember these ids, to drop the message
    when it comes a second time.

    :param maker: of the ids of this process. The messages of others, which
        were adopted, are none of its business: nothing is settled for them.

    Thread: outbox.
    """

    def __init__(self, maker: bytes) -> None:
        self._maker = maker
        # All copies of a fanout have one id.
        self._copies: collections.Counter[bytes] = collections.Counter()
        self._heap: list[bytes] = []

    def __len__(self) -> int:
        return len(self._heap)

    def sent(self, delivery: deliveries.Delivery) -> None:
        """Note that a message was sent."""
        if (delivery.is_in_doubt or delivery.kind == wire.CALL
                or wire.maker(delivery.id) != self._maker):
            return      # a call is never sent twice
        delivery.is_in_doubt = True
        self._copies[delivery.id] += 1
        if self._copies[delivery.id] == 1:
            heapq.heappush(self._heap, delivery.id)

    def ended(self, delivery: deliveries.Delivery) -> None:
        """Note that a message will not be sent again."""
        if not delivery.is_in_doubt:
            return
        delivery.is_in_doubt = False
        self._copies[delivery.id] -= 1
        if not self._copies[delivery.id]:
            del self._copies[delivery.id]
        if len(self._heap) > 2 * len(self._copies) + _SLACK:
            self._heap = sorted(self._copies)

    def settled(self, next_id: bytes) -> bytes:
        """The id below which nothing of the same maker will be sent again;
        b'' if that is not known.

        :param next_id: of what is about to be sent
        """
        if wire.maker(next_id) != self._maker:
            return b''
        heap = self._heap
        while heap and heap[0] not in self._copies:
            heapq.heappop(heap)
        return min(heap[0], next_id) if heap else next_id
