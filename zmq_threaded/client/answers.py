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

    def __init__(self, directory, counters, custody):
        self._directory = directory
        self._counters = counters
        self._custody = custody
        self._may_warn = {kind: counting.Seldom()
                          for kind in ('malformed', 'wrong_version')}

    def on_message(self, link, frames):
        try:
            _, frame = wire.split_envelope(frames)
            message = wire.decode(frame)
            handler = self._handlers.get(message.kind)
            if handler is None:
                raise wire.Malformed(f'kind {message.kind} is not for a client')
            lane = link.lane_of(message.instance)
            if lane is not None:
                handler(self, lane, message)
        except wire.WrongVersion as error:
            self._on_wrong_version(link, error)
        except ValueError as error:
            self._counters.add('malformed')
            self._warn('malformed', 'Dropped a malformed message', link, error)

    def _warn(self, kind, what, link, error):
        if self._may_warn[kind].allows():
            LOG.warning('%s from %s: %s (the counter %s says how many there '
                        'were)', what, texts.line(link.endpoints[-1]), error,
                        kind)

    def _on_wrong_version(self, link, error):
        self._counters.add('wrong_version')
        lane = link.lane_of(error.header.instance)
        if lane is None:
            return self._warn('wrong_version', 'An answer', link, error)
        # One to a QUERY has no id, and is about all that was sent.
        refused = (list(lane.sent) if error.header.id == wire.NO_ID
                   else [error.header.id])
        for delivery in filter(None, map(lane.take_back, refused)):
            self._custody.drop(delivery, losses.REFUSED,
                               f'{lane.instance} answered it: {error}')

    def _on_ack(self, lane, message):
        self._directory.reached(lane.instance)
        lane.is_taken()
        for message_id in wire.split_ids(message.body[0]):
            self._acknowledged(lane, message_id)

    def _acknowledged(self, lane, message_id):
        delivery = lane.sent.get(message_id)
        # A call ends with its reply, whatever else is said of it.
        if delivery is not None and delivery.kind != wire.CALL:
            lane.take_back(message_id)
            self._counters.add('acknowledged')
            self._custody.end(delivery, deliveries.ACKNOWLEDGED)

    def _on_reply(self, lane, message):
        """The first result ends a call; an ending without one may come before
        it, after it, or never.
        """
        if message.body[0] == wire.NO_RESULT:
            return self._on_heartbeat(lane, message)
        delivery = lane.take_back(message.id)
        if delivery is not None:
            self._custody.end(delivery, deliveries.REPLIED, message)

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
            self._custody.end(lane.take_back(message_id), deliveries.LOST)
        else:
            self._counters.add('resent')
            lane.send_again(message_id)

    def _on_nack(self, lane, message):
        reason, text = wire.nack_reason(message)
        if message.id == wire.NO_ID:
            self._question_refused(lane, reason)
        elif message.id in lane.sent:
            self._refused(lane, lane.sent[message.id], reason, text)

    def _question_refused(self, lane, reason):
        """A receiver answers in place of an instance."""
        if not lane.link.to_receiver:
            # Its link would be closed while it is being read.
            raise wire.Malformed('only a receiver speaks for an instance')
        if reason in (wire.GONE, wire.UNREACHABLE):
            self._directory.avoid(lane.instance,
                                  why=reasons.refusal(reason))
        if reason == wire.GONE:
            self._custody.give_up(lane, is_gone=True)
        elif reason == wire.UNREACHABLE:
            self._custody.give_away(lane)

    def _refused(self, lane, delivery, reason, text):
        if reason in (wire.BUSY, wire.UNREACHABLE) and self._has_to_wait(
                delivery, reason):
            return lane.back_off(delivery.id, time.monotonic())
        lane.take_back(delivery.id)
        if reason == wire.EXPIRED:
            self._custody.expire(delivery, losses.NOT_BEGUN)
        elif reason in (wire.VERSION, wire.MALFORMED):
            self._custody.drop(
                delivery, losses.REFUSED,
                f'{lane.instance} refused it: {texts.line(text)}')
        else:
            if reason != wire.REQUEUED:
                self._directory.avoid(
                    lane.instance, deliveries.is_final(reason, lane.instance),
                    reasons.refusal(reason, text))
            self._custody.reroute(delivery,
                                  reason in (wire.GONE, wire.STOPPING))

    def _has_to_wait(self, delivery, reason):
        """Whether no other instance may take what this one cannot, for now."""
        if delivery.pinned:
            # One that is busy is there, whatever became of its record.
            return reason == wire.BUSY or self._directory.is_listed(
                delivery.topic, delivery.instance)
        return not any(instance.id != delivery.instance.id for instance
                       in self._directory.live(delivery.topic))

    _handlers = {wire.ACK: _on_ack, wire.REPLY: _on_reply,
                 wire.HEARTBEAT: _on_heartbeat, wire.STATUS: _on_status,
                 wire.NACK: _on_nack}
