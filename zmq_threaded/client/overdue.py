# SPDX-License-Identifier: Apache-2.0
"""Says which messages have been waiting for long, and for whom (pure)."""

import collections
from collections.abc import Callable
from collections.abc import Iterable

from zmq_threaded.client import delivery as deliveries

# Destinations that are named, and services of a topic.
_PLACES, _SERVICES = 10, 3


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
