# SPDX-License-Identifier: Apache-2.0
"""What answers and lost connections prove, and what becomes of the messages
that they are about.
"""

import functools
import time
from collections.abc import Callable

from zmq_threaded import counters as counting
from zmq_threaded import logs
from zmq_threaded import texts
from zmq_threaded import wire
from zmq_threaded.client import answers
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import loss_table
from zmq_threaded.client import losses
from zmq_threaded.client import reasons
from zmq_threaded.client import send_queue

LOG = logs.get(__name__)

Delivery = deliveries.Delivery
SendQueue = send_queue.SendQueue
Action = loss_table.Action
Loss = loss_table.Loss
# Seconds between two questions to the registry about a lost instance.
_LOOK_FOR_LOST_EVERY = 2.0
# A receiver's answer in the place of an instance, and which loss it proves.
_ABSENT = {wire.GONE: Loss.GONE, wire.UNREACHABLE: Loss.SILENT}
# Refusals after which an instance will never take a message.
_FINAL = (wire.GONE, wire.STOPPING)


class Evidence:
    """Reads what arrives on the connections of the outbox, looks at the lost
    ones, and decides for each message concerned whether it ends, waits or
    goes to another instance.

    :param registry: registry.registry.Registry
    :param counters: counters.Counters
    :param tell: runs a callable in the outbox thread, later
    :param custody: client.custody.Custody, which has the messages
    :param drop_copy: called with a copy whose instance has ended

    Thread: outbox.
    """

    def __init__(self, registry, counters: counting.Counters, tell: Callable,
                 custody, drop_copy: Callable):
        self._registry = registry
        self._cache = registry.cache
        self._counters = counters
        self._tell = tell
        self._custody = custody
        self._drop_copy = drop_copy
        self._may_warn = {kind: counting.Seldom()
                          for kind in ('malformed', 'wrong_version')}

    # Answers

    def on_message(self, connection, frames: list) -> None:
        """Act on what has arrived.

        :param connection: dealer_connection.Connection
        """
        try:
            message = answers.decode(frames)
            queue = connection.queue_of(message.instance)
            if queue is None:
                return
            answer = answers.read(message, connection.to_receiver)
        except wire.WrongVersion as error:
            return self._on_wrong_version(connection, error)
        except ValueError as error:
            self._counters.add('malformed')
            return self._warn('malformed', 'Dropped a malformed message',
                              connection, error)
        self._handlers[type(answer)](self, queue, answer)

    def _warn(self, kind, what, connection, error):
        if self._may_warn[kind].allows():
            LOG.warning('%s from %s: %s (the counter %s says how many there '
                        'were)', what, texts.line(connection.endpoints[-1]),
                        error, kind)

    def _on_wrong_version(self, connection, error):
        self._counters.add('wrong_version')
        queue = connection.queue_of(error.header.instance)
        if queue is None:
            return self._warn('wrong_version', 'An answer', connection, error)
        # An answer to a QUERY has no id, and is about all that was sent.
        refused = (list(queue.in_flight) if error.header.id == wire.NO_ID
                   else [error.header.id])
        for delivery in filter(None, map(queue.take_back, refused)):
            self._custody.drop(delivery, losses.REFUSED,
                               f'{queue.instance} answered it: {error}')

    def _on_acknowledged(self, queue, answer):
        self._cache.reached(queue.instance)
        queue.is_taken()
        self._acknowledged(queue, answer.ids)

    def _acknowledged(self, queue, ids):
        # A call ends with its reply, whatever else is said of it.
        taken = [queue.take_back(each) for each in ids
                 if each in queue.in_flight
                 and queue.in_flight[each].kind != wire.CALL]
        if taken:
            self._counters.add('acknowledged', len(taken))
        now = time.monotonic()
        for delivery in taken:
            self._counters.sent.of(delivery.topic).casts.add(
                now - delivery.since)
            self._custody.end(delivery, deliveries.ACKNOWLEDGED)

    def _on_replied(self, queue, answer):
        # A late reply as well, for a call whose caller has gone.
        self._cache.reached(queue.instance)
        delivery = queue.take_back(answer.message.id)
        if delivery is not None:
            self._custody.end(delivery, deliveries.REPLIED, answer.message)

    def _on_alive(self, queue, answer):
        self._cache.reached(queue.instance)
        delivery = queue.in_flight.get(answer.id)
        if delivery is not None:
            delivery.tell(deliveries.HEARTBEAT)

    def _on_states(self, queue, answer):
        self._cache.is_there(queue.instance)
        # From the last to the first: what is sent again keeps its order.
        for message_id, state in reversed(answer.states):
            if message_id in queue.watched:
                queue.watched[message_id].heard(state == wire.KNOWN)
            elif state == wire.UNKNOWN:
                self._unknown(queue, message_id)
            elif state == wire.ACKNOWLEDGED:
                self._cache.reached(queue.instance)
                self._acknowledged(queue, [message_id])
            elif message_id in queue.in_flight:
                queue.in_flight[message_id].tell(deliveries.TAKEN)

    def _unknown(self, queue, message_id):
        """The instance does not have a message that was sent to it."""
        delivery = queue.in_flight.get(message_id)
        if delivery is None:
            return
        if delivery.kind == wire.CALL:
            # It may have run, and its reply been lost with a connection.
            self._custody.end(delivery, deliveries.LOST)
        else:
            self._counters.add('resent')
            queue.send_again(message_id)

    def _on_absent(self, queue, answer):
        loss = _ABSENT.get(answer.reason)
        if loss is not None:
            self._cache.avoid(queue.instance,
                              why=reasons.refusal(answer.reason))
            self.lose(queue, loss)

    # Refusals of one message

    def _on_refused(self, queue, answer):
        delivery = queue.in_flight.get(answer.id)
        if delivery is None:
            return
        if answer.closes_in is not None:
            self._receiver_closes(queue, answer)
        elif self._has_to_wait(delivery, answer.reason):
            queue.back_off(delivery.id, time.monotonic())
        elif answer.reason == wire.EXPIRED:
            self._custody.expire(delivery, losses.NOT_BEGUN)
        elif answer.reason in (wire.VERSION, wire.MALFORMED):
            self._custody.drop(
                delivery, losses.REFUSED,
                f'{queue.instance} refused it: {texts.line(answer.text)}')
        else:
            self._send_elsewhere(queue, delivery, answer)

    def _receiver_closes(self, queue, answer):
        """Nothing that it refuses was taken, and nothing more is sent to it.
        """
        self._cache.closes(queue.instance, answer.closes_in)
        now = time.monotonic()
        queue.send_again(answer.id)
        for each in ([queue] if queue.is_held(now)
                     else queue.connection.queues()):
            each.hold(now + answer.closes_in)
            self.lose(each, Loss.CLOSING)

    def _has_to_wait(self, delivery, reason):
        """Whether an instance cannot take a message for now, and no other one
        may take it.
        """
        if reason not in (wire.BUSY, wire.UNREACHABLE):
            return False
        if delivery.pinned:
            # One that is busy is there, whatever became of its record.
            return reason == wire.BUSY or self._cache.is_listed(
                delivery.topic, delivery.instance)
        return not any(instance.id != delivery.instance.id for instance
                       in self._cache.live(delivery.topic))

    def _send_elsewhere(self, queue, delivery, answer):
        if answer.reason != wire.REQUEUED:
            self._cache.avoid(
                queue.instance,
                deliveries.is_final(answer.reason, queue.instance),
                reasons.refusal(answer.reason, answer.text))
        loss = Loss.GONE if answer.reason in _FINAL else Loss.LOST
        action = self._action(loss, delivery, was_sent=False)
        queue.remove(delivery)
        self._act[action](self, delivery)

    # Lost instances

    def connection_lost(self, queue: SendQueue, now: float) -> None:
        """Decide what becomes of the messages for an instance that is not
        connected; to be called a few times a second as long as it is not.

        A lost connection to an instance means that the instance is lost. One
        to a receiver says nothing of the instances behind that: the registry
        is asked about them now and then.
        """
        why = queue.connection.why
        if queue.connection.keys.is_revoked():
            self._revoked(queue)
        elif not queue.connection.to_receiver:
            self._cache.unreachable(queue.instance, why())
            self.lose(queue, Loss.GONE if queue.connection.is_dead()
                      else Loss.LOST)
        elif now >= queue.look_at:
            if not queue.look_at:
                self._cache.unreachable(queue.instance, why())
                self.lose(queue, Loss.DOWN)
            else:
                self._cache.complaints.unreachable(
                    queue.instance,
                    reasons.unreachable(queue.instance, why()))
            queue.look_at = now + _LOOK_FOR_LOST_EVERY
            self._look_for(queue)

    def _revoked(self, queue):
        """An instance whose key was taken away counts as gone."""
        may_have_begun = sum(each.kind != wire.CALL and not each.pinned
                             for each in queue.in_flight.values())
        if may_have_begun:
            self._counters.add('resent_after_revocation', may_have_begun)
        self.lose(queue, Loss.GONE)

    def _look_for(self, queue):
        """Ask the registry about a lost instance, for what waits for it."""
        first = next(iter(queue.all()), None)
        if first is not None:
            self._registry.ask(first.topic, lambda looked_at: self._tell(
                functools.partial(self._looked_for, queue, first.topic,
                                  looked_at)))

    def _looked_for(self, queue, topic, looked_at):
        if (looked_at is None or queue.connection.connected
                or queue.connection.queue_of(queue.instance.id) is not queue):
            return
        if self._cache.is_listed(topic, queue.instance):
            # Its receiver may have come back with another key.
            queue.connection.use_key(
                self._cache.newest(topic, queue.instance).key)
        else:
            self.lose(queue, Loss.GONE)

    def lose(self, queue: SendQueue, loss: loss_table.Loss) -> None:
        """Decide what becomes of all messages for an instance."""
        if loss_table.TABLE[loss][loss_table.What.WATCHED] is not Action.KEEP:
            queue.lose_watched()
        decided = [(delivery, self._action(
            loss, delivery, delivery.where is deliveries.Where.IN_FLIGHT))
            for delivery in queue.all()]
        moving = [each for each in decided if each[1] is not Action.KEEP]
        for delivery, _ in moving:
            queue.remove(delivery)
        if loss.ends_queue:
            self._custody.forget_queue(queue)
        for delivery, action in moving:
            self._act[action](self, delivery)

    def _action(self, loss, delivery, was_sent):
        is_listed = not delivery.pinned or self._cache.is_listed(
            delivery.topic, delivery.instance)
        return loss_table.action(loss, delivery, was_sent, is_listed)

    def _end_call(self, delivery):
        self._custody.end(delivery, deliveries.LOST)

    def _route(self, delivery):
        self._custody.route(delivery)

    def _send_again(self, delivery):
        self._counters.add('resent')
        delivery.may_have_run = True
        self._custody.route(delivery)

    def _end_copy(self, delivery):
        self._drop_copy(delivery)

    _act = {Action.END_CALL: _end_call, Action.ROUTE: _route,
            Action.SEND_AGAIN: _send_again, Action.END_COPY: _end_copy}
    _handlers = {answers.Acknowledged: _on_acknowledged,
                 answers.Replied: _on_replied, answers.Alive: _on_alive,
                 answers.States: _on_states, answers.Refused: _on_refused,
                 answers.InstanceAbsent: _on_absent}
