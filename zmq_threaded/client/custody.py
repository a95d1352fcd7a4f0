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
look-ups that its sender allowed are used up. What this process lacks the
means to send is held up instead: it is tried again, and nobody is looked for.
"""

import functools
import time

from zmq_threaded import counters as counting
from zmq_threaded.net import descriptors
from zmq_threaded import logs
from zmq_threaded import texts
from zmq_threaded import wire
from zmq_threaded.client import answers
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import held_up
from zmq_threaded.client import connections
from zmq_threaded.client import losses
from zmq_threaded.client import overdue
from zmq_threaded.client import spreading
from zmq_threaded.client import in_doubt
from zmq_threaded.client import waiting

LOG = logs.get(__name__)

_SWEEP_EXPIRED_EVERY = 1.0
_LOOK_FOR_LOST_EVERY = 2.0
_REPORT_OLD_EVERY, _OLD = 60.0, 30.0
# Instances that are tried in one turn for one topic: others wait as well.
_TRIES = 64
# Services that are named in one text.
_BEHIND_TOLD = 3
# Seconds in which a service whose socket file was removed makes it anew.
_MADE_ANEW = 5.0


class Custody:
    """The messages of an outbox: on a send queue, or waiting for a service.

    :param socket_factory: sockets.Sockets
    :param epoll: select.epoll on which the outbox thread waits
    :param tell: runs a callable in the outbox thread, later

    Thread: outbox.
    """

    def __init__(self, socket_factory, settings, registry, counters, epoll,
                 tell):
        self._registry = registry
        self._counters = counters
        self._tell = tell
        answer = answers.Answers(registry, counters, self)
        self._in_doubt = in_doubt.InDoubt()
        self._connections = connections.Connections(socket_factory, settings, epoll, counters,
                                  self._in_doubt, answer.on_message,
                                  registry.cache.unreachable, tell)
        self._waiting = waiting.Waiting(registry, tell, self.route, self.end)
        self._held_up = held_up.HeldUp(self.route)
        self.pump = self._connections.pump
        self.pump_queued = self._connections.pump_queued
        self.was_paused = self._connections.was_paused
        self.wait = self._waiting.add
        self._losses = losses.Losses(counters)
        self._spreading = spreading.Spreading(registry, counters,
                                              self._losses, tell, self)
        self._may_warn = counting.Seldom()
        self._next_sweep = 0.0
        self._next_report = 0.0

    def is_empty(self):
        """Whether nothing is waited for."""
        return (not len(self._waiting) and not len(self._held_up)
                and not len(self._spreading) and self._connections.is_idle())

    def oldest(self):
        """When the oldest message was posted, in monotonic seconds; None if
        there is none.
        """
        return min((delivery.since for delivery in self._all()), default=None)

    def hasten(self):
        """Look soon for all that waits: the driver is about to close."""
        self._waiting.hasten()
        self._held_up.hasten(time.monotonic())

    def tick(self, now):
        """Look after connections and expiry; a few times a second."""
        for queue in self._connections.check(now):
            self._connection_lost(queue, now)
        self._held_up.tick(now)
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_EXPIRED_EVERY
            self._sweep_expired(now)
            self._losses.tick(now)
        if now >= self._next_report:
            self._next_report = now + _REPORT_OLD_EVERY
            self._report_old(now)

    def survey(self):
        """What is not acknowledged, by topic.

        :returns: dict of str(topic) to {'count', 'oldest' (seconds), 'id' (of
            the oldest)}
        """
        now, found = time.monotonic(), {}
        for delivery in self._all():
            each = found.setdefault(str(delivery.topic), {
                'count': 0, 'oldest': 0.0, 'id': ''})
            each['count'] += 1
            if now - delivery.since >= each['oldest']:
                each.update(oldest=now - delivery.since,
                            id=delivery.id.hex())
        return found

    def behind(self, topic):
        """For whom the most messages of a topic wait, as text of bounded
        length; '' if they wait for no service.
        """
        behind = ((sum(each.topic.key == topic.key for each in (
            *queue.sent.values(), *queue.queue)), queue) for queue in self._connections)
        most = sorted((each for each in behind if each[0]),
                      key=lambda each: -each[0])[:_BEHIND_TOLD]
        lack = next((each.held_up for each in self._held_up
                     if each.topic.key == topic.key), '')
        return '; '.join([*(f'{count} wait for {queue.instance}'
                            for count, queue in most),
                          *([f'this process is {lack}'] if lack else [])])

    def _all(self):
        yield from self._waiting
        yield from self._held_up
        yield from self._spreading
        for queue in self._connections:
            yield from queue.sent.values()
            yield from queue.queue

    def _report_old(self, now):
        text = overdue.report(self._all(), now, _OLD,
                              self._registry.cache.listed)
        if text is not None:
            LOG.warning('%s', text)

    def close(self):
        """Report what is left, and close all connections."""
        left = list(self._all())
        self._connections.close()
        for delivery in left:
            self.drop(delivery, losses.CLOSED)
        self._losses.close()

    # Routing

    def route(self, delivery):
        """Send a message to an instance of its topic, now or when there is
        one.
        """
        try:
            self._route(delivery)
        except Exception as error:
            self.failed(delivery, error)

    def failed(self, delivery, error):
        """A fault of ours must not lose a message without a word."""
        self._counters.add('loop_errors')
        if self._may_warn.allows():
            LOG.exception('An unexpected error while %s was routed', delivery)
        self.drop(delivery, losses.FAULT, f'{losses.FAULT.why}: '
                  f'{type(error).__name__}: {texts.line(str(error))}')

    def _route(self, delivery):
        if not delivery.pinned and delivery.topic in self._waiting:
            return self._waiting.add(delivery)      # in its turn
        if self._held_up.holds_before(delivery):
            return self._held_up.add(delivery, time.monotonic())
        if delivery.spread:
            return self._spreading.add(delivery)
        try:
            self._route_to_instance(delivery)
        except descriptors.Short as error:
            self._hold_up(delivery, str(error))

    def _hold_up(self, delivery, lack):
        delivery.held_up = lack
        if not delivery.pinned:
            delivery.instance = None
        self._held_up.add(delivery, time.monotonic())

    def _route_to_instance(self, delivery):
        if delivery.pinned:
            return self._route_copy(delivery)
        for _ in range(_TRIES):
            delivery.instance = (
                delivery.chosen
                or self._registry.cache.choose(delivery.topic))
            delivery.chosen = None
            if delivery.instance is None:
                return self._waiting.add(delivery)
            queue = self._connections.to(delivery.instance, functools.partial(
                self._is_patient, delivery))
            if queue and not queue.connection.is_closing():
                return self._push(queue, delivery)
            self._registry.cache.unreachable(delivery.instance)
        delivery.instance = None
        self._waiting.go_on(delivery)

    def _route_copy(self, copy):
        queue = self._connections.to(copy.instance, functools.partial(
            self._is_patient, copy))
        if queue:
            self._push(queue, copy)
        else:
            self._spreading.drop_copy(copy)

    def _push(self, queue, delivery):
        delivery.held_up = ''
        limit, size = queue.instance.limit, sum(map(len, delivery.body))
        if limit and size > limit:
            # It would cost the connection, each time it is sent.
            return self.drop(delivery, losses.REFUSED, (
                f'it has {size} bytes, and {queue.instance} takes {limit} '
                '(rpc_zmq_max_message_size, which is to be the same '
                'everywhere)'))
        queue.push(delivery)

    def _is_patient(self, delivery):
        """Whether a message waits for the socket file of its instance, which
        may be made anew: it can go to nobody else.
        """
        return (time.monotonic() - delivery.since < _MADE_ANEW
                and (delivery.pinned
                     or len(self._registry.cache.listed(delivery.topic)) == 1))

    # Lost connections

    def _connection_lost(self, queue, now):
        if not queue.connection.to_receiver:
            self._registry.cache.unreachable(queue.instance,
                                             queue.connection.why())
            self.give_up(queue, queue.connection.is_dead())
        elif now >= queue.look_at:
            if not queue.look_at:
                self._registry.cache.unreachable(queue.instance,
                                                 queue.connection.why())
                self._release(queue)
            queue.look_at = now + _LOOK_FOR_LOST_EVERY
            self._look_for(queue)

    def give_away(self, queue):
        """The instance is paused, or cut off from its receiver: calls end, and
        others get what may go to others. Fanout copies wait for it.
        """
        queue.lose_watched()
        self._release(queue)
        for delivery in list(queue.sent.values()):
            if not delivery.pinned:
                self._counters.add('resent')
                delivery.may_have_run = True
                self.route(queue.take_back(delivery.id))

    def _release(self, queue):
        """The receiver is lost: calls end, and what was not sent may go to
        other instances. The rest waits.
        """
        self._end_calls(queue)
        free = [each for each in queue.queue if not each.pinned]
        for delivery in free:
            queue.remove(delivery)
            self.route(delivery)

    def _end_calls(self, queue):
        for delivery in list(queue.sent.values()):
            if delivery.kind == wire.CALL:
                self.end(queue.take_back(delivery.id), deliveries.LOST)

    def _look_for(self, queue):
        """Ask the registry about a lost instance, for what waits for it."""
        waiting = next(iter((*queue.sent.values(), *queue.queue)), None)
        if waiting is not None:
            self._registry.ask(waiting.topic, lambda looked_at: self._tell(
                functools.partial(self._looked_for, queue, waiting.topic,
                                  looked_at)))

    def _looked_for(self, queue, topic, looked_at):
        if (looked_at is not None and not queue.connection.connected
                and self._connections.get(queue.instance.id) is queue
                and not self._registry.cache.is_listed(topic, queue.instance)):
            self.give_up(queue, is_gone=True)

    def give_up(self, queue, is_gone):
        """The instance is lost: choose others for what it did not answer."""
        self._connections.remove(queue)
        queue.lose_watched()
        self._end_calls(queue)
        for delivery in queue.sent.values():
            delivery.may_have_run = True
            if self.reroute(delivery, is_gone):
                self._counters.add('resent')
        for delivery in queue.queue:
            self.reroute(delivery, is_gone)

    def reroute(self, delivery, instance_is_dead):
        """:returns: False when it was dropped"""
        if delivery.pinned and (
                instance_is_dead or not self._registry.cache.is_listed(
                    delivery.topic, delivery.instance)):
            self._spreading.drop_copy(delivery)
            return False
        self.route(delivery)
        return True

    # The end of a delivery

    def end(self, delivery, event, detail=None):
        if event == deliveries.NOBODY and delivery.may_have_run:
            # Its sender would think that it certainly was not.
            return self.drop(delivery, losses.GONE)
        if event == deliveries.NOBODY:
            self._counters.add('fanouts_to_nobody'
                               if delivery.kind == wire.FANOUT
                               else 'unroutable')
        self._in_doubt.ended(delivery)
        delivery.destination.finish()
        delivery.tell(event, detail)
        if delivery.pinned:
            self._spreading.copy_ended(delivery,
                                       detail == spreading.COPY_IS_GONE)

    def drop(self, delivery, cause, reason=None):
        """Give a message up.

        :param cause: losses.Cause
        :param reason: what happened, if the cause does not say it exactly
        """
        reason = reason or cause.why
        self._losses.dropped(delivery, cause, reason)
        self.end(delivery, deliveries.FAILED, reason)

    def make_room(self, destination, admission):
        """Drop the oldest message for which there is nobody, or let the
        sender wait for those who are slow.
        """
        oldest = self._waiting.pop_stranded(destination)
        if oldest is not None:
            self._counters.add('unroutable')
            self.drop(oldest, losses.NO_ROOM)
            admission.call()
        else:
            destination.wait(admission)

    def withdraw(self, delivery):
        """Nobody waits for this message any more."""
        if self._take_out(delivery):
            self._in_doubt.ended(delivery)
            delivery.destination.finish()

    def _take_out(self, delivery):
        queue = delivery.instance and self._connections.get(delivery.instance.id)
        return (self._spreading.remove(delivery)
                or self._waiting.remove(delivery)
                or self._held_up.remove(delivery)
                or queue and (queue.remove(delivery)
                             or queue.take_back(delivery.id)))

    def watch(self, watch):
        """Ask the instance of a call now and then whether it still has it."""
        try:
            queue = self._connections.to(watch.instance)
        except descriptors.Short:
            return      # its caller waits for its time
        if queue is not None:
            queue.watched[watch.id] = watch

    def unwatch(self, watch):
        queue = self._connections.get(watch.instance.id)
        if queue is not None:
            queue.watched.pop(watch.id, None)

    def _sweep_expired(self, now):
        for delivery in [each for each in self._waiting if each.expires <= now]:
            self._waiting.remove(delivery)
            self._counters.add('unroutable')
            self.expire(delivery, losses.NOBODY_TOOK)
        for delivery in [each for each in self._held_up if each.expires <= now]:
            self._held_up.remove(delivery)
            self.expire(delivery, losses.NOT_SENT, delivery.held_up)
        for delivery in [each for each in self._spreading
                         if each.expires <= now]:
            self._spreading.remove(delivery)
            self.expire(delivery, losses.NOT_LOOKED_UP)
        for queue in self._connections:
            for delivery in [each for each in queue.queue
                             if each.expires <= now]:
                queue.remove(delivery)
                self.expire(delivery, losses.NOT_SENT)
            for delivery in [each for each in queue.sent.values()
                             if each.expires <= now]:
                queue.take_back(delivery.id)
                self.expire(delivery, losses.NOT_ACKNOWLEDGED)

    def expire(self, delivery, cause, detail=''):
        """:param detail: why it took so long, if that is known"""
        if delivery.kind == wire.CALL:
            # Its caller knows the time as well, and reports it.
            self.end(delivery, deliveries.EXPIRED)
        else:
            self.drop(delivery, cause, detail and f'{cause.why}: {detail}')
