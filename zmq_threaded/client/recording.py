# SPDX-License-Identifier: Apache-2.0
"""Which messages in custody lie in a journal, and what the journal has to
know before they are sent.
"""

import collections
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

from zmq_threaded import topic as topics
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import in_doubt
from zmq_threaded.client import losses
from zmq_threaded.client import store
from zmq_threaded.client import under_way
from zmq_threaded.client import waiting
from zmq_threaded.journal import drops
from zmq_threaded.registry import record

Delivery = deliveries.Delivery
_RECORDING, _MOVING = deliveries.Where.RECORDING, deliveries.Where.MOVING
# Seconds after which it is written again that a pool has listeners.
_SEEN_EVERY = 3600.0


@dataclasses.dataclass
class _Pools:
    """The pools of a topic.

    :ivar seen: when each was seen last, in seconds of the clock on the wall

    Thread: outbox.
    """

    topic: topics.Topic
    seen: dict[str, float] = dataclasses.field(default_factory=dict)


class Recording:
    """The journal as custody sees it. What does not lie in a journal passes
    by.

    :param journals: journal.journals.Journals, or None
    :param all_messages: client.store.Store
    :param doubt: in_doubt.InDoubt
    :param waiting: client.waiting.Waiting
    :param cache: registry.cache.Cache, from which instances are chosen
    :param custody: client.custody.Custody
    :param lifetime: seconds for which a pool is known without listeners

    Thread: outbox.
    """

    def __init__(self, journals: Any, all_messages: store.Store,
                 doubt: in_doubt.InDoubt, waiting: waiting.Waiting,
                 cache: Any, custody: Any, lifetime: float) -> None:
        self._journals = journals
        self._store = all_messages
        self._in_doubt = doubt
        self._waiting = waiting
        self._cache = cache
        self._custody = custody
        self._lifetime = lifetime
        self._pools: dict[str, _Pools] = {}
        self._under_way = under_way.UnderWay()
        # What was dropped to make room, and is not written off yet.
        self._going: set[Any] = set()
        if journals is not None:
            journals.client = self

    # Where messages go

    def allows(self, delivery: Delivery, instance: record.Instance) -> bool:
        """Whether a message may be queued for an instance now. If not, it is
        routed again when the journal knows the instance: whoever adopts the
        journal has to know who may have had the message.
        """
        if delivery.kept is None:
            return True
        if delivery.recorded_for != instance.id:
            delivery.part = delivery.part or delivery.kept.file.next_part()
            self._record([(delivery, instance)], self._route)
        elif delivery.pinned or not self._under_way.has_before(delivery):
            return True
        else:
            delivery.where = _RECORDING
            self._under_way.park(delivery)
        return False

    def _record(self, parts, route):
        """:param parts: of (delivery, Instance or None)
        :param route: called with those that are pinned afterwards; the others
            are routed in their order
        """
        for delivery, _ in parts:
            delivery.where = _RECORDING
            if not delivery.pinned:
                self._under_way.add(delivery)
        self._journals.record(parts[0][0].kept.file, parts, functools.partial(
            self._recorded, parts, route))

    def copies(self, original: Delivery, copies: list[Delivery],
               route: Callable[[list[Delivery]], None]) -> None:
        """Route the copies of a message. If the message lies in a journal,
        they take its place there before.

        :param route: called with those that have not ended before
        """
        if original.kept is None or not copies:
            return route(copies)
        kept = original.kept
        kept.left += len(copies)
        for copy in copies:
            copy.part = kept.file.next_part()
            self._store.all[copy] = None
        parts = [(copy, copy.instance or self._cache.choose(copy.topic))
                 for copy in copies]
        self._record(parts, route)

    def _recorded(self, parts, route):
        for delivery, instance in parts:
            if instance is not None:
                delivery.recorded_for = instance.id
            if not delivery.pinned:
                delivery.chosen = instance
                self._under_way.remove(delivery)
                self._under_way.park(delivery)
        route(self._moving(delivery for delivery, _ in parts
                           if delivery.pinned))
        for delivery, _ in parts:
            if not delivery.pinned:
                self._route(self._moving(self._under_way.released(delivery)))

    @staticmethod
    def _moving(found):
        """Those that have not ended meanwhile."""
        moving = [each for each in found if each.where is _RECORDING]
        for delivery in moving:
            delivery.where = _MOVING
        return moving

    def _route(self, found):
        for delivery in found:
            self._custody.route(delivery)

    # The end

    def ended(self, delivery: Delivery) -> None:
        """A message has ended. Its services have to remember its id until its
        end is written: before that it may come again.
        """
        kept = delivery.kept
        if kept is None:
            return self._in_doubt.ended(delivery)
        kept.left -= 1
        if delivery.part or not kept.left:
            self._journals.ended(delivery, is_last=not kept.left)
        else:
            self._in_doubt.ended(delivery)

    def removed(self, ended: list[Delivery]) -> None:
        """The end of these messages is written."""
        for delivery in ended:
            self._going.discard(delivery.kept)
            self._in_doubt.ended(delivery)

    @staticmethod
    def outlives(delivery: Delivery) -> bool:
        """Tell the sender of a message, if he waits, that the driver closes.

        :returns: whether the message stays in its journal
        """
        if delivery.kept is None:
            return False
        delivery.tell(deliveries.FAILED, 'the driver was closed; the message '
                      'stays in its journal, from which others may send it')
        return True

    # Journals of others

    def adopt(self, found: list[Delivery]) -> None:
        """Send what was in the journal of a process that died."""
        self._route(found)

    def mark_stranded(self) -> None:
        """Mark the adopted messages of which only copies for pools without
        listeners are left: those that come later need not wait for them. And
        the adopted journals of which all waits for nobody: other journals
        need not wait for them.
        """
        stranded = [each for each in self._waiting.all_stranded()
                    if _is_adopted(each)]
        copies = collections.Counter(
            each.kept for each in stranded
            if each.part and not each.kept.is_stranded)
        for kept, count in copies.items():
            kept.is_stranded = count >= kept.left
        of_files = collections.Counter(each.kept.file for each in stranded)
        for file, count in collections.Counter(
                each.kept.file for each in self._store
                if _is_adopted(each)).items():
            file.is_stranded = of_files[file] == count

    # Pools

    def know_pool(self, topic: topics.Topic, pool: str, seen: float) -> None:
        """A pool had listeners.

        :param seen: when, in seconds of the clock on the wall
        """
        known = self._pools.setdefault(topic.key, _Pools(topic)).seen
        known[pool] = max(seen, known.get(pool, 0.0))

    def pools(self, original: Delivery, listed: set[str]) -> set[str]:
        """The pools that are to have a copy of a notification. If it lies in
        a journal, these are also those that had listeners lately.

        :param listed: those that have listeners now
        """
        if original.kept is None:
            return listed
        topic, now = original.topic, time.time()
        known = self._pools.setdefault(topic.key, _Pools(topic)).seen
        for pool in listed:
            if now - known.get(pool, 0.0) > _SEEN_EVERY:
                self._journals.seen(topic, pool)
                known[pool] = now
        return listed | {pool for pool, seen in known.items()
                         if now - seen < self._lifetime}

    # What operators want

    def drop(self, name: str, pool: str | None) -> None:
        """Drop the messages of a topic, or the copies of a pool, and forget
        the pool; see journal.drops.
        """
        for delivery in self._store:
            if (delivery.kept is not None
                    and drops.matches(delivery.topic, name, pool)):
                self._custody.drop(delivery, losses.BY_HAND)
        if pool is not None:
            for known in self._pools.values():
                if drops.matches(known.topic, name, None):
                    known.seen.pop(pool, None)

    # Room

    def make_room(self, size: int) -> None:
        """Drop the oldest messages for which there is nobody, until so many
        bytes of this process's own journal are free. It may be asked again
        before the journal thread has written off what was dropped.
        """
        size -= sum(kept.size for kept in self._going)
        for delivery in self._waiting.stranded():
            if size < 0:
                return
            kept = delivery.kept
            if kept is not None and not _is_adopted(delivery):
                if kept.left == 1:
                    # The bytes are free with the last copy.
                    size -= kept.size
                    self._going.add(kept)
                self._custody.drop(delivery, losses.NO_SPACE)


def _is_adopted(delivery):
    # The number of its topic says so.
    return delivery.kept is not None and delivery.kept.topic is not None
