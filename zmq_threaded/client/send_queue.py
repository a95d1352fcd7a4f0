# SPDX-License-Identifier: Apache-2.0
"""The messages in custody on the way to one instance."""

import collections
import time
from collections.abc import Iterator

from zmq_threaded import timings
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.registry import record

Delivery = deliveries.Delivery
_QUEUED, _IN_FLIGHT = deliveries.Where.QUEUED, deliveries.Where.IN_FLIGHT
_MOVING = deliveries.Where.MOVING
# In flight at most; the other messages wait here and not in the buffers of
# ZeroMQ and the kernel, from which nothing can be taken back.
_WINDOW = timings.WINDOW
# Seconds of silence after which the instance is asked about a message.
_ASK_AFTER = timings.ASK_AFTER
# Seconds without sending after the instance said BUSY, doubling.
_FIRST_BACK_OFF, _LAST_BACK_OFF = 0.05, 1.0


class SendQueue:
    """What goes over a connection to one instance, in order.

    :param connection: dealer_connection.Connection
    :ivar queue: messages not yet sent
    :ivar in_flight: messages sent and not yet acknowledged, by id
    :ivar watched: Watch objects by id
    :ivar used_at: when something was sent last, in monotonic seconds
    :ivar look_at: when the registry is to be asked about a lost instance

    Thread: outbox.
    """

    def __init__(self, instance: record.Instance, connection):
        self.instance = instance
        self.connection = connection
        self.queue: collections.deque[Delivery] = collections.deque()
        self.in_flight: dict[bytes, Delivery] = {}
        self.watched: dict[bytes, deliveries.Watch] = {}
        self.look_at = 0.0
        self.used_at = time.monotonic()
        self._ask_at = 0.0
        self._ask_interval = _ASK_AFTER
        self._sends_again_at = self._held_until = 0.0
        self._back_off = 0.0

    def push(self, delivery: Delivery) -> None:
        """Send a message after those that wait here."""
        delivery.where = _QUEUED
        self.queue.append(delivery)
        self.connection.has_work(self)

    def may_send(self, now: float) -> bool:
        """Whether there is a message that the instance may get now."""
        return bool(self.queue) and (len(self.in_flight) < _WINDOW
                                     and now >= self._sends_again_at
                                     and now >= self._held_until)

    def head_was_sent(self, now: float) -> None:
        """The first message that waits is in flight from now on."""
        delivery = self.queue.popleft()
        delivery.where = _IN_FLIGHT
        self.used_at = delivery.sent_at = now
        self.in_flight[delivery.id] = delivery

    def remove(self, delivery: Delivery) -> None:
        """Take out a message that is queued here or in flight."""
        if delivery.where is _IN_FLIGHT:
            self.in_flight.pop(delivery.id, None)
        else:
            self.queue.remove(delivery)
        delivery.where = _MOVING

    def all(self) -> list[Delivery]:
        """The messages in flight, and then those that are queued."""
        return [*self.in_flight.values(), *self.queue]

    def take_back(self, message_id: bytes) -> Delivery | None:
        """Take out the message in flight with this id.

        :returns: None if it is not in flight here
        """
        delivery = self.in_flight.pop(message_id, None)
        if delivery is not None:
            delivery.where = _MOVING
        return delivery

    def send_again(self, message_id: bytes) -> None:
        """Put a message that the instance does not have into its old place."""
        delivery = self.in_flight.pop(message_id, None)
        if delivery is not None:
            delivery.where = _QUEUED
            place = next((place for place, each in enumerate(self.queue)
                          if each.id > delivery.id), len(self.queue))
            self.queue.insert(place, delivery)
            self.connection.has_work(self)

    def back_off(self, message_id: bytes, now: float) -> None:
        """The instance takes no more for now: send this message again, and
        send nothing for a while.
        """
        if now >= self._sends_again_at:
            self._back_off = min(max(2 * self._back_off, _FIRST_BACK_OFF),
                                 _LAST_BACK_OFF)
            self._sends_again_at = now + self._back_off
        self.send_again(message_id)

    def hold(self, until: float) -> None:
        """Send nothing until then, in monotonic seconds, or until there is
        another peer: this one is closing.
        """
        self._held_until = until

    def is_held(self, now: float) -> bool:
        """Whether nothing is sent because the receiver is closing."""
        return now < self._held_until

    def is_taken(self) -> None:
        """Note that the instance takes messages."""
        self._back_off = 0.0

    def connection_changed(self) -> None:
        """Ask soon: the connection was made or lost."""
        self.look_at = self._ask_at = self._held_until = 0.0
        self._ask_interval = _ASK_AFTER

    def questions(self, now: float, connected_at: float,
                  longest_interval: float) -> list[bytes]:
        """The frames of the QUERYs that are due: about what was sent long
        ago, or over an earlier connection.

        :param connected_at: when this connection was made
        :param longest_interval: seconds between two questions, in the end
        """
        if now < self._ask_at:
            return []
        oldest = max(now - _ASK_AFTER, connected_at)
        old = [delivery.id for delivery in self.in_flight.values()
               if delivery.sent_at < oldest]
        if not old and not self.watched:
            self._ask_interval = _ASK_AFTER
            return []
        self._ask_at = now + self._ask_interval
        self._ask_interval = min(2 * self._ask_interval, longest_interval)
        return [*self._queries(old, 0),
                *self._queries(list(self.watched), wire.OBSERVE)]

    def _queries(self, ids: list[bytes], flags: int) -> Iterator[bytes]:
        for start in range(0, len(ids), wire.MOST_IDS_OF_A_QUERY):
            yield wire.encode_query(
                self.instance.id,
                ids[start:start + wire.MOST_IDS_OF_A_QUERY], flags)

    def lose_watched(self) -> None:
        """The instance is lost to the calls that are watched."""
        for watch in self.watched.values():
            watch.is_lost = True

    def is_idle(self) -> bool:
        """Whether nothing is on its way, and no call is watched."""
        return not self.queue and not self.in_flight and not self.watched
