# SPDX-License-Identifier: Apache-2.0
"""Messages for which there is no instance, by topic."""

import collections
import functools
from collections.abc import Callable
from collections.abc import Iterator

from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import room
from zmq_threaded.registry import registry as registries

Delivery = deliveries.Delivery
Queue = collections.deque[Delivery]
_WAITING, _MOVING = deliveries.Where.WAITING, deliveries.Where.MOVING


class Waiting:
    """The messages that wait for a service, in their order. Each topic is
    looked for until there is a service.

    :param registry: registry.registry.Registry
    :param tell: runs a callable in the outbox thread, later
    :param route: called with each message when there is an instance
    :param end: called with each message whose look-ups are used up, and with
        the event that its sender is told

    Thread: outbox.
    """

    def __init__(self, registry, tell: Callable, route: Callable,
                 end: Callable):
        self._registry = registry
        self._tell = tell
        self._route = route
        self._end = end
        self._by_key: dict[str, Queue] = {}
        # Keys of the topics for which look-ups found nobody.
        self._stranded: set[str] = set()

    def __len__(self) -> int:
        """How many topics are looked for."""
        return len(self._by_key)

    def __iter__(self) -> Iterator[Delivery]:
        return iter([delivery for queue in self._by_key.values()
                     for delivery in queue])

    def __contains__(self, topic: topics.Topic) -> bool:
        return topic.key in self._by_key

    def add(self, delivery: Delivery) -> None:
        """Let a message wait behind those of its topic."""
        delivery.where = _WAITING
        queue = self._by_key.get(delivery.topic.key)
        if queue is None:
            self._by_key[delivery.topic.key] = collections.deque([delivery])
            self._ask(delivery.topic, registries.AT_ONCE)
        else:
            queue.append(delivery)
            if delivery.waiter is not None:
                # The messages before it may have time, its sender has not.
                self._registry.ask(delivery.topic, lambda looked_at: None)

    def put_back(self, delivery: Delivery) -> None:
        """As add(), for a message that was on its way meanwhile: before those
        of the same sender that came later.
        """
        queue = self._by_key.get(delivery.topic.key)
        if queue is None or not _is_later(queue[-1], delivery):
            return self.add(delivery)
        delivery.where = _WAITING
        queue.insert(next(place for place, each in enumerate(queue)
                          if _is_later(each, delivery)), delivery)

    def remove(self, delivery: Delivery) -> None:
        """Take out a message that waits here."""
        self._by_key[delivery.topic.key].remove(delivery)
        delivery.where = _MOVING

    def _ask(self, topic, within):
        self._registry.ask(topic, lambda looked_at: self._tell(
            functools.partial(self._looked_up, topic, looked_at)), within)

    def _looked_up(self, topic, looked_at):
        """Route or keep the messages of a topic, now that it was looked up.

        :param looked_at: monotonic seconds; None when the registry is
            down: that says nothing of who is there, and uses up no look-ups
        """
        if self._registry.cache.live(topic):
            return self._route_all(topic)
        if self._registry.cache.is_expected(topic):
            looked_at = None    # somebody is there, behind a closing receiver
        queue = self._by_key.pop(topic.key, ())
        remaining = [delivery for delivery in queue
                     if looked_at is None
                     or self._may_wait(delivery, looked_at)]
        if remaining:
            self._found_nobody(topic, remaining)
        else:
            self._stranded.discard(topic.key)

    def go_on(self, delivery: Delivery) -> None:
        """Try the next instances for a message soon: there may be one that
        can be reached, but this turn was long enough.
        """
        delivery.where = _WAITING
        self._by_key[delivery.topic.key] = collections.deque([delivery])
        self._tell(functools.partial(self._route_all, delivery.topic))

    def _route_all(self, topic):
        """Route the messages of a topic in their order, until one of them has
        to wait again.
        """
        self._stranded.discard(topic.key)
        queue = self._by_key.pop(topic.key, ())
        while queue:
            delivery = queue.popleft()
            delivery.where = _MOVING
            self._route(delivery)
            again = self._by_key.get(topic.key)
            if again is not None:
                queue.extendleft(reversed(again))
                self._by_key[topic.key] = queue
                return

    def _found_nobody(self, topic, remaining):
        self._by_key[topic.key] = collections.deque(remaining)
        self._stranded.add(topic.key)
        remaining[0].destination.call_next()
        somebody_waits = any(delivery.waiter is not None
                             for delivery in remaining)
        self._ask(topic, registries.IN_HASTE if somebody_waits
                  else registries.AT_LEISURE)

    def _may_wait(self, delivery, looked_at):
        """Whether a message waits on after a look-up that found nobody."""
        if delivery.kind == wire.FANOUT and delivery.spread:
            # The fanout waited only for the registry. Services that come
            # later are not meant.
            delivery.where = _MOVING
            self._route(delivery)
            return False
        if delivery.attempts is None or delivery.since > looked_at:
            return True
        delivery.attempts -= 1
        if delivery.attempts > 0:
            return True
        delivery.where = _MOVING
        self._end(delivery, deliveries.NOBODY)
        return False

    def hasten(self) -> None:
        """Look for all topics soon, and not when it is convenient."""
        for queue in list(self._by_key.values()):
            if queue:
                self._registry.ask(queue[0].topic, lambda looked_at: None)

    def oldest_stranded(self, destination: room.Destination
                        ) -> Delivery | None:
        """The oldest message of a destination for which nobody was found, be
        the registry up or down; None if there is somebody for all.
        """
        stranded = [each for key in self._stranded
                    for each in self._first_of(key, destination)]
        return min(stranded, key=lambda delivery: delivery.id, default=None)

    def _first_of(self, key, destination):
        # What was adopted is counted elsewhere, and waits before the rest.
        for each in self._by_key.get(key, ()):
            if each.destination is destination:
                return [each]
        return []

    def stranded(self) -> list[Delivery]:
        """The messages for which nobody was found, the oldest first."""
        return sorted(self.all_stranded(),
                      key=lambda delivery: delivery.since)

    def all_stranded(self) -> Iterator[Delivery]:
        """As stranded(), in no order."""
        return (each for key in self._stranded
                for each in self._by_key.get(key, ()))


def _is_later(one, other):
    """Whether a message came later than another one of the same sender."""
    return (one.id > other.id
            and wire.maker(one.id) == wire.maker(other.id))
