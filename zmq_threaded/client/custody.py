# SPDX-License-Identifier: Apache-2.0
"""Custody: where each message is, until it is acknowledged.

A message is sent again only on evidence that it did not arrive: the instance
said so (NACK, or STATUS unknown), or its connection is lost and did not come
back::

            goes to               nobody there            instance lost, or NACK
    CAST    one of the topic      waits, until it expires another of the topic
    CALL    one of the topic      waits                   if unsent another one,
                                                          else LOST
    FANOUT  (spread) copies for   ends                    the copy stays with
            all listed instances                          its instance (pinned)
                                                          until that is gone
    NOTIFY  (spread) a copy for   waits; a copy waits     another of the pool
            each listed pool      for its pool

What waits is looked for again until somebody is found, it expires, or the
look-ups that its sender allowed are used up.
"""

import collections
import functools
import logging
import select

from zmq_threaded import counters as counts
from zmq_threaded import sockets
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import link as links

LOG = logging.getLogger(__name__)

_SWEEP_EXPIRED_EVERY = 1.0


class Custody:
    """The messages of an outbox, by link and by topic.

    :param context: zmq.Context
    :param epoll: select.epoll on which the outbox thread waits
    :param tell: runs a callable in the outbox thread, later

    Thread: outbox.
    """

    def __init__(self, context, settings, directory, counters, epoll, tell):
        self._context = context
        self._settings = settings
        self._directory = directory
        self._counters = counters
        self._epoll = epoll
        self._tell = tell
        self._links = {}
        self._by_fd = {}
        # Messages for which there is no instance, by key of their topic; and
        # the keys for which a look-up has found that there is none.
        self._unrouted = {}
        self._nobody = set()
        self._next_sweep = 0.0
        self._may_warn = counts.Seldom()

    def is_empty(self):
        """Whether nothing is waited for."""
        return not self._unrouted and all(link.is_idle() for link
                                          in self._links.values())

    def pump(self, ready):
        """Receive and send on the links that epoll reports.

        :param ready: list of (fd, event mask)
        """
        for fd, _ in ready:
            if fd in self._by_fd:
                self._by_fd[fd].pump()

    def pump_queued(self):
        """Send what was just queued."""
        for link in list(self._links.values()):
            if link.queue:
                link.pump()

    def tick(self, now):
        """Look after connections and expiry; a few times a second."""
        for link in list(self._links.values()):
            if link.is_idle():
                if now - link.used_at > self._settings.pool_ttl:
                    self._close(link)
            elif not link.check(now):
                self._give_up(link)
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_EXPIRED_EVERY
            self._sweep_expired(now)

    def close(self):
        """Report what is left, and close all links."""
        left = [delivery for waiting in self._unrouted.values()
                for delivery in waiting]
        for link in list(self._links.values()):
            left += (*link.queue, *link.sent.values())
            self._close(link)
        for delivery in left:
            self._drop(delivery, 'the driver was closed before it was '
                       'acknowledged')

    # Routing

    def route(self, delivery):
        """Send a message to an instance of its topic, now or when there is
        one.
        """
        if not delivery.pinned and delivery.topic.key in self._unrouted:
            return self._wait_for_service(delivery)     # in its turn
        if delivery.spread:
            return self._directory.ask(
                delivery.topic, lambda answered: self._tell(
                    functools.partial(self._spread, delivery, answered)))
        if not delivery.pinned:
            delivery.instance = self._directory.choose(delivery.topic)
        link = delivery.instance and self._link(delivery.instance)
        if link:
            link.push(delivery)
        elif delivery.pinned:
            self._drop(delivery, 'its instance is gone')
        elif delivery.instance:
            self._directory.unreachable(delivery.instance)
            self.route(delivery)
        else:
            self._wait_for_service(delivery)

    def _wait_for_service(self, delivery):
        waiting = self._unrouted.get(delivery.topic.key)
        if waiting is None:
            self._unrouted[delivery.topic.key] = collections.deque([delivery])
            self._ask(delivery.topic)
        else:
            waiting.append(delivery)

    def _ask(self, topic):
        self._directory.ask(topic, lambda _: self._tell(
            functools.partial(self._looked_up, topic)))

    def _looked_up(self, topic):
        waiting = self._unrouted.pop(topic.key, ())
        if self._directory.live(topic):
            self._nobody.discard(topic.key)
            for delivery in waiting:
                self.route(delivery)
            return
        remaining = [delivery for delivery in waiting
                     if self._may_wait(delivery)]
        if remaining:
            self._unrouted[topic.key] = collections.deque(remaining)
            self._nobody.add(topic.key)
            remaining[0].destination.call_next()
            self._ask(topic)
        else:
            self._nobody.discard(topic.key)

    def _may_wait(self, delivery):
        if delivery.attempts is None:
            return True
        delivery.attempts -= 1
        if delivery.attempts > 0:
            return True
        self._end(delivery, deliveries.NOBODY)
        return False

    def _spread(self, original, answered):
        """Copy a message for all who are to have it, now that they are known.

        :param answered: whether the registry did; else the last known count
        """
        copies = (self._copies_for_pools(original)
                  if original.kind == wire.NOTIFY else
                  [original.copy_for(instance) for instance
                   in self._directory.listed(original.topic)])
        if not copies and (original.kind == wire.NOTIFY or not answered):
            return self._wait_for_service(original)
        original.destination.add(len(copies))
        for copy in copies:
            self.route(copy)
        if not copies:
            self._counters.add('fanouts_to_nobody')
        # Whoever waits for the original learns that its copies are on their
        # way, not that each has arrived.
        self._end(original,
                  deliveries.TAKEN if copies else deliveries.NOBODY)

    def _copies_for_pools(self, original):
        topic = original.topic
        pools = {instance.pool for instance in self._directory.listed(topic)}
        return [original.copy_for_pool(
            topics.pool(topic.exchange, topic.name, pool))
            for pool in sorted(pools)]

    def _link(self, instance):
        return self._links.get(instance.id) or self._new_link(instance)

    def _new_link(self, instance):
        endpoint = sockets.reachable(instance.endpoints)
        if endpoint is None:
            return None
        try:
            link = links.Link(self._context, self._settings, instance,
                              endpoint, self._on_message)
        except sockets.BadEndpoint as error:
            LOG.warning('The record of %s is of no use: %s', instance, error)
            return None
        self._links[instance.id] = link
        self._by_fd[link.fd] = link
        self._epoll.register(link.fd, select.EPOLLIN)
        return link

    def _close(self, link):
        del self._links[link.instance.id], self._by_fd[link.fd]
        self._epoll.unregister(link.fd)
        link.close()

    def _give_up(self, link):
        """The instance is lost: choose others for what it did not answer."""
        self._directory.unreachable(link.instance)
        dead = link.is_dead()
        unsent, unanswered = list(link.queue), list(link.sent.values())
        self._close(link)
        for delivery in unanswered:
            if delivery.kind == wire.CALL:
                self._end(delivery, deliveries.LOST)
            else:
                self._counters.add('resent')
                self._reroute(delivery, dead)
        for delivery in unsent:
            self._reroute(delivery, dead)

    def _reroute(self, delivery, instance_is_dead):
        if delivery.pinned and (instance_is_dead or not
                                self._directory.is_listed(delivery.topic,
                                                          delivery.instance)):
            self._drop(delivery, 'its instance is gone')
        else:
            self.route(delivery)

    # What arrives

    def _on_message(self, link, frames):
        try:
            _, frame = wire.split_envelope(frames)
            message = wire.decode(frame)
            handler = self._handlers.get(message.kind)
            if handler is None:
                raise wire.Malformed(f'kind {message.kind} is not for a client')
            handler(self, link, message)
        except ValueError as error:
            self._counters.add('malformed')
            LOG.warning('Dropped a malformed message from %s: %s',
                        link.instance, error)

    def _on_ack(self, link, message):
        self._directory.reached(link.instance)
        for message_id in wire.split_ids(message.body[0]):
            self._acknowledged(link, message_id)

    def _acknowledged(self, link, message_id):
        delivery = link.take_back(message_id)
        if delivery is not None:
            self._counters.add('acknowledged')
            self._end(delivery, deliveries.ACKNOWLEDGED)

    def _on_reply(self, link, message):
        delivery = link.take_back(message.id)
        if delivery is not None:
            self._end(delivery, deliveries.REPLIED, message)

    def _on_heartbeat(self, link, message):
        delivery = link.sent.get(message.id)
        if delivery is not None:
            delivery.tell(deliveries.HEARTBEAT)

    def _on_status(self, link, message):
        self._directory.reached(link.instance)
        for message_id, state in reversed(wire.status_states(message)):
            if state == wire.UNKNOWN:
                self._unknown(link, message_id)
            elif state == wire.ACKNOWLEDGED:
                self._acknowledged(link, message_id)
            elif message_id in link.sent:
                link.sent[message_id].tell(deliveries.TAKEN)

    def _unknown(self, link, message_id):
        delivery = link.sent.get(message_id)
        if delivery is None:
            return
        if delivery.kind == wire.CALL:
            # It may have run, and its reply been lost with a connection.
            self._end(link.take_back(message_id), deliveries.LOST)
        else:
            self._counters.add('resent')
            link.send_again(message_id)

    def _on_nack(self, link, message):
        reason, text = wire.nack_reason(message)
        delivery = link.take_back(message.id)
        if delivery is None:
            return
        if reason == wire.EXPIRED:
            self._drop(delivery, 'it expired before a worker began it')
        elif reason in (wire.VERSION, wire.MALFORMED):
            self._drop(delivery, f'{link.instance} refused it: {text}')
        else:
            leaves = reason in (wire.GONE, wire.STOPPING)
            if leaves or reason == wire.BUSY:
                self._directory.avoid(link.instance, for_ever=leaves)
            self._reroute(delivery, instance_is_dead=leaves)

    _handlers = {wire.ACK: _on_ack, wire.REPLY: _on_reply,
                 wire.HEARTBEAT: _on_heartbeat, wire.STATUS: _on_status,
                 wire.NACK: _on_nack}

    # The end of a delivery

    def _end(self, delivery, event, detail=None):
        delivery.destination.finish()
        delivery.tell(event, detail)

    def _drop(self, delivery, reason):
        self._counters.add('dropped')
        if self._may_warn.allows():
            LOG.warning('%s was dropped: %s (%d in all)', delivery, reason,
                        self._counters.snapshot()['dropped'])
        else:
            LOG.debug('%s was dropped: %s', delivery, reason)
        self._end(delivery, deliveries.FAILED, reason)

    def make_room(self, destination, ticket):
        """Drop the oldest message for which there is nobody, or let the
        sender wait for those who are slow.
        """
        stranded = [self._unrouted[key] for key in self._nobody
                    if self._is_stranded(key, destination)]
        if stranded:
            oldest = min(stranded, key=lambda waiting: waiting[0].id).popleft()
            self._drop(oldest, 'nobody listens, and the outbox is full '
                       '(rpc_zmq_outbox_limit)')
            ticket.call()
        else:
            destination.wait(ticket)

    def _is_stranded(self, key, destination):
        waiting = self._unrouted.get(key)
        return bool(waiting) and waiting[0].destination is destination

    def withdraw(self, delivery):
        """Nobody waits for this message any more."""
        link = delivery.instance and self._links.get(delivery.instance.id)
        unrouted = self._unrouted.get(delivery.topic.key, ())
        if link and delivery in link.queue:
            link.queue.remove(delivery)
        elif delivery in unrouted:
            unrouted.remove(delivery)
        elif not (link and link.take_back(delivery.id)):
            return
        delivery.destination.finish()

    def _sweep_expired(self, now):
        for waiting in list(self._unrouted.values()):
            for delivery in _remove_expired(waiting, now):
                self._drop(delivery, 'nobody took it in time '
                           '(rpc_message_ttl)')
        for link in self._links.values():
            for delivery in _remove_expired(link.queue, now):
                self._drop(delivery, 'it could not be sent in time')
            for delivery in [each for each in link.sent.values()
                             if each.expires <= now]:
                link.take_back(delivery.id)
                self._drop(delivery, 'it was not acknowledged in time; it '
                           'may have been executed')


def _remove_expired(waiting, now):
    expired = [delivery for delivery in waiting if delivery.expires <= now]
    for delivery in expired:
        waiting.remove(delivery)
    return expired
