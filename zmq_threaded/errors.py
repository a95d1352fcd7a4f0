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


def undeliverable(topic, body, why):
    """MessageUndeliverable as the rabbit driver's users know it."""
    return exceptions.MessageUndeliverable(
        exception=why, exchange=topic.exchange, routing_key=topic.name,
        message=body)
