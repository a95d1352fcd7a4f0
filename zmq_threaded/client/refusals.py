# SPDX-License-Identifier: Apache-2.0
"""What a NACK means for a call."""

from typing import NoReturn

from zmq_threaded import errors
from zmq_threaded import texts
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import reasons
from zmq_threaded.registry import cache as caches
from zmq_threaded.registry import record


class NotTaken(Exception):
    """The request certainly did not reach the instance: choose another.

    Thread: any.
    """


def act_on(nack: wire.Message, instance: record.Instance,
           cache: caches.Cache) -> NoReturn:
    """Note in the cache what a NACK says of an instance, and raise what it
    means for the call.

    :raises: NotTaken, errors.Refused, errors.MessagingTimeout, wire.Malformed
    """
    reason, text = wire.nack_reason(nack)
    closes_in = wire.closes_in(nack)
    if closes_in is not None and instance.receiver:
        cache.closes(instance, closes_in)
        raise NotTaken('its receiver is closing')
    if reason in (wire.VERSION, wire.MALFORMED):
        raise errors.Refused(f'{instance}: {texts.line(text)}')
    if reason == wire.EXPIRED:
        raise errors.MessagingTimeout('The call expired before a worker '
                                      'of the server began it: '
                                      + texts.line(text))
    cache.avoid(instance, deliveries.is_final(reason, instance),
                reasons.refusal(reason, text))
    raise NotTaken(wire.REASON_NAMES.get(reason, str(reason)))
