# SPDX-License-Identifier: Apache-2.0
"""Which messages wait for their journal, so that none overtakes another."""

import collections
import heapq
import itertools

from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries

Delivery = deliveries.Delivery


class _Line:
    """The messages of one topic and sender.

    :ivar counts: how many with this id wait for the journal
    :ivar heap: these ids, and stale ones, but never as the first
    :ivar parked: (id, a number, message) of those that wait for earlier ones

    Thread: outbox.
    """

    def __init__(self) -> None:
        self.counts: collections.Counter[bytes] = collections.Counter()
        self.heap: list[bytes] = []
        self.parked: list[tuple[bytes, int, Delivery]] = []


class UnderWay:
    """Knows by topic and sender what waits for a journal, and keeps back what
    came later.

    Thread: outbox.
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[str, bytes], _Line] = {}
        self._numbers = itertools.count()

    def add(self, delivery: Delivery) -> None:
        """A message waits for the journal from now on."""
        line = self._lines.setdefault(_key(delivery), _Line())
        line.counts[delivery.id] += 1
        heapq.heappush(line.heap, delivery.id)

    def remove(self, delivery: Delivery) -> None:
        """A message does not wait for the journal any more."""
        line = self._lines[_key(delivery)]
        line.counts[delivery.id] -= 1
        if not line.counts[delivery.id]:
            del line.counts[delivery.id]
        while line.heap and line.heap[0] not in line.counts:
            heapq.heappop(line.heap)

    def has_before(self, delivery: Delivery) -> bool:
        """Whether an earlier message of the same topic and sender waits for
        the journal.
        """
        line = self._lines.get(_key(delivery))
        return line is not None and bool(line.heap) and (
            line.heap[0] < delivery.id)

    def park(self, delivery: Delivery) -> None:
        """Keep a message back until no earlier one waits."""
        line = self._lines.setdefault(_key(delivery), _Line())
        heapq.heappush(line.parked, (delivery.id, next(self._numbers),
                                     delivery))

    def released(self, of: Delivery) -> list[Delivery]:
        """The messages of the same topic and sender as this one that are not
        to be kept back any more, in their order.
        """
        line = self._lines.get(_key(of))
        found: list[Delivery] = []
        if line is None:
            return found
        while line.parked and not (
                line.heap and line.heap[0] < line.parked[0][0]):
            found.append(heapq.heappop(line.parked)[2])
        if not line.heap and not line.parked:
            del self._lines[_key(of)]
        return found


def _key(delivery):
    return delivery.topic.key, wire.maker(delivery.id)
