# SPDX-License-Identifier: Apache-2.0
"""Says which messages have been waiting for long, and for whom (pure)."""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from typing import NamedTuple

from zmq_threaded.client import delivery as deliveries

# Destinations that are named, and services of a topic.
_PLACES, _SERVICES = 10, 3


class Overdue(NamedTuple):
    """A destination that is listed and does not take its messages.

    :ivar name: of the topic, and of the instance if one was chosen
    :ivar messages: how many
    :ivar since: when the oldest of them was sent, in monotonic seconds

    Thread: any.
    """

    name: str
    messages: int
    since: float


def mute(held: Iterable[deliveries.Delivery], now: float, limit: float,
         listed: Callable) -> list[Overdue]:
    """The destinations that are listed, and have not acknowledged a message
    that is older than the limit; those with the most messages.

    :param held: the messages in custody
    :param now: monotonic seconds
    :param limit: seconds
    :param listed: gives the instances that are registered for a topic
    """
    places: dict[tuple, list[float]] = {}
    for each in held:
        if now - each.since > limit:
            places.setdefault((each.topic, each.instance), []).append(
                each.since)
    found = [Overdue(_place(topic, instance, listed), len(those), min(those))
             for (topic, instance), those in places.items()
             if _is_listed(topic, instance, listed)]
    return sorted(found, key=lambda each: -each.messages)[:_PLACES]


def _is_listed(topic, instance, listed):
    known = listed(topic)
    # By id: its record may have changed.
    return bool(known) if instance is None else any(
        each.id == instance.id for each in known)


def report(held: Iterable[deliveries.Delivery], now: float, limit: float,
           listed: Callable) -> str | None:
    """Text about the messages that are older than the limit.

    :param held: the messages in custody
    :param now: monotonic seconds
    :param limit: seconds
    :param listed: gives the instances that are registered for a topic
    :returns: None if there are none
    """
    places: collections.Counter = collections.Counter()
    count, oldest = 0, None
    for each in held:
        if now - each.since > limit:
            count += 1
            places[each.topic, each.instance] += 1
            if oldest is None or each.since < oldest.since:
                oldest = each
    if oldest is None:
        return None
    return (f'{count} messages have been waiting for more than {limit:.0f} s '
            f'to be acknowledged, for {now - oldest.since:.0f} s: {oldest} '
            f'is the oldest. For whom they wait: {_named(places, listed)}')


def _named(places, listed):
    named = places.most_common(_PLACES)
    texts = [f'{count} for {_place(topic, instance, listed)}'
             for (topic, instance), count in named]
    if len(places) > _PLACES:
        rest = sum(places.values()) - sum(count for _, count in named)
        texts.append(f'{rest} for {len(places) - _PLACES} other destinations')
    return '; '.join(texts)


def _place(topic, instance, listed):
    if instance is not None:
        return f'{topic} at {instance}'
    known = listed(topic)
    if not known:
        return f'{topic}, for which no service is registered'
    which = ', '.join(map(str, known[:_SERVICES]))
    return (f'{topic}, of which {len(known)} services are registered and none '
            f'has taken them ({which}{", ..." * (len(known) > _SERVICES)})')
