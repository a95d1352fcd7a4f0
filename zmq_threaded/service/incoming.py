# SPDX-License-Identifier: Apache-2.0
"""A request as the endpoint's thread sees it."""

import dataclasses
import sys
import time

from oslo_messaging._drivers import base

from zmq_threaded import errors
from zmq_threaded import logs
from zmq_threaded import payload
from zmq_threaded import wire
from zmq_threaded.service import failures

LOG = logs.get(__name__)


@dataclasses.dataclass(slots=True, eq=False)
class Request:
    """What the service keeps of a message until it is answered.

    A Request has no hold of the Incoming. The Incoming goes when nobody means
    to run it any more, and then the poller thread answers in its place.

    :ivar envelope: where the answers go
    :ivar expires: when its sender gives up, in monotonic seconds
    :ivar came: what Stalls.now() said when the message was read
    :ivar is_begun: a worker is at it
    :ivar is_done: it was answered, and needs nothing more

    Thread: any.
    """

    id: bytes
    kind: int
    envelope: list
    expires: float
    came: int
    is_begun: bool = False
    is_done: bool = False

    def is_expired(self):
        """Whether the sender has given up."""
        return time.monotonic() >= self.expires

    def is_notification(self):
        """Whether it is acknowledged after it was handled, not before."""
        return self.kind == wire.NOTIFY


def request_of(message, envelope, came):
    """The Request that the service keeps of a decoded message.

    :param message: wire.Message
    :param envelope: where the answers go
    :param came: what Stalls.now() said when the message was read
    """
    expires = (message.expiry if message.flags & wire.DEADLINE
               else time.monotonic() + message.expiry)
    return Request(message.id, message.kind, envelope, expires, came)


class Incoming(base.RpcIncomingMessage):
    """One request of one client, as oslo.messaging knows it.

    :param message: wire.Message
    :param request: its Request
    :param outcomes: service.outcomes.Outcomes

    Thread: any, one at a time; the poller made it.
    """

    request = None

    def __init__(self, ctxt, body, message, request, outcomes):
        super().__init__(ctxt, body, msg_id=message.id.hex())
        # The dispatcher sends heartbeats for whole seconds only.
        self.client_timeout = message.client_timeout or None
        self._serialization = ('msgpack' if message.flags & wire.MSGPACK
                               else 'json')
        self._outcomes = outcomes
        self.request = request

    def __del__(self):
        # Whoever was to answer has dropped it: an executor that was shut
        # down, a worker that ended. Any thread, at any line: do no more here.
        request = self.request
        if request is not None and not request.is_done:
            self._outcomes.abandon(request)

    @property
    def id(self):
        return self.request.id

    @property
    def envelope(self):
        return self.request.envelope

    def begin(self):
        """A worker is at it, which will answer or drop it.

        :returns: False when it was given back, for nobody waits for it here
            any more. (oslo.messaging itself would log a traceback of each
            that cannot be acknowledged.)
        """
        self.request.is_begun = True
        why = self._outcomes.give_back_if_not_ours(self.request)
        if why:
            LOG.debug('%s', why)
        return not why

    def is_notification(self):
        """Whether it is acknowledged after it was handled, not before."""
        return self.request.is_notification()

    def acknowledge(self):
        """Tell the sender that this message is run now, or (a notification)
        that it was handled; the sender lets go of it.

        :raises: ExpiredMessage when the sender has given up meanwhile: the
            server then skips the message
        """
        request = self.request
        if request.is_done:
            return
        request.is_begun = True
        if request.kind != wire.NOTIFY:
            why = self._outcomes.give_back_if_not_ours(request)
            if why:
                raise errors.ExpiredMessage(why)
        self._outcomes.acknowledge(request)

    def requeue(self):
        """Give the message back; its sender chooses among the listeners of
        the pool again. Not at once: the only listener would get the message
        again, and requeue it again, hundreds of times a second.
        """
        if not self.request.is_done:
            self._outcomes.requeue(self.request)

    def refuse_busy(self):
        """Give the message back unbegun: no worker could be found."""
        if not self.request.is_done:
            self._outcomes.give_back(self.request, wire.BUSY)

    def reply(self, reply=None, failure=None):
        """Send the result of a call, or its exception.

        It is encoded here, in the endpoint's thread: afterwards the endpoint
        may change the object that it returned.

        :param failure: sys.exc_info() of the exception
        """
        request = self.request
        if request.kind != wire.CALL or request.is_done:
            return
        try:
            body, flags = (failures.encode(failure) if failure else
                           payload.dump((reply,), self._serialization))
            self._outcomes.check_size(body, self.msg_id)
            self._outcomes.answer(request, body, flags)
        except Exception as error:
            # First the caller, who may be all that there is memory for.
            self._outcomes.answer(request, *failures.encode(sys.exc_info()))
            LOG.error('The reply to call %s could not be encoded; its caller '
                      'gets this exception in its place: %s', self.msg_id,
                      type(error).__name__, exc_info=error)

    def heartbeat(self):
        """Tell a monitoring client that the call is still being run."""
        self._outcomes.heartbeat(self.request)
