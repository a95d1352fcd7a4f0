# SPDX-License-Identifier: Apache-2.0
"""Fanouts and notifications: who is to have a copy, and who had one."""

import collections
import functools
import time
from collections.abc import Callable

from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import fanouts

Delivery = deliveries.Delivery
Asked = collections.deque[tuple[float, Delivery]]
_SPREADING, _MOVING = deliveries.Where.SPREADING, deliveries.Where.MOVING
_ENDED = deliveries.Where.ENDED
COPY_IS_GONE = 'its instance is gone'
# Seconds in which copies are routed before other tasks have their turn. To
# open 1,000 connections takes a hundred times as long, and what is sent over
# the first of them need not wait for the last.
_AT_A_TIME = 0.002


class Spreading:
    """Makes the copies of a message, as soon as the registry has said who is
    to have one.

    :param registry: registry.registry.Registry
    :param counters: counters.Counters
    :param losses: client.losses.Losses
    :param tell: runs a callable in the outbox thread, later
    :param custody: client.custody.Custody, which gets the copies
    :param record: client.recording.Recording

    Thread: outbox.
    """

    def __init__(self, registry, counters, losses, tell: Callable, custody,
                 record):
        self._registry = registry
        self._counters = counters
        self._losses = losses
        self._tell = tell
        self._custody = custody
        self._recording = record
        self._fanouts = fanouts.Fanouts()
        # By the key of a topic that the registry was asked for: what came
        # since the last look-up, and when.
        self._asked: dict[str, Asked] = {}
        self._unspread: collections.deque[tuple[Delivery, bool]] = (
            collections.deque())
        self._unrouted: collections.deque[Delivery] = collections.deque()
        self._is_busy = False

    def add(self, original: Delivery) -> None:
        """Copy a message as soon as the registry says for whom."""
        original.where = _SPREADING
        asked = self._asked.get(original.topic.key)
        if asked is None:
            self._ask(original.topic)
            asked = self._asked[original.topic.key] = collections.deque()
        asked.append((time.monotonic(), original))

    def _ask(self, topic):
        self._registry.ask(topic, lambda looked_at: self._tell(
            functools.partial(self._looked_up, topic, looked_at)))

    def _looked_up(self, topic, looked_at):
        """Spread what came before the topic was looked up.

        :param looked_at: when that began; None if the registry did not
            answer, then those who are known count
        """
        asked = self._asked.pop(topic.key)
        while asked and (looked_at is None or asked[0][0] <= looked_at):
            self._unspread.append((asked.popleft()[1], looked_at is None))
        if asked:
            self._ask(topic)
            self._asked[topic.key] = asked
        self._go_on()

    def _go_on(self):
        if not self._is_busy:
            self._do_some()

    def _do_some(self):
        self._is_busy = True
        try:
            self._is_busy = self._has_more_at(time.monotonic() + _AT_A_TIME)
        finally:
            if self._is_busy:
                self._tell(self._do_some)

    def _has_more_at(self, end):
        # All in one line: two fanouts must not overtake each other.
        while time.monotonic() < end:
            if self._unrouted:
                copy = self._unrouted.popleft()
                if copy.where is not _ENDED:
                    self._custody.route(copy)
            elif self._unspread:
                self._spread(*self._unspread.popleft())
            else:
                return False
        return True

    def _spread(self, original, is_down):
        """Copy a message for all who are to have it, now that they are known.

        :param is_down: whether the registry did not answer
        """
        if original.where is not _SPREADING:
            return      # the message expired meanwhile
        original.where = _MOVING
        try:
            copies = self._copies(original)
            if not copies and (original.kind == wire.NOTIFY or is_down):
                return self._custody.wait(original)
            original.destination.add(len(copies))
            self._note(original, copies)
            self._recording.copies(original, copies, self._route)
        except Exception as error:
            return self._custody.failed(original, error)
        # Whoever waits for the original learns that its copies are on their
        # way, not that each has arrived.
        self._custody.end(original, deliveries.TAKEN if copies
                          else deliveries.NOBODY)

    def _route(self, copies):
        for copy in copies:
            # Copies for one receiver travel together.
            if copy.group:
                self._custody.route(copy)
        self._unrouted.extend(copy for copy in copies if not copy.group)
        self._go_on()

    def _copies(self, original):
        if original.kind == wire.NOTIFY:
            return self._copies_for_pools(original)
        return self._copies_for_instances(original)

    def _copies_for_pools(self, original):
        topic = original.topic
        return [original.copy_for_pool(
            topics.pool(topic.exchange, topic.name, pool))
            for pool in sorted(self._recording.pools(original,
                                                     self._pools(topic)))]

    def _pools(self, topic):
        return {instance.pool
                for instance in self._registry.cache.listed(topic)}

    def _copies_for_instances(self, original):
        groups: dict[tuple, list] = collections.defaultdict(list)
        copies = []
        for instance in self._registry.cache.listed(original.topic):
            if instance.receiver:
                group = groups[instance.endpoints]
                group.append(original.copy_for(instance, group))
                copies.append(group[-1])
            else:
                copies.append(original.copy_for(instance))
        return copies

    # Who had none

    def _note(self, original, copies):
        missing = self._registry.cache.vanished(original.topic)
        if original.kind == wire.NOTIFY:
            self._report_lost_pools(original, missing)
        elif copies:
            self._fanouts.spread(original.id, len(copies))
        elif missing:
            self._losses.nobody_there(original, 'reached nobody', missing)

    def _report_lost_pools(self, original, missing):
        """A pool whose listeners the registry has lost has no copy."""
        listed = missing and self._recording.pools(
            original, self._pools(original.topic))
        missing = [each for each in missing if each[0].pool not in listed]
        if missing:
            pools = sorted({instance.pool for instance, _ in missing})
            self._counters.add('pools_without_copy', len(pools))
            self._losses.nobody_there(
                original, 'has no copy for the pools '
                f'{", ".join(map(repr, pools[:3]))}', missing)

    def drop_copy(self, copy: Delivery) -> None:
        """End a fanout's copy whose server is gone."""
        self._losses.copy_for_gone(copy, COPY_IS_GONE)
        self._custody.end(copy, deliveries.FAILED, COPY_IS_GONE)

    def copy_ended(self, copy: Delivery, is_gone: bool) -> None:
        """Note the end of a fanout's copy.

        :param is_gone: whether it ended because its server is gone
        """
        gone = self._fanouts.ended(copy, is_gone)
        if gone:
            self._counters.add('fanouts_to_nobody')
            self._losses.nobody_there(
                copy, 'reached nobody, for all its servers are gone',
                [(instance, 0) for instance in gone])
