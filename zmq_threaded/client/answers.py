# SPDX-License-Identifier: Apache-2.0
"""What instances and receivers answer to the messages in custody."""

import time

from zmq_threaded import counters as counting
from zmq_threaded import logs
from zmq_threaded import texts
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import losses
from zmq_threaded.client import reasons

LOG = logs.get(__name__)


class Answers:
    """Reads ACK, NACK, STATUS, REPLY and HEARTBEAT.

    :param custody: client.custody.Custody, which decides what follows

    Thread: outbox.
    """

    def __init__(self, registry, counters, custody):
        self._registry = registry
        self._counters = counters
        self._custody = custody
        self._may_warn = {kind: counting.Seldom()
                          for kind in ('malformed', 'wrong_version')}

    def on_message(self, connection, frames):
        try:
            _, frame = wire.split_envelope(frames)
            message = wire.decode(frame)
            handler = self._handlers.get(message.kind)
            if handler is None:
                raise wire.Malformed(f'kind {message.kind} is not for a client')
            queue = connection.queue_of(message.instance)
            if queue is not None:
                handler(self, queue, message)
        except wire.WrongVersion as error:
            self._on_wrong_version(connection, error)
        except ValueError as error:
            self._counters.add('malformed')
            self._warn('malformed', 'Dropped a malformed message', connection, error)

    def _warn(self, kind, what, connection, error):
        if self._may_warn[kind].allows():
            LOG.warning('%s from %s: %s (the counter %s says how many there '
                        'were)', what, texts.line(connection.endpoints[-1]), error,
                        kind)

    def _on_wrong_version(self, connection, error):
        self._counters.add('wrong_version')
        queue = connection.queue_of(error.header.instance)
        if queue is None:
            return self._warn('wrong_version', 'An answer', connection, error)
        # One to a QUERY has no id, and is about all that was sent.
        refused = (list(queue.sent) if error.header.id == wire.NO_ID
                   else [error.header.id])
        for delivery in filter(None, map(queue.take_back, refused)):
            self._custody.drop(delivery, losses.REFUSED,
                               f'{queue.instance} answered it: {error}')

    def _on_ack(self, queue, message):
        self._registry.cache.reached(queue.instance)
        queue.is_taken()
        for message_id in wire.acknowledged_ids(message):
            self._acknowledged(queue, message_id)

    def _acknowledged(self, queue, message_id):
        delivery = queue.sent.get(message_id)
        # A call ends with its reply, whatever else is said of it.
        if delivery is not None and delivery.kind != wire.CALL:
            queue.take_back(message_id)
            self._counters.add('acknowledged')
            self._custody.end(delivery, deliveries.ACKNOWLEDGED)

    def _on_reply(self, queue, message):
        """The first result ends a call; an ending without one may come before
        it, after it, or never.
        """
        if not wire.has_result(message):
            return self._on_heartbeat(queue, message)
        delivery = queue.take_back(message.id)
        if delivery is not None:
            self._custody.end(delivery, deliveries.REPLIED, message)

    def _on_heartbeat(self, queue, message):
        delivery = queue.sent.get(message.id)
        if delivery is not None:
            delivery.tell(deliveries.HEARTBEAT)

    def _on_status(self, queue, message):
        self._registry.cache.reached(queue.instance)
        for message_id, state in reversed(wire.status_states(message)):
            if message_id in queue.watched:
                queue.watched[message_id].heard(state == wire.KNOWN)
            elif state == wire.UNKNOWN:
                self._unknown(queue, message_id)
            elif state == wire.ACKNOWLEDGED:
                self._acknowledged(queue, message_id)
            elif message_id in queue.sent:
                queue.sent[message_id].tell(deliveries.TAKEN)

    def _unknown(self, queue, message_id):
        delivery = queue.sent.get(message_id)
        if delivery is None:
            return
        if delivery.kind == wire.CALL:
            # It may have run, and its reply been lost with a connection.
            self._custody.end(queue.take_back(message_id), deliveries.LOST)
        else:
            self._counters.add('resent')
            queue.send_again(message_id)

    def _on_nack(self, queue, message):
        reason, text = wire.nack_reason(message)
        if message.id == wire.NO_ID:
            self._question_refused(queue, reason)
        elif message.id in queue.sent:
            self._refused(queue, queue.sent[message.id], reason, text)

    def _question_refused(self, queue, reason):
        """A receiver answers in place of an instance."""
        if not queue.connection.to_receiver:
            # Its connection would be closed while it is being read.
            raise wire.Malformed('only a receiver speaks for an instance')
        if reason in (wire.GONE, wire.UNREACHABLE):
            self._registry.cache.avoid(queue.instance,
                                       why=reasons.refusal(reason))
        if reason == wire.GONE:
            self._custody.give_up(queue, is_gone=True)
        elif reason == wire.UNREACHABLE:
            self._custody.give_away(queue)

    def _refused(self, queue, delivery, reason, text):
        if reason in (wire.BUSY, wire.UNREACHABLE) and self._has_to_wait(
                delivery, reason):
            return queue.back_off(delivery.id, time.monotonic())
        queue.take_back(delivery.id)
        if reason == wire.EXPIRED:
            self._custody.expire(delivery, losses.NOT_BEGUN)
        elif reason in (wire.VERSION, wire.MALFORMED):
            self._custody.drop(
                delivery, losses.REFUSED,
                f'{queue.instance} refused it: {texts.line(text)}')
        else:
            if reason != wire.REQUEUED:
                self._registry.cache.avoid(
                    queue.instance, deliveries.is_final(reason, queue.instance),
                    reasons.refusal(reason, text))
            self._custody.reroute(delivery,
                                  reason in (wire.GONE, wire.STOPPING))

    def _has_to_wait(self, delivery, reason):
        """Whether no other instance may take what this one cannot, for now."""
        if delivery.pinned:
            # One that is busy is there, whatever became of its record.
            return reason == wire.BUSY or self._registry.cache.is_listed(
                delivery.topic, delivery.instance)
        return not any(instance.id != delivery.instance.id for instance
                       in self._registry.cache.live(delivery.topic))

    _handlers = {wire.ACK: _on_ack, wire.REPLY: _on_reply,
                 wire.HEARTBEAT: _on_heartbeat, wire.STATUS: _on_status,
                 wire.NACK: _on_nack}
