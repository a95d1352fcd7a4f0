# SPDX-License-Identifier: Apache-2.0
"""What becomes of the requests that a service has taken."""

import functools
import os
from collections.abc import Callable
from collections.abc import Sequence

from zmq_threaded import counters as counts
from zmq_threaded import logs
from zmq_threaded import wire
from zmq_threaded.registry import record
from zmq_threaded.service import failures
from zmq_threaded.service import held
from zmq_threaded.service import poller_thread
from zmq_threaded.service import replies
from zmq_threaded.service import requeues
from zmq_threaded.service import stalls

LOG = logs.get(__name__)


class Outcomes:
    """Brings each request to its end: it is acknowledged, answered, given
    back, or requeued. Each end is told to the sender, by the reply thread.

    :param instance: what this service is
    :param answers: writes to the senders
    :param holding: the requests that are held
    :param inbox: the mailbox of the poller thread; its items are called there
    :param made_room: called when a request no longer counts as held
    :param backlog: how many notifications may wait to be given back

    Thread: any; poller for turn(), let_go_of_expired() and close().
    """

    def __init__(self, instance: record.Instance, answers: replies.Replies,
                 holding: held.Held, observed: stalls.Stalls,
                 counters: counts.Counters, inbox: poller_thread.Inbox,
                 made_room: Callable[[], None], backlog: int) -> None:
        self._instance = instance
        self._replies = answers
        self._held = holding
        self._stalls = observed
        self._counters = counters
        self._mailbox = inbox
        self._made_room = made_room
        self._requeues = requeues.Requeues(
            backlog, lambda request: self.give_back(request, wire.REQUEUED))
        self._may_warn = counts.Seldom()
        self._pid = os.getpid()

    # A worker has the request

    def acknowledge(self, request: held.Request) -> None:
        """A worker runs this request now, or has handled this notification.
        A call counts as running from here on; any other request has ended.
        """
        if request.kind == wire.CALL:
            self._held.begin(request)
        else:
            request.is_done = True
            self._held.release(request)
            self._replies.acknowledge(request.envelope, request.id)
        self._made_room()

    def check_size(self, body: Sequence[bytes], call_id: str) -> None:
        """See that a result is not too big to be sent.

        :raises: MessageDeliveryFailure
        """
        self._replies.check_size(body, call_id)

    def answer(self, request: held.Request, body: Sequence[bytes],
               flags: int) -> None:
        """Send the result of a call, which ends the call.

        :param body: parts of a REPLY
        """
        self._replies.result(request.envelope, request.id, body, flags)
        request.is_done = True
        self._held.forget(request)

    def heartbeat(self, request: held.Request) -> None:
        """Tell the client of a call that the call is still being run."""
        self._replies.heartbeat(request.envelope, request.id)

    # The request is not run

    def give_back_if_not_ours(self, request: held.Request) -> str:
        """Give a request back for which nobody waits here any more.

        :returns: why it was given back, '' if it was not
        """
        if request.is_expired():
            self.give_back(request, wire.EXPIRED)
            return (f'Message {request.id.hex()} has expired before a worker '
                    'was free')
        if (request.kind == wire.CAST
                and self._stalls.was_given_away(request.came)):
            self.give_back(request, wire.BUSY)
            return (f'Message {request.id.hex()} may have been given to '
                    'another server while this process stood still')
        return ''

    def give_back(self, request: held.Request, reason: int) -> None:
        """Let go of a request that is not run, and tell its sender why.

        :param reason: of a NACK
        """
        request.is_done = True
        self._held.forget(request)
        self._replies.refuse(request.envelope, self._instance.id, request.id,
                             reason)
        self._made_room()

    def requeue(self, request: held.Request) -> None:
        """Give a notification back after a while, the later the more often
        it came: the only listener would get it again at once.
        """
        request.is_done = True
        self._held.delay(request)
        self._made_room()
        self._requeues.put(request)
        self._mailbox.wake()

    def abandon(self, request: held.Request) -> None:
        """Whoever was to answer a request has dropped it. May be called at
        any line of any thread.
        """
        # A forked child drops what its parent is still at.
        if self._pid == os.getpid():
            self._mailbox.put(functools.partial(self._settle_dropped,
                                                request))

    # The poller thread

    def turn(self) -> float:
        """Give back what is due.

        :returns: when more will be due, in monotonic seconds; inf for never
        """
        return self._requeues.turn()

    def close(self) -> None:
        """Give back at once what waits, and what is requeued from now on."""
        self._requeues.close()

    def let_go_of_expired(self) -> None:
        """Let go of notifications whose senders have given up. One that no
        worker has begun stays: it lies in some queue, and takes its memory.
        """
        for request in self._held.handled():
            if request.is_notification() and request.is_expired():
                LOG.warning('Notification %s has expired while it was '
                            'handled; its sender has given it up',
                            request.id.hex())
                self.give_back(request, wire.EXPIRED)

    def _settle_dropped(self, request):
        if request.is_done:
            return
        self._counters.add('dropped_by_executor')
        if self._may_warn.allows():
            LOG.warning(
                'A worker or its executor ended without an answer to message '
                '%s; its sender is told (more of them are only counted for a '
                'while)', request.id.hex())
        if request.is_notification():
            self.requeue(request)
        elif request.is_begun:
            self.answer(request, *failures.named(
                'NoReply', 'the worker of the server ended without a reply; '
                'the call may have been executed, wholly or partly'))
        else:
            self.give_back(request, wire.BUSY)
