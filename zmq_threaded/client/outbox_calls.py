# SPDX-License-Identifier: Apache-2.0
"""Calls over the outbox: their server may send more than one message, or can
have no connection for each caller.
"""

import queue
import time

from zmq_threaded import counters as counts
from zmq_threaded import errors
from zmq_threaded import mailbox
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import outbox as outboxes
from zmq_threaded.registry import record
from zmq_threaded.registry import registry as registries

# In seconds; queues and locks refuse an infinite timeout.
FOR_EVER = 10 * 365 * 86400


class OutboxCalls:
    """Posts calls to the outbox and waits for what comes back.

    Thread: any.
    """

    def __init__(self, outbox: outboxes.Outbox, registry: registries.Registry,
                 counters: counts.Counters) -> None:
        self._outbox = outbox
        self._registry = registry
        self._counters = counters

    def call(self, topic: topics.Topic, body: list[bytes], flags: int,
             deadline: float, attempts: int | None,
             monitor_timeout: float = 0.0,
             chosen: record.Instance | None = None) -> wire.Message:
        """Send a call and wait for its reply.

        :param body: context and message, encoded
        :param deadline: monotonic seconds
        :param attempts: look-ups that may find nobody; None for any number
        :param monitor_timeout: longest silence of the server in seconds; 0
            for any
        :param chosen: the instance whose turn it is, None to choose one
        :raises: errors.Nobody, MessagingTimeout, MessageDeliveryFailure,
            descriptors.Short
        """
        delivery = deliveries.Delivery(
            kind=wire.CALL, topic=topic, body=body, flags=flags,
            expires=deadline, attempts=attempts, waiter=mailbox.Answers(),
            client_timeout=min(float(monitor_timeout), wire.LONGEST_TIMEOUT),
            chosen=chosen)
        try:
            self._post(delivery, deadline)
            return self._wait(delivery, deadline, monitor_timeout or FOR_EVER)
        except BaseException:
            # It may have been interrupted; if it has ended, this does nothing.
            self._outbox.withdraw(delivery)
            raise

    def _post(self, delivery, deadline):
        try:
            self._outbox.post(delivery, deadline)
        except errors.NotAccepted as error:
            raise errors.MessagingTimeout(f'{delivery}: {error}') from None

    def _wait(self, delivery, deadline, longest_silence):
        silence_until = time.monotonic() + longest_silence
        while True:
            event, detail = self._next(delivery, min(deadline, silence_until))
            if event == deliveries.REPLIED:
                return detail
            raise_if_failed(event, detail, delivery,
                            self._registry.cache.why(delivery.instance)
                            if event == deliveries.LOST else '')
            if event == deliveries.HEARTBEAT:
                # That the server has the call, which its poller says as well,
                # is no sign that a worker is at it.
                silence_until = time.monotonic() + longest_silence

    def _next(self, delivery, until):
        """What has happened to a call: (event, detail)."""
        try:
            event, detail = delivery.waiter.get(until)
        except queue.Empty:
            event, detail = deliveries.EXPIRED, None
        if event == deliveries.EXPIRED:
            self._counters.add('calls_timed_out')
            if delivery.sent_at:
                self._registry.cache.unanswered.timed_out(delivery.instance)
            raise errors.MessagingTimeout(
                'Timed out waiting for a reply to, or a sign of life of, '
                f'{delivery}{self._why_unsent(delivery)}')
        return event, detail

    def _why_unsent(self, delivery):
        if delivery.sent_at:
            return f' from {delivery.instance}'
        why = delivery.held_up or self._registry.cache.explain(delivery.topic)
        return f', which was not sent: {why}'


def raise_if_failed(event: str, detail: str | None,
                    delivery: deliveries.Delivery, why: str = '') -> None:
    """Raise what an event of a delivery means, if its sender waits in vain.

    :param event: of client.delivery
    :param why: why the server of a call was lost, if that is known
    :raises: errors.Nobody, errors.ServerGone, MessageDeliveryFailure
    """
    if event == deliveries.NOBODY:
        raise errors.Nobody(attempts_used_up=True)
    if event == deliveries.LOST:
        raise errors.ServerGone(
            f'The server of {delivery} was lost before it replied (instance '
            f'{delivery.instance}); it may have been executed'
            + (f'. The cause: {why}' if why else ''))
    if event == deliveries.FAILED:
        raise errors.MessageDeliveryFailure(f'{delivery}: {detail}')
