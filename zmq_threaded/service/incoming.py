# SPDX-License-Identifier: Apache-2.0
"""A request as the endpoint's thread sees it."""

import time

from oslo_messaging._drivers import base
from oslo_messaging._drivers import common

from zmq_threaded import errors
from zmq_threaded import logs
from zmq_threaded import payload
from zmq_threaded import wire

LOG = logs.get(__name__)


class Incoming(base.RpcIncomingMessage):
    """One request of one client.

    :param message: wire.Message
    :param envelope: where the answers go
    :param came: what Pauses.now() said when it was read
    :param port: the service's side of it: replies, held, pauses,
        give_back(), released()

    Thread: any, one at a time; the poller made it.
    """

    def __init__(self, ctxt, body, message, envelope, port, came):
        super().__init__(ctxt, body, msg_id=message.id.hex())
        self.id = message.id
        self.envelope = envelope
        # The dispatcher sends heartbeats for whole seconds only.
        self.client_timeout = message.client_timeout or None
        self._kind = message.kind
        self._serialization = ('msgpack' if message.flags & wire.MSGPACK
                               else 'json')
        self._expires = (message.expiry if message.flags & wire.DEADLINE
                         else time.monotonic() + message.expiry)
        self._port = port
        self._came = came

    def is_expired(self):
        """Whether the sender has given up."""
        return time.monotonic() >= self._expires

    def is_notification(self):
        """Whether it is acknowledged after it was handled, not before."""
        return self._kind == wire.NOTIFY

    def acknowledge(self):
        """Tell the sender that this message is run now, or (a notification)
        that it was handled; it lets go of it.

        :raises: ExpiredMessage when the sender has given up meanwhile: the
            server then skips the message
        """
        if self._kind != wire.NOTIFY:
            self._check_that_it_is_ours()
        if self._kind == wire.CALL:
            self._port.held.begin(self)
        else:
            self._port.held.release(self)
            self._port.replies.acknowledge(self.envelope, self.id)
        self._port.released()

    def _check_that_it_is_ours(self):
        if self.is_expired():
            self._port.give_back(self, wire.EXPIRED)
            raise errors.ExpiredMessage(
                f'Message {self.msg_id} has expired before a worker was free')
        if (self._kind == wire.CAST
                and self._port.pauses.was_given_away(self._came)):
            self._port.give_back(self, wire.BUSY)
            raise errors.ExpiredMessage(
                f'Message {self.msg_id} may have been given to another '
                'server while this process was paused')

    def requeue(self):
        """Give the message back; its sender chooses among the listeners of
        the pool again.
        """
        self._port.give_back(self, wire.REQUEUED)

    def refuse_busy(self):
        """Give the message back unbegun: no worker could be found."""
        self._port.give_back(self, wire.BUSY)

    def reply(self, reply=None, failure=None):
        """Send the result of a call, or its exception.

        It is encoded here, in the endpoint's thread: afterwards the endpoint
        may change the object that it returned.

        :param failure: sys.exc_info() of the exception
        """
        if self._kind != wire.CALL:
            return
        try:
            body, flags = (_encode_failure(failure) if failure else
                           payload.dump((reply,), self._serialization))
            self._port.replies.check_size(body, self.msg_id)
        except Exception as error:
            LOG.exception('The reply to call %s cannot be encoded',
                          self.msg_id)
            body, flags = _encode_failure(
                (type(error), error, error.__traceback__))
        if self._port.instance.two_messages:
            self._put_reply(body, flags)
            self._put_reply((wire.NO_RESULT,), wire.ENDING)
        else:
            self._put_reply(body, flags | wire.ENDING)
        self._port.held.forget(self)

    def _put_reply(self, body, flags):
        self._port.replies.put(self.envelope, wire.encode(
            wire.REPLY, self._port.instance.id, self.id, body, flags))

    def heartbeat(self):
        """Tell a monitoring client that the call is still being run."""
        self._port.replies.put(self.envelope, wire.encode(
            wire.HEARTBEAT, self._port.instance.id, self.id))


def _encode_failure(failure):
    text = common.serialize_remote_exception(failure)
    return [text.encode()], wire.FAILURE
