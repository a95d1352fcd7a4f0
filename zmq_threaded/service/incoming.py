# SPDX-License-Identifier: Apache-2.0
"""A request as the endpoint's thread sees it."""

import sys
from typing import Any

from oslo_messaging._drivers import base

from zmq_threaded import errors
from zmq_threaded import logs
from zmq_threaded import payload
from zmq_threaded import wire
from zmq_threaded.service import failures
from zmq_threaded.service import held
from zmq_threaded.service import outcomes

LOG = logs.get(__name__)


class Incoming(base.RpcIncomingMessage):
    """One request of one client, as oslo.messaging knows it.

    :param ctxt: its decoded context
    :param body: its decoded message
    :param request: what the service keeps of it
    :param ends: brings the request to its end

    Thread: any, one at a time; the poller made it.
    """

    # __del__() runs, too, when __init__() has failed.
    request: held.Request = None    # type: ignore[assignment]

    def __init__(self, ctxt: dict, body: dict, message: wire.Message,
                 request: held.Request, ends: outcomes.Outcomes) -> None:
        super().__init__(ctxt, body, msg_id=message.id.hex())
        # The dispatcher sends heartbeats for whole seconds only.
        self.client_timeout = message.client_timeout or None
        self._serialization = ('msgpack' if message.flags & wire.MSGPACK
                               else 'json')
        self._outcomes = ends
        self.request = request

    def __del__(self) -> None:
        # Whoever was to answer has dropped it: an executor that was shut
        # down, a worker that ended. Any thread, at any line: do no more here.
        request = self.request
        if request is not None and not request.is_done:
            self._outcomes.abandon(request)

    @property
    def id(self) -> bytes:
        return self.request.id

    @property
    def envelope(self) -> list[bytes]:
        return self.request.envelope

    def begin(self) -> bool:
        """A worker has this message now, and will answer or drop it.

        :returns: False when the message was given back, for nobody waits for
            it here any more. (oslo.messaging itself would log a traceback of
            each message that cannot be acknowledged.)
        """
        self.request.is_begun = True
        why = self._outcomes.give_back_if_not_ours(self.request)
        if why:
            LOG.debug('%s', why)
        return not why

    def is_notification(self) -> bool:
        """Whether the message is acknowledged after it was handled, and not
        before.
        """
        return self.request.is_notification()

    def acknowledge(self) -> None:
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

    def requeue(self) -> None:
        """Give the message back; its sender chooses among the listeners of
        the pool again. Not at once: the only listener would get the message
        again, and requeue it again, hundreds of times a second.
        """
        if not self.request.is_done:
            self._outcomes.requeue(self.request)

    def refuse_busy(self) -> None:
        """Give the message back unbegun: no worker could be found."""
        if not self.request.is_done:
            self._outcomes.give_back(self.request, wire.BUSY)

    def reply(self, reply: Any = None, failure: Any = None) -> None:
        """Send the result of a call, or its exception.

        The result is encoded here, in the thread of the endpoint: afterwards
        the endpoint may change the object that it returned.

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

    def heartbeat(self) -> None:
        """Tell a monitoring client that the call is still being run."""
        self._outcomes.heartbeat(self.request)
