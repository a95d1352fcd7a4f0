# SPDX-License-Identifier: Apache-2.0
"""Custody: each message, from the outbox until it is acknowledged.

A message that was sent is sent again only on evidence: the instance said that
it does not have the message, or the instance is lost; client.evidence and
client.loss_table say what is evidence of what. By kind::

            goes to                 if nobody is there
    CAST    one of the topic        waits, until it expires
    CALL    one of the topic        waits
    FANOUT  (spread) copies for     ends; a copy waits for its instance
            all listed instances    alone (it is pinned)
    NOTIFY  (spread) a copy for     waits; a copy waits for its pool
            each listed pool

What waits is looked for again until somebody is found, it expires, or the
look-ups that its sender allowed are used up. What this process lacks the
means to send is held up instead: it is tried again; nobody is looked for.
"""

import time
from collections.abc import Callable

from zmq_threaded import counters as counting
from zmq_threaded import logs
from zmq_threaded import texts
from zmq_threaded import wire
from zmq_threaded.client import connections
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import dispatch
from zmq_threaded.client import evidence
from zmq_threaded.client import held_up
from zmq_threaded.client import in_doubt
from zmq_threaded.client import losses
from zmq_threaded.client import overdue
from zmq_threaded.client import recording
from zmq_threaded.client import room
from zmq_threaded.client import send_queue
from zmq_threaded.client import spreading
from zmq_threaded.client import store
from zmq_threaded.client import waiting
from zmq_threaded.net import descriptors

LOG = logs.get(__name__)

Delivery = deliveries.Delivery
Where = deliveries.Where
_MOVING, _ENDED = Where.MOVING, Where.ENDED
_SWEEP_EXPIRED_EVERY = 1.0
# A sender looks for messages that are older than _OLD every _LOOK_FOR_OLD.
_REPORT_OLD_EVERY, _LOOK_FOR_OLD, _OLD = 60.0, 5.0, 30.0


class Custody:
    """All messages of an outbox: in a send queue, in flight, or waiting.

    :param socket_factory: sockets.Sockets
    :param settings: options.Settings
    :param registry: registry.registry.Registry
    :param polled: mailbox.PolledMailbox of the outbox thread
    :param tell: runs a callable in the outbox thread, later
    :param maker: of the ids of this process's messages
    :param journals: journal.journals.Journals, or None
    :ivar store: all messages
    :ivar mute: who is listed, and has not taken messages for long

    Thread: outbox; any for reading mute.
    """

    def __init__(self, socket_factory, settings, registry,
                 counters: counting.Counters, polled, tell: Callable,
                 maker: bytes = b'', journals=None):
        self._cache = registry.cache
        self._counters = counters
        self.store = store.Store()
        self._all = self.store.all
        self._in_doubt = in_doubt.InDoubt(maker)
        self._losses = losses.Losses(counters)
        self._waiting = waiting.Waiting(registry, tell, self.route, self.end)
        self._recording = recording.Recording(
            journals, self.store, self._in_doubt, self._waiting,
            self._cache, self, settings.custody_ttl)
        self._spreading = spreading.Spreading(
            registry, counters, self._losses, tell, self, self._recording)
        self._evidence = evidence.Evidence(
            registry, counters, tell, self, self._spreading.drop_copy)
        self._connections = connections.Connections(
            socket_factory, settings, polled, counters, self._in_doubt,
            self._evidence.on_message, self._cache.unreachable, tell)
        # For the turns of the outbox, and calls on REQ sockets.
        self.pump = self._connections.pump
        self.pump_queued = self._connections.pump_queued
        self.had_stalled = self._connections.had_stalled
        self.watch = self._connections.watch
        self.unwatch = self._connections.unwatch
        self._held_up = held_up.HeldUp(self.route)
        self._dispatch = dispatch.Dispatch(
            self._cache, self._connections, self._waiting, self.drop,
            self._spreading.drop_copy, self._recording.allows)
        self._may_warn = counting.Seldom()
        self._next_sweep = self._next_look = self._next_report = 0.0
        self.mute: list[overdue.Overdue] = []

    # What there is

    def is_empty(self) -> bool:
        """Whether nothing is waited for."""
        return not self.store and not self._connections.is_watching()

    def oldest(self) -> float | None:
        """See Store.oldest()."""
        return self.store.oldest()

    def survey(self) -> dict[str, dict]:
        """See Store.survey()."""
        return self.store.survey(time.monotonic())

    # The turns of the outbox

    def hasten(self) -> None:
        """Look soon for all that waits: the driver is about to close."""
        self._waiting.hasten()
        self._held_up.hasten(time.monotonic())

    def tick(self, now: float) -> None:
        """Look after connections and expiry; a few times a second."""
        for queue in self._connections.check(now):
            self._evidence.connection_lost(queue, now)
        self._held_up.tick(now)
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_EXPIRED_EVERY
            self._sweep_expired(now)
            self._losses.tick(now)
        if now >= self._next_look:
            self._next_look = now + min(_LOOK_FOR_OLD, _REPORT_OLD_EVERY)
            self._look_for_old(now)

    def _sweep_expired(self, now):
        for delivery in self.store.expired(now):
            if delivery.where is Where.WAITING:
                self._counters.add('unroutable')
            is_held_up = delivery.where is Where.HELD_UP
            self.expire(delivery, losses.late(delivery),
                        delivery.held_up if is_held_up else '')

    def _look_for_old(self, now):
        held = self.store, now, _OLD, self._cache.listed
        text = overdue.report(*held)
        self.mute = overdue.mute(*held) if text else []
        if text and now >= self._next_report:
            self._next_report = now + _REPORT_OLD_EVERY
            LOG.warning('%s', text)

    def close(self) -> None:
        """Report what is left, and close all connections."""
        for delivery in self.store:
            if not self._recording.outlives(delivery):
                self.drop(delivery, losses.CLOSED)
        self._connections.close()
        self._losses.close()

    # Routing

    def route(self, delivery: Delivery) -> None:
        """Send a message to an instance of its topic, now or when there is
        one. The message is new, or was just taken out of its place.
        """
        self._all[delivery] = None
        delivery.where = _MOVING
        try:
            self._route(delivery)
        except Exception as error:
            self.failed(delivery, error)

    def failed(self, delivery: Delivery, error: Exception) -> None:
        """End a message that met a fault of ours, which must not lose the
        message without a word.
        """
        self._counters.add('loop_errors')
        if self._may_warn.allows():
            LOG.exception('An unexpected error while %s was routed', delivery)
        self.drop(delivery, losses.FAULT, f'{losses.FAULT.why}: '
                  f'{type(error).__name__}: {texts.line(str(error))}')

    def wait(self, delivery: Delivery) -> None:
        """Let a message wait for a service, in its old place."""
        self._waiting.put_back(delivery)

    def _route(self, delivery):
        if not delivery.pinned and delivery.topic in self._waiting:
            return self._waiting.add(delivery)      # in its turn
        if self._held_up.holds_before(delivery):
            return self._held_up.add(delivery, time.monotonic())
        if delivery.spread:
            return self._spreading.add(delivery)
        try:
            self._dispatch.give(delivery)
        except descriptors.Short as error:
            self._hold_up(delivery, str(error))

    def _hold_up(self, delivery, lack):
        delivery.held_up = lack
        if not delivery.pinned:
            delivery.instance = None
        self._held_up.add(delivery, time.monotonic())

    def forget_queue(self, queue: send_queue.SendQueue) -> None:
        """See Connections.remove(); no message may be in the queue."""
        self._connections.remove(queue)

    # The end of a message

    def end(self, delivery: Delivery, event: str, detail=None) -> None:
        """End custody of a message, wherever it is, and tell its sender.
        Nothing happens if it has ended before.

        :param event: one of those at the end of client/delivery.py
        """
        if delivery.where is _ENDED:
            return
        if event == deliveries.NOBODY and delivery.may_have_run:
            # Its sender would think that it certainly was not run.
            return self.drop(delivery, losses.GONE)
        if event == deliveries.NOBODY:
            self._counters.add('fanouts_to_nobody'
                               if delivery.kind == wire.FANOUT
                               else 'unroutable')
        self._let_go(delivery)
        delivery.tell(event, detail)
        if delivery.pinned:
            self._spreading.copy_ended(delivery,
                                       detail == spreading.COPY_IS_GONE)

    def drop(self, delivery: Delivery, cause: losses.Cause,
             reason: str | None = None) -> None:
        """Give a message up.

        :param reason: what happened, if the cause does not say it exactly
        """
        if delivery.where is _ENDED:
            return
        reason = reason or cause.why
        self._losses.dropped(delivery, cause, reason)
        self.end(delivery, deliveries.FAILED, reason)

    def expire(self, delivery: Delivery, cause: losses.Cause,
               detail: str = '') -> None:
        """Give a message up because its time is over.

        :param detail: why it took so long, if that is known
        """
        if delivery.kind == wire.CALL:
            # Its caller knows the time as well, and reports it.
            self.end(delivery, deliveries.EXPIRED)
        else:
            self.drop(delivery, cause, detail and f'{cause.why}: {detail}')

    def withdraw(self, delivery: Delivery) -> None:
        """Forget a message: nobody waits for it any more."""
        if delivery.where not in (Where.POSTED, _ENDED):
            self._let_go(delivery)

    def _let_go(self, delivery):
        if delivery.where is not _MOVING:
            self._take_out(delivery)
        delivery.where = _ENDED
        self._all.pop(delivery, None)
        self._recording.ended(delivery)
        delivery.destination.finish()

    def _take_out(self, delivery):
        """Take a message out of the place in which it is."""
        if delivery.where is Where.WAITING:
            self._waiting.remove(delivery)
        elif delivery.where in (Where.SPREADING, Where.RECORDING):
            delivery.where = _MOVING
        elif delivery.where is Where.HELD_UP:
            self._held_up.remove(delivery)
        else:
            self._connections.queue_of(delivery).remove(delivery)

    def make_room(self, destination: room.Destination,
                  admission: room.Admission) -> None:
        """Drop the oldest message for which there is nobody, or let the
        sender wait until services that are slow have taken some.
        """
        oldest = self._waiting.oldest_stranded(destination)
        if oldest is not None:
            self._counters.add('unroutable')
            self.drop(oldest, losses.NO_ROOM)
            admission.call()
        else:
            destination.wait(admission)
