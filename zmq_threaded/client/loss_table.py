# SPDX-License-Identifier: Apache-2.0
"""What becomes of the messages for an instance that is lost (pure data).

Each row of TABLE is a kind of loss, each column a kind of message. A message
is sent again only on evidence that it did not arrive, or that the instance
which may have got it is lost; a call that was sent is never sent again.

A receiver that is down says nothing of the instances behind it. What they
may have got waits for the receiver, which will know.
"""

import enum

from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries


class Loss(enum.Enum):
    """How an instance was lost. The value completes the sentence 'For this
    message ...'.

    Thread: any, for the members are constants.
    """

    DOWN = 'the receiver in front of its instance is down'
    CLOSING = ('the receiver in front of its instance is closing: it takes no '
               'more, and passes on answers')
    SILENT = 'the receiver gets no sign of life from its instance'
    LOST = ('its instance is out of reach and may come back: the connection '
            'is lost, or the instance refused the message')
    GONE = 'its instance has ended'

    @property
    def ends_queue(self) -> bool:
        """Whether nothing more is sent over the same send queue."""
        return self in (Loss.LOST, Loss.GONE)


class What(enum.Enum):
    """What is concerned. A copy is one of a fanout: it must not go to any
    other instance. A message that its instance refused counts as unsent.

    Thread: any, for the members are constants.
    """

    WATCHED = 'a call on a REQ socket, which its caller watches'
    SENT_CALL = 'a call that was sent'
    SENT = 'another message that was sent'
    UNSENT = 'a call or another message that was not sent'
    SENT_COPY = 'a copy that was sent'
    UNSENT_COPY = 'a copy that was not sent'


class Action(enum.Enum):
    """What happens to it.

    Thread: any, for the members are constants.
    """

    KEEP = 'it waits for its instance'
    END_CALL = 'its caller is told that the server is lost'
    ROUTE = 'an instance is chosen for it; a copy goes to its own again'
    SEND_AGAIN = 'the same, and it may run twice, which is counted'
    END_COPY = 'it ends, for nobody else is to have it'


TABLE = {
    Loss.DOWN: {
        What.WATCHED: Action.KEEP,
        What.SENT_CALL: Action.END_CALL,
        What.SENT: Action.KEEP,
        What.UNSENT: Action.ROUTE,
        What.SENT_COPY: Action.KEEP,
        What.UNSENT_COPY: Action.KEEP},
    Loss.CLOSING: {
        What.WATCHED: Action.KEEP,
        What.SENT_CALL: Action.KEEP,
        What.SENT: Action.KEEP,
        What.UNSENT: Action.ROUTE,
        What.SENT_COPY: Action.KEEP,
        What.UNSENT_COPY: Action.KEEP},
    Loss.SILENT: {
        What.WATCHED: Action.END_CALL,
        What.SENT_CALL: Action.END_CALL,
        What.SENT: Action.SEND_AGAIN,
        What.UNSENT: Action.ROUTE,
        What.SENT_COPY: Action.KEEP,
        What.UNSENT_COPY: Action.KEEP},
    Loss.LOST: {
        What.WATCHED: Action.END_CALL,
        What.SENT_CALL: Action.END_CALL,
        What.SENT: Action.SEND_AGAIN,
        What.UNSENT: Action.ROUTE,
        What.SENT_COPY: Action.SEND_AGAIN,
        What.UNSENT_COPY: Action.ROUTE},
    Loss.GONE: {
        What.WATCHED: Action.END_CALL,
        What.SENT_CALL: Action.END_CALL,
        What.SENT: Action.SEND_AGAIN,
        What.UNSENT: Action.ROUTE,
        What.SENT_COPY: Action.END_COPY,
        What.UNSENT_COPY: Action.END_COPY},
}


def what(delivery: deliveries.Delivery, was_sent: bool) -> What:
    """The column of a message.

    :param was_sent: and was not refused
    """
    if delivery.pinned:
        return What.SENT_COPY if was_sent else What.UNSENT_COPY
    if not was_sent:
        return What.UNSENT
    return What.SENT_CALL if delivery.kind == wire.CALL else What.SENT


def action(loss: Loss, delivery: deliveries.Delivery, was_sent: bool,
           is_listed: bool) -> Action:
    """What happens to a message.

    :param was_sent: and was not refused
    :param is_listed: whether the registry lists the instance of a copy; a
        copy for an instance that is out of reach and not listed is for one
        that has ended
    """
    if loss is Loss.LOST and delivery.pinned and not is_listed:
        loss = Loss.GONE
    return TABLE[loss][what(delivery, was_sent)]
