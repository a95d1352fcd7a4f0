# SPDX-License-Identifier: Apache-2.0
"""Fanouts and notifications: who is to have a copy, and who had one."""

import collections
import functools

from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import fanouts

COPY_IS_GONE = 'its instance is gone'


class Spreading:
    """The messages whose receivers are being looked up, and then their
    copies.

    :param tell: runs a callable in the outbox thread, later
    :param losses: client.losses.Losses
    :param custody: client.custody.Custody, which has the copies

    Thread: outbox.
    """

    def __init__(self, registry, counters, losses, tell, custody):
        self._registry = registry
        self._counters = counters
        self._losses = losses
        self._tell = tell
        self._custody = custody
        self._looked_up = set()
        self._fanouts = fanouts.Fanouts()

    def __len__(self):
        return len(self._looked_up)

    def __iter__(self):
        return iter(list(self._looked_up))

    def add(self, original):
        """Copy a message as soon as the registry says for whom."""
        self._looked_up.add(original)
        self._registry.ask(original.topic, lambda looked_at: self._tell(
            functools.partial(self._spread, original, looked_at)))

    def remove(self, original):
        """:returns: False if its receivers are not being looked up"""
        if original not in self._looked_up:
            return False
        self._looked_up.discard(original)
        return True

    def _spread(self, original, looked_at):
        """Copy a message for all who are to have it, now that they are known.

        :param looked_at: None if the registry did not answer; then those
            who are known count
        """
        if not self.remove(original):
            return      # it expired meanwhile
        try:
            copies = self._copies(original)
        except Exception as error:
            return self._custody.failed(original, error)
        if not copies and (original.kind == wire.NOTIFY
                           or looked_at is None):
            return self._custody.wait(original)
        original.destination.add(len(copies))
        self._note(original, copies)
        for copy in copies:
            self._custody.route(copy)
        # Whoever waits for the original learns that its copies are on their
        # way, not that each has arrived.
        self._custody.end(original, deliveries.TAKEN if copies
                          else deliveries.NOBODY)

    def _copies(self, original):
        if original.kind == wire.NOTIFY:
            return self._copies_for_pools(original)
        return self._copies_for_instances(original)

    def _copies_for_pools(self, original):
        topic = original.topic
        return [original.copy_for_pool(
            topics.pool(topic.exchange, topic.name, pool))
            for pool in sorted(self._pools(topic))]

    def _pools(self, topic):
        return {instance.pool
                for instance in self._registry.cache.listed(topic)}

    def _copies_for_instances(self, original):
        groups, copies = collections.defaultdict(list), []
        for instance in self._registry.cache.listed(original.topic):
            group = groups[instance.endpoints] if instance.receiver else ()
            copies.append(original.copy_for(instance, group))
            if instance.receiver:
                group.append(copies[-1])
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
        """One whose listeners the registry has lost has no copy."""
        listed = missing and self._pools(original.topic)
        missing = [each for each in missing if each[0].pool not in listed]
        if missing:
            pools = sorted({instance.pool for instance, _ in missing})
            self._counters.add('pools_without_copy', len(pools))
            self._losses.nobody_there(
                original, 'has no copy for the pools '
                f'{", ".join(map(repr, pools[:3]))}', missing)

    def drop_copy(self, copy):
        """The server of a fanout's copy is gone."""
        self._losses.copy_for_gone(copy, COPY_IS_GONE)
        self._custody.end(copy, deliveries.FAILED, COPY_IS_GONE)

    def copy_ended(self, copy, is_gone):
        gone = self._fanouts.ended(copy, is_gone)
        if gone:
            self._counters.add('fanouts_to_nobody')
            self._losses.nobody_there(
                copy, 'reached nobody, for all its servers are gone',
                [(instance, 0) for instance in gone])
