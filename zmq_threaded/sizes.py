# SPDX-License-Identifier: Apache-2.0
"""The size of a message, which both ends limit.

libzmq drops the connection of a peer that sends more than ZMQ_MAXMSGSIZE, and
nobody is told why: so what is too big is refused before it is sent.
"""

from zmq_threaded import errors

OPTION = 'rpc_zmq_max_message_size'


def check(body, limit, what, about):
    """Refuse a message that its receiver would not take.

    :param body: its parts, bytes each
    :param limit: in bytes
    :param what: which kind of message it is, as text
    :param about: its id or where it goes; made a text only when it is needed
    :raises: MessageDeliveryFailure
    """
    size = sum(map(len, body))
    if size > limit:
        raise errors.MessageDeliveryFailure(
            f'{what} {about} has {size} bytes, more than the {limit} of '
            f'{OPTION}: it was not sent. Send less, or raise the option on '
            'all sides (the receivers of the nodes too).')
