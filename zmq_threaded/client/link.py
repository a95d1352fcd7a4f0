# SPDX-License-Identifier: Apache-2.0
"""One DEALER connection, and the messages in custody on it."""

import collections
import time

import zmq

from zmq_threaded import sockets
from zmq_threaded import wire

# Sent and not yet acknowledged, at most; the rest waits here and not in the
# buffers of ZeroMQ and the kernel, where nothing can be taken back.
_WINDOW = 1000
# A lost connection that is not back by then is not waited for.
_GRACE = 1.0
# Silence after which the instance is asked about a message.
_ASK_AFTER, _ASK_AT_MOST_EVERY = 1.0, 10.0
_IDS_PER_QUERY = 1000


class Link:
    """The way from the outbox to one instance.

    :param on_message: called with each multipart that arrives

    Thread: outbox.
    """

    def __init__(self, context, settings, instance, endpoint, on_message):
        self.instance = instance
        self._endpoint = endpoint
        self._on_message = on_message
        self._socket = sockets.dealer_socket(context, settings, endpoint)
        self.fd = self._socket.fd
        self.queue = collections.deque()
        self.sent = {}
        self._connected = False
        self._changed_at = time.monotonic()
        self._ask_at = 0.0
        self._ask_pause = _ASK_AFTER
        self.used_at = self._changed_at

    def push(self, delivery):
        self.queue.append(delivery)

    def pump(self):
        """Receive and send all that is possible now. ZMQ_FD signals changes
        only once, so this ends when nothing is left to do.
        """
        events = sockets.events(self._socket)
        while True:
            if events & sockets.POLLIN:
                self._on_message(self, sockets.receive(self._socket))
            elif events & sockets.POLLOUT and self._may_send():
                self._send(time.monotonic())
            else:
                break
            events = sockets.events(self._socket)
        self._note_connection(bool(events & sockets.POLLOUT))

    def _may_send(self):
        return self.queue and len(self.sent) < _WINDOW

    def _send(self, now):
        while self._may_send():
            delivery = self.queue[0]
            try:
                sockets.send(self._socket, [b'', delivery.frame(
                    self._endpoint)])
            except zmq.Again:
                return
            self.queue.popleft()
            self.used_at = delivery.sent_at = now
            self.sent[delivery.id] = delivery

    def _note_connection(self, connected):
        # A full pipe has no POLLOUT either, but only while there is a peer
        # that reads too slowly; the window keeps a pipe from ever being full.
        if connected != self._connected:
            self._connected = connected
            self._changed_at = time.monotonic()
            self._ask_at = 0.0
            self._ask_pause = _ASK_AFTER

    def check(self, now):
        """Look after the connection; to be called a few times a second.

        :returns: False when the instance is lost
        """
        self.pump()
        if self._connected:
            self._ask(now)
            return True
        return (now - self._changed_at < _GRACE
                and not sockets.is_dead(self._endpoint))

    def is_dead(self):
        """Whether the instance is certain never to come back."""
        return sockets.is_dead(self._endpoint)

    def _ask(self, now):
        """QUERY the fate of what was sent long ago, or before a reconnect."""
        if now < self._ask_at:
            return
        old = [delivery.id for delivery in self.sent.values()
               if delivery.sent_at < max(now - _ASK_AFTER, self._changed_at)]
        if not old:
            self._ask_pause = _ASK_AFTER
            return
        self._ask_at = now + self._ask_pause
        self._ask_pause = min(2 * self._ask_pause, _ASK_AT_MOST_EVERY)
        for start in range(0, len(old), _IDS_PER_QUERY):
            query = wire.encode(
                wire.QUERY, self.instance.id, wire.NO_ID,
                (wire.join_ids(old[start:start + _IDS_PER_QUERY]),))
            try:
                sockets.send(self._socket, [b'', query])
            except zmq.Again:
                return

    def take_back(self, message_id):
        """The delivery with this id, out of custody here; or None."""
        return self.sent.pop(message_id, None)

    def send_again(self, message_id):
        """The instance does not know a message that was sent to it. To keep
        the order, begin with the last one.
        """
        delivery = self.take_back(message_id)
        if delivery is not None:
            self.queue.appendleft(delivery)

    def is_idle(self):
        return not self.queue and not self.sent

    def close(self):
        self._socket.close(linger=0)
