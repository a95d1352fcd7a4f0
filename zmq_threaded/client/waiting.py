# SPDX-License-Identifier: Apache-2.0
"""Messages for which there is no instance, by topic."""

import collections
import functools

from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.registry import registry as registries


class Waiting:
    """What waits for a service; each topic is looked for until there is one.

    :param directory: client.directory.Directory
    :param tell: runs a callable in the outbox thread, later
    :param route: called with each delivery when there is an instance
    :param give_up: called with each whose look-ups are used up

    Thread: outbox.
    """

    def __init__(self, registry, tell, route, give_up):
        self._registry = registry
        self._tell = tell
        self._route = route
        self._give_up = give_up
        self._by_key = {}
        # Where look-ups found nobody.
        self._stranded = set()

    def __len__(self):
        return len(self._by_key)

    def __iter__(self):
        return iter([delivery for waiting in self._by_key.values()
                     for delivery in waiting])

    def __contains__(self, topic):
        return topic.key in self._by_key

    def add(self, delivery):
        waiting = self._by_key.get(delivery.topic.key)
        if waiting is None:
            self._by_key[delivery.topic.key] = collections.deque([delivery])
            self._ask(delivery.topic, registries.AT_ONCE)
        else:
            waiting.append(delivery)
            if delivery.waiter is not None:
                # Those before it may have time.
                self._registry.ask(delivery.topic, lambda looked_at: None)

    def remove(self, delivery):
        """:returns: False if it does not wait here"""
        try:
            self._by_key.get(delivery.topic.key, ()).remove(delivery)
        except (ValueError, AttributeError):
            return False
        return True

    def _ask(self, topic, within):
        self._registry.ask(topic, lambda looked_at: self._tell(
            functools.partial(self._looked_up, topic, looked_at)), within)

    def _looked_up(self, topic, looked_at):
        """:param looked_at: monotonic seconds; None when the registry is
        down: that says nothing of who is there, and uses up no look-ups
        """
        if self._registry.cache.live(topic):
            return self._route_all(topic)
        waiting = self._by_key.pop(topic.key, ())
        remaining = [delivery for delivery in waiting
                     if looked_at is None
                     or self._may_wait(delivery, looked_at)]
        if remaining:
            self._found_nobody(topic, remaining)
        else:
            self._stranded.discard(topic.key)

    def go_on(self, delivery):
        """There may be somebody for it, but this turn was long enough."""
        self._by_key[delivery.topic.key] = collections.deque([delivery])
        self._tell(functools.partial(self._route_all, delivery.topic))

    def _route_all(self, topic):
        """In their order, until one has to wait again."""
        self._stranded.discard(topic.key)
        waiting = self._by_key.pop(topic.key, ())
        while waiting:
            self._route(waiting.popleft())
            again = self._by_key.get(topic.key)
            if again is not None:
                waiting.extendleft(reversed(again))
                self._by_key[topic.key] = waiting
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
        if delivery.kind == wire.FANOUT and delivery.spread:
            # It waited only for the registry; who comes later is not meant.
            self._route(delivery)
            return False
        if delivery.attempts is None or delivery.since > looked_at:
            return True
        delivery.attempts -= 1
        if delivery.attempts > 0:
            return True
        self._give_up(delivery, deliveries.NOBODY)
        return False

    def hasten(self):
        """Look for all topics soon, and not when it is convenient."""
        for waiting in list(self._by_key.values()):
            if waiting:
                self._registry.ask(waiting[0].topic, lambda looked_at: None)

    def pop_stranded(self, destination):
        """Take out the oldest message of a destination for which nobody was
        found, be the registry up or down; None if there is somebody for all.
        """
        stranded = [self._by_key[key] for key in self._stranded
                    if self._is_stranded(key, destination)]
        if not stranded:
            return None
        return min(stranded, key=lambda waiting: waiting[0].id).popleft()

    def _is_stranded(self, key, destination):
        waiting = self._by_key.get(key)
        return bool(waiting) and waiting[0].destination is destination
