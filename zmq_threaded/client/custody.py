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

A connection to an instance that is lost means that the instance is. One to a
receiver says nothing of the instances behind it: what they may have got waits
for the receiver, which knows, or until the registry has dropped the instance.

What waits is looked for again until somebody is found, it expires, or the
look-ups that its sender allowed are used up.
"""

import collections
import functools
import logging
import time

from zmq_threaded import counters as counts
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import lanes
from zmq_threaded.client import waiting

LOG = logging.getLogger(__name__)

_SWEEP_EXPIRED_EVERY = 1.0
_LOOK_FOR_LOST_EVERY = 2.0


class Custody:
    """The messages of an outbox: on a lane, or waiting for a service.

    :param context: zmq.Context
    :param epoll: select.epoll on which the outbox thread waits
    :param tell: runs a callable in the outbox thread, later

    Thread: outbox.
    """

    def __init__(self, context, settings, directory, counters, epoll, tell):
        self._directory = directory
        self._counters = counters
        self._tell = tell
        self._lanes = lanes.Lanes(context, settings, epoll, self._on_message)
        self._waiting = waiting.Waiting(directory, tell, self.route, self._end)
        self.pump = self._lanes.pump
        self.pump_queued = self._lanes.pump_queued
        self._next_sweep = 0.0
        self._may_warn = counts.Seldom()

    def is_empty(self):
        """Whether nothing is waited for."""
        return not len(self._waiting) and self._lanes.is_idle()

    def tick(self, now):
        """Look after connections and expiry; a few times a second."""
        for lane in self._lanes.check(now):
            self._connection_lost(lane, now)
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_EXPIRED_EVERY
            self._sweep_expired(now)

    def close(self):
        """Report what is left, and close all links."""
        left = list(self._waiting)
        for lane in self._lanes:
            left += (*lane.queue, *lane.sent.values())
        self._lanes.close()
        for delivery in left:
            self._drop(delivery, 'the driver was closed before it was '
                       'acknowledged')

    # Routing

    def route(self, delivery):
        """Send a message to an instance of its topic, now or when there is
        one.
        """
        if not delivery.pinned and delivery.topic in self._waiting:
            return self._waiting.add(delivery)      # in its turn
        if delivery.spread:
            return self._directory.ask(
                delivery.topic, lambda answered: self._tell(
                    functools.partial(self._spread, delivery, answered)))
        if not delivery.pinned:
            delivery.instance = self._directory.choose(delivery.topic)
        lane = delivery.instance and self._lanes.to(delivery.instance)
        if lane:
            lane.push(delivery)
        elif delivery.pinned:
            self._drop(delivery, 'its instance is gone')
        elif delivery.instance:
            self._directory.unreachable(delivery.instance)
            self.route(delivery)
        else:
            self._waiting.add(delivery)

    def _spread(self, original, answered):
        """Copy a message for all who are to have it, now that they are known.

        :param answered: whether the registry did; else the last known count
        """
        copies = (self._copies_for_pools(original)
                  if original.kind == wire.NOTIFY else
                  self._copies_for_instances(original))
        if not copies and (original.kind == wire.NOTIFY or not answered):
            return self._waiting.add(original)
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

    def _copies_for_instances(self, original):
        groups, copies = collections.defaultdict(list), []
        for instance in self._directory.listed(original.topic):
            group = groups[instance.endpoints] if instance.receiver else ()
            copies.append(original.copy_for(instance, group))
            if instance.receiver:
                group.append(copies[-1])
        return copies

    # Lost connections

    def _connection_lost(self, lane, now):
        if not lane.link.to_receiver:
            self._directory.unreachable(lane.instance)
            self._give_up(lane, lane.link.is_dead())
        elif now >= lane.look_at:
            if not lane.look_at:
                self._directory.unreachable(lane.instance)
                self._release(lane)
            lane.look_at = now + _LOOK_FOR_LOST_EVERY
            self._look_for(lane)

    def _release(self, lane):
        """The receiver is lost: calls end, and what was not sent may go to
        other instances. The rest waits.
        """
        for delivery in list(lane.sent.values()):
            if delivery.kind == wire.CALL:
                self._end(lane.take_back(delivery.id), deliveries.LOST)
        free = [each for each in lane.queue if not each.pinned]
        for delivery in free:
            lane.queue.remove(delivery)
            self.route(delivery)

    def _look_for(self, lane):
        """Ask the registry about a lost instance, for what waits for it."""
        waiting = next(iter((*lane.sent.values(), *lane.queue)), None)
        if waiting is not None:
            self._directory.ask(waiting.topic, lambda answered: self._tell(
                functools.partial(self._looked_for, lane, waiting.topic,
                                  answered)))

    def _looked_for(self, lane, topic, answered):
        if (answered and not lane.link.connected
                and self._lanes.get(lane.instance.id) is lane
                and not self._directory.is_listed(topic, lane.instance)):
            self._give_up(lane, is_gone=True)

    def _give_up(self, lane, is_gone):
        """The instance is lost: choose others for what it did not answer."""
        self._lanes.remove(lane)
        for watch in lane.watched.values():
            watch.is_lost = True
        for delivery in lane.sent.values():
            if delivery.kind == wire.CALL:
                self._end(delivery, deliveries.LOST)
            else:
                self._counters.add('resent')
                self._reroute(delivery, is_gone)
        for delivery in lane.queue:
            self._reroute(delivery, is_gone)

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
            lane = self._lanes.get(message.instance)
            if lane is not None:
                handler(self, lane, message)
        except wire.WrongVersion as error:
            self._on_wrong_version(error)
        except ValueError as error:
            self._counters.add('malformed')
            LOG.warning('Dropped a malformed message from %s: %s',
                        link.endpoints[-1], error)

    def _on_wrong_version(self, error):
        self._counters.add('wrong_version')
        lane = self._lanes.get(error.header.instance)
        delivery = lane and lane.take_back(error.header.id)
        if delivery:
            self._drop(delivery, f'{lane.instance} answered it: {error}')

    def _on_ack(self, lane, message):
        self._directory.reached(lane.instance)
        lane.is_taken()
        for message_id in wire.split_ids(message.body[0]):
            self._acknowledged(lane, message_id)

    def _acknowledged(self, lane, message_id):
        delivery = lane.take_back(message_id)
        if delivery is not None:
            self._counters.add('acknowledged')
            self._end(delivery, deliveries.ACKNOWLEDGED)

    def _on_reply(self, lane, message):
        """The first result ends a call; an ending without one may come before
        it, after it, or never.
        """
        if message.body[0] == wire.NO_RESULT:
            return self._on_heartbeat(lane, message)
        delivery = lane.take_back(message.id)
        if delivery is not None:
            self._end(delivery, deliveries.REPLIED, message)

    def _on_heartbeat(self, lane, message):
        delivery = lane.sent.get(message.id)
        if delivery is not None:
            delivery.tell(deliveries.HEARTBEAT)

    def _on_status(self, lane, message):
        self._directory.reached(lane.instance)
        for message_id, state in reversed(wire.status_states(message)):
            if message_id in lane.watched:
                lane.watched[message_id].heard(state == wire.KNOWN)
            elif state == wire.UNKNOWN:
                self._unknown(lane, message_id)
            elif state == wire.ACKNOWLEDGED:
                self._acknowledged(lane, message_id)
            elif message_id in lane.sent:
                lane.sent[message_id].tell(deliveries.TAKEN)

    def _unknown(self, lane, message_id):
        delivery = lane.sent.get(message_id)
        if delivery is None:
            return
        if delivery.kind == wire.CALL:
            # It may have run, and its reply been lost with a connection.
            self._end(lane.take_back(message_id), deliveries.LOST)
        else:
            self._counters.add('resent')
            lane.send_again(message_id)

    def _on_nack(self, lane, message):
        reason, text = wire.nack_reason(message)
        if message.id == wire.NO_ID:
            if reason == wire.GONE:     # a receiver's answer to a QUERY
                self._directory.avoid(lane.instance)
                self._give_up(lane, is_gone=True)
        elif message.id in lane.sent:
            self._refused(lane, lane.sent[message.id], reason, text)

    def _refused(self, lane, delivery, reason, text):
        if reason == wire.BUSY and (delivery.pinned
                                    or not self._has_others(delivery)):
            return lane.back_off(delivery.id, time.monotonic())
        lane.take_back(delivery.id)
        if reason == wire.EXPIRED:
            self._drop(delivery, 'it expired before a worker began it')
        elif reason in (wire.VERSION, wire.MALFORMED):
            self._drop(delivery, f'{lane.instance} refused it: {text}')
        else:
            if reason != wire.REQUEUED:
                self._directory.avoid(lane.instance, deliveries.is_final(
                    reason, lane.instance))
            self._reroute(delivery, reason in (wire.GONE, wire.STOPPING))

    def _has_others(self, delivery):
        return any(instance.id != delivery.instance.id for instance
                   in self._directory.live(delivery.topic))

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
        oldest = self._waiting.pop_stranded(destination)
        if oldest is not None:
            self._drop(oldest, 'nobody listens, and the outbox is full '
                       '(rpc_zmq_outbox_limit)')
            ticket.call()
        else:
            destination.wait(ticket)

    def withdraw(self, delivery):
        """Nobody waits for this message any more."""
        lane = delivery.instance and self._lanes.get(delivery.instance.id)
        if lane and delivery in lane.queue:
            lane.queue.remove(delivery)
        elif not (self._waiting.remove(delivery)
                  or lane and lane.take_back(delivery.id)):
            return
        delivery.destination.finish()

    def watch(self, watch):
        """Ask the instance of a call now and then whether it still has it."""
        lane = self._lanes.to(watch.instance)
        if lane is not None:
            lane.watched[watch.id] = watch

    def unwatch(self, watch):
        lane = self._lanes.get(watch.instance.id)
        if lane is not None:
            lane.watched.pop(watch.id, None)

    def _sweep_expired(self, now):
        for delivery in [each for each in self._waiting if each.expires <= now]:
            self._waiting.remove(delivery)
            self._drop(delivery, 'nobody took it in time (rpc_message_ttl)')
        for lane in self._lanes:
            for delivery in _remove_expired(lane.queue, now):
                self._drop(delivery, 'it could not be sent in time')
            for delivery in [each for each in lane.sent.values()
                             if each.expires <= now]:
                lane.take_back(delivery.id)
                self._drop(delivery, 'it was not acknowledged in time; it '
                           'may have been executed')


def _remove_expired(waiting, now):
    expired = [delivery for delivery in waiting if delivery.expires <= now]
    for delivery in expired:
        waiting.remove(delivery)
    return expired
