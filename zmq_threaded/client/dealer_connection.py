# SPDX-License-Identifier: Apache-2.0
"""One DEALER connection: to an instance, or to the receiver of many."""

import time
from typing import Any

import zmq

from zmq_threaded import endpoints
from zmq_threaded import timings
from zmq_threaded import wire
from zmq_threaded.client import dialer
from zmq_threaded.client import peer_key
from zmq_threaded.client import send_queue
from zmq_threaded.net import descriptors
from zmq_threaded.net import inbox
from zmq_threaded.net import multiparts
from zmq_threaded.registry import record

_GRACE = timings.GRACE
# A receiver knows when its instance is gone, so it is asked often. Elsewhere
# the connection tells, and only what is late for other reasons is asked for.
_ASK_RECEIVER_EVERY = timings.ASK_RECEIVER_EVERY
_ASK_AT_MOST_EVERY = timings.ASK_AT_MOST_EVERY


class Connection:
    """The connection from the outbox to one endpoint.

    While the name in the endpoint is being resolved it has no socket, and
    what is to be sent waits in its queues.

    :param socket_factory: sockets.Sockets
    :param endpoints: of the records of its instances
    :param endpoint: the one of them that is used
    :param to_receiver: whether instances can come and go behind it
    :param doubt: in_doubt.InDoubt, which notes the messages that were sent
    :param on_message: called with each multipart that arrives
    :param watch: called with the connection and the fd that it had before, or
        None, when it has a new socket and before the old one is closed
    :param tell: runs a callable in the outbox thread, later
    :param queued_to: gets the connection as a key when something is to be
        sent over it
    :param key: public key of their TCP port, b'' for an open one
    :ivar keys: of both ends
    :ivar connected: whether there is a peer
    :ivar fd: of its socket, to be watched; None while it has none
    :raises: endpoints.BadEndpoint

    Thread: outbox.
    """

    def __init__(self, socket_factory, endpoints, endpoint, to_receiver,
                 counters, doubt, on_message,
                 watch=lambda connection, fd: None, tell=lambda task: None,
                 queued_to=None, key=b''):
        self.endpoints = endpoints
        self.to_receiver = to_receiver
        self._endpoint = endpoint
        self._on_message = on_message
        self._counters = counters
        self._in_doubt = doubt
        self._watch = watch
        self._sockets = socket_factory
        self._socket: Any = None
        self._inbox: Any = None
        self.fd: int | None = None
        self._is_closed = False
        self.keys = peer_key.PeerKey(socket_factory.access, endpoint, key)
        self._queues: dict[bytes, send_queue.SendQueue] = {}
        # The queues with something to send, in turn.
        self._ready: dict[send_queue.SendQueue, None] = {}
        self._queued_to = {} if queued_to is None else queued_to
        self.connected = self._was_connected = False
        self._changed_at = time.monotonic()
        self.used_at = self._heard_at = self._changed_at
        self._dialer = dialer.Dialer(endpoint, lambda: tell(self._look),
                                     socket_factory, key, counters)
        self._open(self._dialer.look())

    def use_key(self, key: bytes) -> None:
        """A record names this key of the port. It is the one to try, unless
        there is a connection with another one.
        """
        if not self.connected and self.keys.change(key):
            self._dialer.use_key(key)
            self._try_to_open(self._dialer.address)

    def _renew(self, now):
        """Shake hands with the new key of this process, but not as long as
        that would end calls.
        """
        if self.keys.is_renewal_due(now) and not any(
                delivery.kind == wire.CALL for queue in self._queues.values()
                for delivery in queue.in_flight.values()):
            self._try_to_open(self._dialer.address)

    def _look(self):
        """The name of its endpoint may be resolved now."""
        if not self._is_closed and self._socket is None:
            self._try_to_open(self._dialer.look())

    def _try_to_open(self, address):
        try:
            self._open(address)
        except (endpoints.BadEndpoint, descriptors.Short,
                zmq.ZMQError) as error:
            self._dialer.failed(str(error))

    def _open(self, address):
        """Connect to an address, in place of the one before."""
        if address is None:
            return
        socket = self._sockets.dealer(address, self.keys.key)
        old, self.fd = self.fd, socket.fd
        self._watch(self, old)
        self._close_socket()
        self._socket = socket
        self.keys.was_used()
        self._inbox = inbox.Inbox(socket, self._counters)

    def queue(self, instance: record.Instance) -> send_queue.SendQueue:
        """The send queue to an instance, a new one if there is none."""
        queue = self._queues.get(instance.id)
        if queue is None:
            queue = send_queue.SendQueue(instance, self)
            self._queues[instance.id] = queue
        return queue

    def queue_of(self, instance_id: bytes) -> send_queue.SendQueue | None:
        """The send queue to the instance with this id, or None."""
        return self._queues.get(instance_id)

    def queues(self) -> list[send_queue.SendQueue]:
        """The send queues of all its instances."""
        return list(self._queues.values())

    def remove(self, queue: send_queue.SendQueue) -> None:
        """Forget a send queue."""
        self._queues.pop(queue.instance.id, None)
        self._ready.pop(queue, None)

    def has_work(self, queue: send_queue.SendQueue) -> None:
        """Note that there is something to send."""
        self._ready[queue] = None
        self._queued_to[self] = None

    def pump(self) -> None:
        """Receive and send all that is possible now. ZMQ_FD signals changes
        only once, so this ends when nothing is left to do.
        """
        if self._socket is None:
            return
        events = multiparts.events(self._socket)
        while True:
            if events & multiparts.POLLIN:
                self._heard_at = time.monotonic()
                frames = self._inbox.receive()
                if frames is not None:
                    self._on_message(self, frames)
                elif self._inbox.is_behind:
                    # The others on this thread go first; check() goes on.
                    break
            elif not (events & multiparts.POLLOUT and self._send()):
                break
            events = multiparts.events(self._socket)
        self._note_connection(bool(events & multiparts.POLLOUT))

    def _send(self):
        """:returns: whether anything was sent"""
        sent, now = False, time.monotonic()
        for queue in list(self._ready):
            while queue.may_send(now):
                if not self._send_head(queue, now):
                    return sent
                sent = True
            if not queue.queue:
                self._ready.pop(queue, None)
        return sent

    def _send_head(self, queue, now):
        """Send the first of a queue, and with it its copies for other queues.

        :returns: False when the socket takes no more
        """
        delivery, abreast = queue.queue[0], [queue]
        copies = list(delivery.group)
        if len(copies) > 1:
            # What is sent to come abreast goes alone, if it has copies here.
            delivery.group.clear()
            abreast = self._come_abreast(copies, now)
        if not abreast:
            return True
        try:
            multiparts.send(
                self._socket, [b'', self._frame(delivery, abreast)]
            )
        except zmq.Again:
            delivery.group = copies
            return False
        self._counters.add('sent')
        self.used_at = now
        for each in abreast:
            self._in_doubt.sent(each.queue[0])
            each.head_was_sent(now)
        return True

    def _frame(self, delivery, abreast):
        settled = self._in_doubt.settled(delivery.id)
        several = len(abreast) > 1
        return delivery.frame(self._endpoint, settled, [
            queue.instance.id for queue in abreast] if several else ())

    def _come_abreast(self, copies, now):
        """Send what goes before these copies of a fanout.

        :returns: list of the queues that now have theirs as the next
        """
        queues_of = {copy: self._queues.get(copy.instance.id)
                     for copy in copies}
        for copy, queue in queues_of.items():
            while (queue and copy in queue.queue and queue.queue[0] is not copy
                   and queue.may_send(now) and self._send_head(queue, now)):
                pass
        return [queue for copy, queue in queues_of.items()
                if queue and queue.may_send(now) and queue.queue[0] is copy]

    def _note_connection(self, connected):
        # A full pipe has no POLLOUT either, but only while there is a peer
        # that reads too slowly; the window keeps a pipe from ever being full.
        if connected != self.connected:
            self.connected = connected
            self._changed_at = time.monotonic()
            self._was_connected = True
            if connected:
                self._dialer.connected()
            for queue in self._queues.values():
                queue.connection_changed()

    def check(self, now: float, may_probe: bool = True) -> bool:
        """Look after the connection; to be called a few times a second.

        :param may_probe: whether to ask the kernel if anybody listens there
        :returns: False when it is lost
        """
        self.pump()
        if self.keys.is_revoked():
            return False
        if self.connected:
            self._renew(now)
            self._ask(now)
            return True
        self._look_elsewhere(now)
        if self._dialer.is_hopeless and not self._was_connected:
            return False        # nothing was ever sent there
        return (now - self._changed_at < _GRACE
                and not (may_probe and endpoints.is_gone(self._endpoint)))

    def _look_elsewhere(self, now):
        """Its name may have another address, or lead elsewhere by now. What
        was sent is asked for over the new connection, as over one that
        libzmq has made anew.
        """
        self._try_to_open(self._dialer.check(now, self._changed_at))

    def why(self) -> str:
        """Why it is not connected, as text."""
        return self._dialer.why or f'{self._endpoint}: {self._trouble()}'

    def _trouble(self):
        if not endpoints.is_there(self._endpoint):
            return 'its socket file is missing (No such file or directory)'
        if endpoints.is_dead(self._endpoint):
            return 'nobody listens there any more'
        return 'the connection is lost' if self._was_connected else 'no answer'

    def had_stalled(self, now: float) -> None:
        """This process stood still: if the connection is lost, its peer gets
        the time to come back anew.
        """
        if not self.connected:
            self._changed_at = now

    def is_closing(self) -> bool:
        """Whether its instance is about to close: what is sent to it now may
        be lost.
        """
        return (not self.to_receiver
                and endpoints.is_closing(self._endpoint, self._heard_at))

    def is_dead(self) -> bool:
        """Whether its instance is certain never to come back."""
        return self.keys.is_revoked() or (
            not self.to_receiver and endpoints.is_gone(self._endpoint))

    def _ask(self, now):
        longest = (_ASK_RECEIVER_EVERY if self.to_receiver
                   else _ASK_AT_MOST_EVERY)
        for queue in self._queues.values():
            for question in queue.questions(now, self._changed_at, longest):
                try:
                    multiparts.send(self._socket, [b'', question])
                except zmq.Again:
                    return

    def idle_since(self, then: float) -> list[send_queue.SendQueue]:
        """The queues that nobody has used since then, in monotonic seconds."""
        return [queue for queue in self._queues.values()
                if queue.is_idle() and queue.used_at < then]

    def is_idle(self) -> bool:
        """Whether nothing is on its way, and no call is watched."""
        return all(queue.is_idle() for queue in self._queues.values())

    def close(self) -> None:
        """Close the socket."""
        self._is_closed = True
        self._dialer.close()
        self._close_socket()

    def _close_socket(self):
        if self._socket is not None:
            self._sockets.close(self._socket)
            self._socket = None
