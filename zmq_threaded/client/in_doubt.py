# SPDX-License-Identifier: Apache-2.0
"""Which messages may be sent again."""

import collections
import heapq

from zmq_threaded import wire

_SLACK = 1000


class InDoubt:
    """Ids of the messages that were sent and are still in custody, wherever
    they are now: their services have to know them when they come again.

    Thread: outbox.
    """

    def __init__(self):
        # Copies of a fanout have one id.
        self._copies = collections.Counter()
        self._heap = []

    def __len__(self):
        return len(self._heap)

    def sent(self, delivery):
        if delivery.is_unsettled or delivery.kind == wire.CALL:
            return      # a call is never sent twice
        delivery.is_unsettled = True
        self._copies[delivery.id] += 1
        if self._copies[delivery.id] == 1:
            heapq.heappush(self._heap, delivery.id)

    def ended(self, delivery):
        if not delivery.is_unsettled:
            return
        delivery.is_unsettled = False
        self._copies[delivery.id] -= 1
        if not self._copies[delivery.id]:
            del self._copies[delivery.id]
        if len(self._heap) > 2 * len(self._copies) + _SLACK:
            self._heap = sorted(self._copies)

    def settled(self, next_id):
        """The id below which nothing will be sent again.

        :param next_id: of what is about to be sent
        """
        heap = self._heap
        while heap and heap[0] not in self._copies:
            heapq.heappop(heap)
        return min(heap[0], next_id) if heap else next_id
