# SPDX-License-Identifier: Apache-2.0
"""Which messages wait for their journal, so that none overtakes another."""

import collections
import heapq

from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries


class _Line:
    """The ids of one topic and sender; copies of a fanout have the same.

    Thread: outbox.
    """

    def __init__(self) -> None:
        self.counts: collections.Counter[bytes] = collections.Counter()
        self.heap: list[bytes] = []


class UnderWay:
    """The ids of what waits for a journal, by topic and sender.

    Thread: outbox.
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[str, bytes], _Line] = {}

    def add(self, delivery: deliveries.Delivery) -> None:
        """A message waits from now on."""
        line = self._lines.setdefault(_key(delivery), _Line())
        line.counts[delivery.id] += 1
        if line.counts[delivery.id] == 1:
            heapq.heappush(line.heap, delivery.id)

    def remove(self, delivery: deliveries.Delivery) -> None:
        """A message does not wait any more."""
        key = _key(delivery)
        line = self._lines[key]
        line.counts[delivery.id] -= 1
        if not line.counts[delivery.id]:
            del line.counts[delivery.id]
        while line.heap and line.heap[0] not in line.counts:
            heapq.heappop(line.heap)
        if not line.heap:
            del self._lines[key]

    def has_before(self, delivery: deliveries.Delivery) -> bool:
        """Whether an earlier message of the same topic and sender waits."""
        line = self._lines.get(_key(delivery))
        return line is not None and line.heap[0] < delivery.id


def _key(delivery):
    return delivery.topic.key, wire.maker(delivery.id)
