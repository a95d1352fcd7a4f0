# SPDX-License-Identifier: Apache-2.0
"""The messages in custody on the way to one instance."""

import collections
import time

from zmq_threaded import wire

# Sent and not yet acknowledged, at most; the rest waits here and not in the
# buffers of ZeroMQ and the kernel, where nothing can be taken back.
_WINDOW = 1000
# Silence after which the instance is asked about a message.
_ASK_AFTER = 1.0
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 1.0


class SendQueue:
    """What goes over a connection to one instance, in order.

    :ivar queue: deliveries not yet sent
    :ivar sent: deliveries not yet acknowledged, by id
    :ivar watched: Watch objects by id
    :ivar used_at: when something was sent last, in monotonic seconds
    :ivar look_at: when the registry is to be asked about a lost instance

    Thread: outbox.
    """

    def __init__(self, instance, connection):
        self.instance = instance
        self.connection = connection
        self.queue = collections.deque()
        self.sent = {}
        self.watched = {}
        self.look_at = 0.0
        self.used_at = time.monotonic()
        self._ask_at = 0.0
        self._ask_pause = _ASK_AFTER
        self._paused_until = 0.0
        self._pause = 0.0

    def push(self, delivery):
        self.queue.append(delivery)
        self.connection.has_work(self)

    def may_send(self, now):
        return (self.queue and len(self.sent) < _WINDOW
                and now >= self._paused_until)

    def head_was_sent(self, now):
        delivery = self.queue.popleft()
        self.used_at = delivery.sent_at = now
        self.sent[delivery.id] = delivery

    def remove(self, delivery):
        """Take a delivery out of the queue.

        :returns: False if it is not there
        """
        if delivery not in self.queue:
            return False
        self.queue.remove(delivery)
        return True

    def take_back(self, message_id):
        """The delivery with this id, out of custody here; or None."""
        return self.sent.pop(message_id, None)

    def send_again(self, message_id):
        """The instance does not have a message that was sent to it; it takes
        its old place.
        """
        delivery = self.take_back(message_id)
        if delivery is not None:
            place = next((place for place, each in enumerate(self.queue)
                          if each.id > delivery.id), len(self.queue))
            self.queue.insert(place, delivery)
            self.connection.has_work(self)

    def back_off(self, message_id, now):
        """The instance takes no more for now."""
        if now >= self._paused_until:
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LAST_PAUSE)
            self._paused_until = now + self._pause
        self.send_again(message_id)

    def is_taken(self):
        """The instance takes messages."""
        self._pause = 0.0

    def connection_changed(self):
        """Ask soon."""
        self.look_at = self._ask_at = 0.0
        self._ask_pause = _ASK_AFTER

    def questions(self, now, connected_at, longest_pause):
        """The frames of the QUERYs that are due: about what was sent long
        ago, or over an earlier connection.

        :param longest_pause: seconds between two questions, in the end
        """
        if now < self._ask_at:
            return []
        oldest = max(now - _ASK_AFTER, connected_at)
        old = [delivery.id for delivery in self.sent.values()
               if delivery.sent_at < oldest]
        if not old and not self.watched:
            self._ask_pause = _ASK_AFTER
            return []
        self._ask_at = now + self._ask_pause
        self._ask_pause = min(2 * self._ask_pause, longest_pause)
        return [*self._queries(old, 0),
                *self._queries(list(self.watched), wire.OBSERVE)]

    def _queries(self, ids, flags):
        for start in range(0, len(ids), wire.MOST_IDS_OF_A_QUERY):
            yield wire.encode_query(
                self.instance.id,
                ids[start:start + wire.MOST_IDS_OF_A_QUERY], flags)

    def lose_watched(self):
        """The instance is lost to the calls that are watched."""
        for watch in self.watched.values():
            watch.is_lost = True

    def is_idle(self):
        return not self.queue and not self.sent and not self.watched
