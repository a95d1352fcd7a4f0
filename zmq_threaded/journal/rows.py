# SPDX-License-Identifier: Apache-2.0
"""What the rows of a journal say, made of deliveries and into deliveries."""

import dataclasses
import json
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.journal import kept as keeping

Delivery = deliveries.Delivery


def of_message(delivery: Delivery, topic: int) -> tuple:
    """The row of a message.

    :param topic: the number of its topic
    """
    return (delivery.kept.key, delivery.id, delivery.kind, delivery.flags,
            topic, delivery.spread, delivery.expires,
            keeping.to_wall(delivery.expires),
            delivery.expires - time.monotonic(),
            keeping.to_wall(delivery.since), delivery.kept.size,
            *delivery.body)


def to_deliveries(file: Any, row: tuple, parts: Sequence[tuple],
                  names: dict[int, str], instances: dict[int, bytes],
                  is_this_boot: bool) -> list[Delivery]:
    """The copies of a message; the message itself if it has none.

    :param file: journal.file.JournalFile in which they are
    :param names: topics by number, as text_of() made them
    :param instances: packed records by number
    :param is_this_boot: see kept.deadline()
    """
    (key, message_id, kind, flags, topic, spread, until, wall, lifetime,
     since, size, context, message) = row
    kept = keeping.Kept(file, key, size, max(1, len(parts)), topic)
    first = Delivery(
        kind=kind, topic=topic_of(names[topic]), body=[context, message],
        flags=flags & ~wire.CONFIRM, id=message_id, kept=kept,
        spread=bool(spread), since=keeping.began(since),
        expires=keeping.deadline(until, wall, lifetime, is_this_boot))
    if not parts:
        return [first]
    return [_copy(first, part, names, instances) for part in parts]


def _copy(first, part, names, instances):
    number, _, topic, instance, pinned = part
    packed = instances.get(instance)
    found = keeping.unpack(packed) if packed else None
    return dataclasses.replace(
        first, topic=topic_of(names[topic]), spread=False, part=number,
        pinned=bool(pinned), instance=found if pinned else None,
        chosen=None if pinned else found,
        recorded_for=found.id if found else b'')


def text_of(topic: topics.Topic) -> str:
    """A topic, for a row; of ASCII, whatever its names are."""
    return json.dumps([topic.exchange, topic.name, topic.server, topic.key])


def topic_of(text: str) -> topics.Topic:
    """What text_of() was made of."""
    return topics.Topic(*json.loads(text))


def pools(connection: sqlite3.Connection
          ) -> list[tuple[topics.Topic, str, float]]:
    """(topic, pool, when it was seen last, on the wall) of each pool that a
    journal knows.
    """
    return [(topic_of(topic), json.loads(pool), seen)
            for topic, pool, seen in connection.execute(
                'SELECT topic, pool, seen FROM pools')]
