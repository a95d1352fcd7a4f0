# SPDX-License-Identifier: Apache-2.0
"""One DEALER connection: to an instance, or to the receiver of many."""

import functools
import time

import zmq

from zmq_threaded import descriptors
from zmq_threaded import inbox
from zmq_threaded import sockets
from zmq_threaded.client import lane as lanes
from zmq_threaded.client import way as ways

# A lost connection that is not back by then is not waited for. libzmq tries
# again within twice its RECONNECT_IVL, so a second would be the toss of a coin
# when it was this process that was paused.
_GRACE = 2.0
# A receiver knows when its instance is gone, so it is asked often. Elsewhere
# the connection tells, and only what is late for other reasons is asked for.
_ASK_RECEIVER_EVERY, _ASK_AT_MOST_EVERY = 1.0, 10.0


class Link:
    """The way from the outbox to one endpoint.

    While the name in the endpoint is being resolved it has no socket, and
    what is to be sent waits in its lanes.

    :param endpoints: of the records of its instances
    :param endpoint: the one of them that is used
    :param to_receiver: whether instances can come and go behind it
    :param unsettled: client.unsettled.Unsettled
    :param on_message: called with each multipart that arrives
    :param watch: called with the link and the fd that it had before, or None,
        when it has a new socket and before the old one is closed
    :param tell: runs a callable in the outbox thread, later
    :ivar connected: whether there is a peer
    :ivar fd: of its socket, to be watched; None while it has none
    :raises: sockets.BadEndpoint

    Thread: outbox.
    """

    def __init__(self, context, settings, endpoints, endpoint, to_receiver,
                 counters, unsettled, on_message, watch=lambda link, fd: None,
                 tell=lambda task: None):
        self.endpoints = endpoints
        self.to_receiver = to_receiver
        self._endpoint = endpoint
        self._on_message = on_message
        self._counters = counters
        self._unsettled = unsettled
        self._watch = watch
        self._connect = functools.partial(sockets.dealer_socket, context,
                                          settings)
        self._socket = self._inbox = self.fd = None
        self._is_closed = False
        self._lanes = {}
        # Those with something to send, in turn.
        self._ready = {}
        self.connected = self._was_connected = False
        self._changed_at = time.monotonic()
        self.used_at = self._heard_at = self._changed_at
        self._way = ways.Way(endpoint, lambda: tell(self._look))
        self._open(self._way.look())

    def _look(self):
        """The name of its endpoint may be resolved now."""
        if not self._is_closed and self._socket is None:
            self._try_to_open(self._way.look())

    def _try_to_open(self, address):
        try:
            self._open(address)
        except (sockets.BadEndpoint, descriptors.Short,
                zmq.ZMQError) as error:
            self._way.failed(str(error))

    def _open(self, address):
        """Connect to an address, in place of the one before."""
        if address is None:
            return
        socket = self._connect(address)
        old, self.fd = self.fd, socket.fd
        self._watch(self, old)
        self._close_socket()
        self._socket = socket
        self._inbox = inbox.Inbox(socket, self._counters)
        self._counters.add('sockets')

    def lane(self, instance):
        """The Lane to an instance, a new one if there is none."""
        lane = self._lanes.get(instance.id)
        if lane is None:
            lane = self._lanes[instance.id] = lanes.Lane(instance, self)
        return lane

    def lane_of(self, instance_id):
        """The Lane to the instance with this id, or None."""
        return self._lanes.get(instance_id)

    def lanes(self):
        return list(self._lanes.values())

    def remove(self, lane):
        self._lanes.pop(lane.instance.id, None)
        self._ready.pop(lane, None)

    def has_work(self, lane):
        self._ready[lane] = None

    def pump_queued(self):
        """Send what was just queued."""
        if self._ready:
            self.pump()

    def pump(self):
        """Receive and send all that is possible now. ZMQ_FD signals changes
        only once, so this ends when nothing is left to do.
        """
        if self._socket is None:
            return
        events = sockets.events(self._socket)
        while True:
            if events & sockets.POLLIN:
                self._heard_at = time.monotonic()
                frames = self._inbox.receive()
                if frames is not None:
                    self._on_message(self, frames)
                elif self._inbox.is_behind:
                    # The others on this thread go first; check() goes on.
                    break
            elif not (events & sockets.POLLOUT and self._send()):
                break
            events = sockets.events(self._socket)
        self._note_connection(bool(events & sockets.POLLOUT))

    def _send(self):
        """:returns: whether anything was sent"""
        sent, now = False, time.monotonic()
        for lane in list(self._ready):
            while lane.may_send(now):
                if not self._send_head(lane, now):
                    return sent
                sent = True
            if not lane.queue:
                self._ready.pop(lane, None)
        return sent

    def _send_head(self, lane, now):
        """Send the first of a lane, and with it its copies for other lanes.

        :returns: False when the socket takes no more
        """
        delivery, abreast = lane.queue[0], [lane]
        copies = list(delivery.group)
        if len(copies) > 1:
            # What is sent to come abreast goes alone, if it has copies here.
            delivery.group.clear()
            abreast = self._come_abreast(copies, now)
        if not abreast:
            return True
        try:
            sockets.send(self._socket, [b'', self._frame(delivery, abreast)])
        except zmq.Again:
            delivery.group = copies
            return False
        self._counters.add('sent')
        self.used_at = now
        for each in abreast:
            self._unsettled.sent(each.queue[0])
            each.head_was_sent(now)
        return True

    def _frame(self, delivery, abreast):
        settled = self._unsettled.settled(delivery.id)
        several = len(abreast) > 1
        return delivery.frame(self._endpoint, settled, [
            lane.instance.id for lane in abreast] if several else ())

    def _come_abreast(self, copies, now):
        """Send what goes before these copies of a fanout.

        :returns: list of the lanes that now have theirs as the next
        """
        lanes_of = {copy: self._lanes.get(copy.instance.id) for copy in copies}
        for copy, lane in lanes_of.items():
            while (lane and copy in lane.queue and lane.queue[0] is not copy
                   and lane.may_send(now) and self._send_head(lane, now)):
                pass
        return [lane for copy, lane in lanes_of.items()
                if lane and lane.may_send(now) and lane.queue[0] is copy]

    def _note_connection(self, connected):
        # A full pipe has no POLLOUT either, but only while there is a peer
        # that reads too slowly; the window keeps a pipe from ever being full.
        if connected != self.connected:
            self.connected = connected
            self._changed_at = time.monotonic()
            self._was_connected = True
            if connected:
                self._way.connected()
            for lane in self._lanes.values():
                lane.connection_changed()

    def check(self, now):
        """Look after the connection; to be called a few times a second.

        :returns: False when it is lost
        """
        self.pump()
        if self.connected:
            self._ask(now)
            return True
        self._look_elsewhere(now)
        if self._way.is_hopeless and not self._was_connected:
            return False        # nothing was ever sent there
        return (now - self._changed_at < _GRACE
                and not sockets.is_gone(self._endpoint))

    def _look_elsewhere(self, now):
        """Its name may have another address, or lead elsewhere by now. What
        was sent is asked for over the new connection, as over one that
        libzmq has made anew.
        """
        self._try_to_open(self._way.check(now, self._changed_at))

    def why(self):
        """Why it is not connected, as text."""
        return self._way.why or f'{self._endpoint}: {self._trouble()}'

    def _trouble(self):
        if not sockets.is_there(self._endpoint):
            return 'its socket file is missing (No such file or directory)'
        if sockets.is_dead(self._endpoint):
            return 'nobody listens there any more'
        return 'the connection is lost' if self._was_connected else 'no answer'

    def was_paused(self, now):
        """What is not connected gets its time anew."""
        if not self.connected:
            self._changed_at = now

    def is_closing(self):
        """Whether its instance is about to close: what is sent to it now may
        be lost.
        """
        return (not self.to_receiver
                and sockets.is_closing(self._endpoint, self._heard_at))

    def is_dead(self):
        """Whether its instance is certain never to come back."""
        return not self.to_receiver and sockets.is_gone(self._endpoint)

    def _ask(self, now):
        pause = _ASK_RECEIVER_EVERY if self.to_receiver else _ASK_AT_MOST_EVERY
        for lane in self._lanes.values():
            for question in lane.questions(now, self._changed_at, pause):
                try:
                    sockets.send(self._socket, [b'', question])
                except zmq.Again:
                    return

    def idle_since(self, then):
        """The lanes that nobody has used since then, in monotonic seconds."""
        return [lane for lane in self._lanes.values()
                if lane.is_idle() and lane.used_at < then]

    def is_idle(self):
        return all(lane.is_idle() for lane in self._lanes.values())

    def close(self):
        self._is_closed = True
        self._way.close()
        self._close_socket()

    def _close_socket(self):
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None
            self._counters.add('sockets', -1)
