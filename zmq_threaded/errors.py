# SPDX-License-Identifier: Apache-2.0
"""What the driver raises, each a kind of oslo.messaging's own exceptions."""

import oslo_messaging
from oslo_messaging import exceptions
from oslo_messaging._drivers import base

MessagingTimeout = exceptions.MessagingTimeout
MessageDeliveryFailure = exceptions.MessageDeliveryFailure
MessageUndeliverable = exceptions.MessageUndeliverable
RemoteError = oslo_messaging.RemoteError


class ConfigurationError(base.TransportDriverError):
    """The driver cannot work as it is configured, or where it is."""


class ListenError(base.TransportDriverError):
    """A service could not bind its sockets."""


class OutOfResources(exceptions.MessageDeliveryFailure):
    """This process has no file descriptors left for the driver, or no memory;
    the text says what to do. Once there are, it works.
    """


class ServerGone(exceptions.MessagingTimeout):
    """The server of a call was lost before it replied. The call may have
    been executed, wholly, partly or not at all.
    """


class ExpiredMessage(exceptions.MessagingException):
    """The sender no longer waits for this message; it must not be run."""


class Refused(exceptions.MessageDeliveryFailure):
    """The server cannot read the message: it speaks another version of the
    protocol, or the message is nothing that it could be.
    """


class Nobody(Exception):
    """No instance of the topic could be found in time, or in the number of
    attempts that was asked for.

    :ivar attempts_used_up: False when time was what ran out, or the driver
        was closed
    :ivar why: what is known of those who might have been found, as text
    """

    def __init__(self, attempts_used_up: bool, why: str = '') -> None:
        self.attempts_used_up = attempts_used_up
        self.why = why
        super().__init__()


class NotAccepted(Exception):
    """The outbox did not take a message into custody; the text says why.

    Its sender makes one of oslo.messaging's exceptions of it.
    """


def undeliverable(topic, body, why):
    """MessageUndeliverable as the rabbit driver's users know it."""
    return exceptions.MessageUndeliverable(
        exception=why, exchange=topic.exchange, routing_key=topic.name,
        message=body)
