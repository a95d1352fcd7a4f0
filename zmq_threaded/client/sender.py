# SPDX-License-Identifier: Apache-2.0
"""Sending for oslo.messaging: how a message goes, and how that has ended.

What cannot be delivered becomes an exception of oslo.messaging here, and
nowhere else.
"""

import math
import queue
import threading
import time

from zmq_threaded import errors
from zmq_threaded import mailbox
from zmq_threaded import options
from zmq_threaded import runtimes
from zmq_threaded import threads
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import outbox_calls
from zmq_threaded.net import descriptors


class Sender:
    """Sends the encoded messages of one driver.

    Thread: any.
    """

    def __init__(self, settings: options.Settings,
                 of_process: runtimes.Runtimes) -> None:
        self._settings = settings
        self._runtimes = of_process

    def call(self, topic: topics.Topic, body: list[bytes], flags: int,
             timeout: float | None, attempts: int | None,
             monitor_timeout: float | None,
             at_least_once: object = None) -> wire.Message:
        """Send a call and wait for its reply.

        :param body: context and message, encoded
        :param timeout: seconds for which the reply is waited for; None for
            ever
        :param attempts: look-ups that may find nobody; None for any number
        :param monitor_timeout: longest silence of the server in seconds;
            None for any
        :param at_least_once: the message, of a sender who wants it back when
            nobody is there
        :raises: MessagingTimeout, MessageDeliveryFailure,
            MessageUndeliverable
        """
        began = time.monotonic()
        deadline = _deadline(began, timeout)
        if not threads.may_wait():
            raise errors.MessageDeliveryFailure(
                f'A call to {topic} was made by a thread of the zmq driver, '
                f'{threading.current_thread().name}, which must not wait')
        runtime = self._runtimes.current()
        trips, reply = runtime.counters.sent.of(topic), None
        try:
            if monitor_timeout:
                reply = runtime.outbox_calls.call(
                    topic, body, flags, deadline, attempts, monitor_timeout)
            else:
                reply = runtime.requests.call(topic, body, flags, deadline,
                                              attempts)
            trips.calls.add(time.monotonic() - began)
            return reply
        except errors.Nobody as nobody:
            raise self._nobody(nobody, topic, at_least_once,
                               timeout) from None
        except descriptors.Short as error:
            raise _not_sent(topic, error) from None
        finally:
            trips.failed += reply is None

    def keep(self, kind: int, topic: topics.Topic, body: list[bytes],
             flags: int, attempts: int | None,
             at_least_once: object = None) -> None:
        """Give a message into the custody of the outbox.

        Who limits the attempts wants to know how they end, and waits until an
        instance has taken the message.

        :param kind: wire.CAST, wire.FANOUT or wire.NOTIFY
        :param attempts: see call()
        :param at_least_once: see call()
        :raises: MessageDeliveryFailure, MessageUndeliverable
        """
        waiter: mailbox.Answers | None = None
        if attempts is not None:
            waiter, flags = mailbox.Answers(), flags | wire.CONFIRM
        now = time.monotonic()
        delivery = deliveries.Delivery(
            kind=kind, topic=topic, body=body, flags=flags,
            expires=now + self._settings.lifetime,
            attempts=attempts, waiter=waiter, spread=kind != wire.CAST)
        deadline = now + self._settings.cast_timeout
        outbox = self._runtimes.current().outbox
        try:
            outbox.post(delivery, deadline)
            if waiter is not None:
                _wait_until_taken(outbox, delivery, deadline)
        except errors.NotAccepted as error:
            raise errors.MessageDeliveryFailure(
                f'{delivery}: {error}') from None
        except errors.Nobody as nobody:
            raise self._nobody(nobody, topic, at_least_once) from None
        except descriptors.Short as error:
            raise _not_sent(topic, error) from None

    def _nobody(self, nobody, topic, at_least_once, timeout=None):
        """What is raised for a message that found nobody."""
        within = '' if nobody.attempts_used_up else f' within {timeout} s'
        text = (f'No service listens on {topic}, or none could be reached'
                f'{within}: {nobody.why or self._runtimes.explain(topic)}')
        if not nobody.attempts_used_up:
            return errors.MessagingTimeout(text + _lack())
        if at_least_once is not None:
            return errors.undeliverable(topic, at_least_once, text)
        return errors.MessageDeliveryFailure(text)


def _wait_until_taken(outbox, delivery, deadline):
    try:
        event, detail = delivery.waiter.get(deadline)
    except queue.Empty:
        outbox.withdraw(delivery)
        event, detail = deliveries.FAILED, (
            'no service confirmed it within rpc_cast_timeout; it may have '
            f'been executed{_lack(delivery.held_up)}')
    outbox_calls.raise_if_failed(event, detail, delivery)


def _deadline(now, timeout):
    # Waiting for ever: queues and locks refuse an infinite timeout.
    return now + min(outbox_calls.FOR_EVER,
                     math.inf if timeout is None else timeout)


def _lack(of_delivery=''):
    """What this process lacks, for the text of an exception."""
    lack = of_delivery or descriptors.complaint()
    return f' (this process is {lack})' if lack else ''


def _not_sent(topic, error):
    return errors.OutOfResources(f'A message for {topic} was not sent: this '
                                 f'process is {error}')
