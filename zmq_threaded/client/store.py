# SPDX-License-Identifier: Apache-2.0
"""All messages in custody, wherever they are (pure)."""

import collections
from collections.abc import Iterator
from typing import Any

from zmq_threaded import texts
from zmq_threaded import topic as topics
from zmq_threaded.client import delivery as deliveries

Where = deliveries.Where
_WITH_NOBODY = Where.WAITING, Where.SPREADING, Where.HELD_UP
# Services that are named in one text.
_NAMED = 3


class Store:
    """Every message from the moment at which custody of it begins until it
    ends. The queues and the lists in which messages wait keep their order
    alone.

    :ivar all: dict of the messages, by identity, for the copies of a fanout
        have one id; in the order in which they came

    Thread: outbox.
    """

    def __init__(self) -> None:
        self.all: dict[deliveries.Delivery, None] = {}

    def __len__(self) -> int:
        return len(self.all)

    def __iter__(self) -> Iterator[deliveries.Delivery]:
        """The messages of this moment, in the order in which they came."""
        return iter(list(self.all))

    def expired(self, now: float) -> list[deliveries.Delivery]:
        """The messages whose time is over, in monotonic seconds."""
        return [each for each in self.all if each.expires <= now]

    def oldest(self) -> float | None:
        """When the oldest message was posted that would be lost with this
        process, or for which somebody is there, in monotonic seconds; None
        if there is none. What waits in a journal can wait for others.
        """
        return min((each.since for each in self.all if each.kept is None
                    or each.where not in _WITH_NOBODY), default=None)

    def survey(self, now: float) -> dict[str, dict]:
        """What is not acknowledged, by topic.

        :returns: dict of str(topic) to {'count', 'oldest' (seconds), 'id' (of
            the oldest)}
        """
        found: dict[str, dict] = {}
        for delivery in self.all:
            each = found.setdefault(str(delivery.topic), {
                'count': 0, 'oldest': 0.0, 'id': ''})
            each['count'] += 1
            if now - delivery.since >= each['oldest']:
                each.update(oldest=now - delivery.since,
                            id=delivery.id.hex())
        return found

    def pending(self, now: float) -> list[dict[str, Any]]:
        """What is not acknowledged, by destination, as status.facts has it;
        the oldest first. What a journal keeps for nobody is apart.
        """
        found: dict[tuple[str, bool], dict[str, Any]] = {}
        # In the order in which they came: the first of a topic is the oldest.
        for delivery in self.all:
            topic = delivery.topic
            is_kept = (delivery.kept is not None
                       and delivery.where is Where.WAITING)
            each = found.get((topic.key, is_kept))
            if each is None:
                each = found[topic.key, is_kept] = {
                    'exchange': texts.line(topic.exchange, texts.NAME),
                    'topic': texts.line(topic.name, texts.NAME),
                    'server': texts.line(topic.server or '', texts.NAME),
                    'count': 0, 'oldest': now - delivery.since,
                    'where': delivery.where.name.lower(),
                    'to': str(delivery.instance or ''), 'kept': is_kept}
            each['count'] += 1
        return sorted(found.values(), key=lambda each: -each['oldest'])

    def behind(self, topic: topics.Topic) -> str:
        """For whom the most messages of a topic wait, as text of bounded
        length; '' if the messages wait for no service.
        """
        counts: collections.Counter = collections.Counter()
        lack = ''
        for each in self.all:
            if each.topic.key != topic.key:
                continue
            if each.where in (Where.QUEUED, Where.IN_FLIGHT):
                counts[each.instance] += 1
            elif each.where is Where.HELD_UP:
                lack = lack or each.held_up
        return '; '.join([*(f'{count} wait for {instance}' for instance, count
                            in counts.most_common(_NAMED)),
                          *([f'this process is {lack}'] if lack else [])])
