# SPDX-License-Identifier: Apache-2.0
"""What the reply thread does for one service: it is the only writer of the
ROUTER.
"""

import time
from collections.abc import Sequence

from zmq_threaded import counters as counts
from zmq_threaded import finished
from zmq_threaded import logs
from zmq_threaded import mailbox
from zmq_threaded import sizes
from zmq_threaded import timings
from zmq_threaded import wire
from zmq_threaded.net import multiparts
from zmq_threaded.net import slow_clients
from zmq_threaded.registry import record
from zmq_threaded.service import reply_thread
from zmq_threaded.service import router
from zmq_threaded.service import stalls

LOG = logs.get(__name__)

_BATCH = 64


class Replies:
    """Takes replies, acknowledgements and refusals from any thread and writes
    them, in order for each client.

    :param instance: what this service is
    :param observed: the stalls. No code of the user holds the reply thread
        up, so this thread tells when the process stood still.
    :param longest: bytes that a reply may have
    :ivar written_at: when something was written last, in monotonic seconds

    Thread: any for the public methods, reply for the rest.
    """

    def __init__(self, shared: router.SharedRouter, instance: record.Instance,
                 observed: stalls.Stalls, counters: counts.Counters,
                 longest: int) -> None:
        self._stalls = observed
        self._router = shared
        self._instance = instance
        self._counters = counters
        self._longest = longest
        self._mailbox = mailbox.Mailbox()
        self._slow = slow_clients.SlowClients(self._retry, counters)
        self._thread: reply_thread.ReplyThread | None = None
        # Whether a turn is to come that sees what is put now.
        self._is_woken = False
        self._busy = False
        self.written_at = 0.0
        self.is_stopping = self._has_ended = False
        self._finished = finished.Finished()

    def start(self, thread: reply_thread.ReplyThread) -> None:
        """Begin to write, and start the guard of the socket.

        :param thread: writes for this service, and perhaps for others
        :raises: descriptors.Short when there are no threads to be had
        """
        self._stalls.tick()
        thread.add(self)
        self._thread = thread
        self._wake()
        self._router.guard.start()

    def check_size(self, body: Sequence[bytes], call_id: str) -> None:
        """Refuse a reply that is too big to be sent.

        :raises: MessageDeliveryFailure
        """
        sizes.check(body, self._longest, 'The reply to call', call_id)

    # What is to be sent

    def result(self, envelope: list[bytes], call_id: bytes,
               body: Sequence[bytes], flags: int) -> None:
        """Send the result of a call.

        :param body: parts of a REPLY
        """
        instance_id = self._instance.id
        if not self._instance.two_messages:
            flags |= wire.ENDING
        self.put(envelope, wire.encode_reply(instance_id, call_id, body,
                                             flags))
        if self._instance.two_messages:
            self.put(envelope, wire.encode_ending(instance_id, call_id))

    def heartbeat(self, envelope: list[bytes], call_id: bytes) -> None:
        """Send a HEARTBEAT: the call is still being run."""
        self.put(envelope, wire.encode_heartbeat(self._instance.id, call_id))

    def status(self, envelope: list[bytes],
               states: Sequence[tuple[bytes, int]]) -> None:
        """Send a STATUS.

        :param states: list of (message id, state)
        """
        self.put(envelope, wire.encode_status(self._instance.id, states))

    def refuse(self, envelope: list[bytes], instance_id: bytes,
               message_id: bytes, reason: int, text: str = '') -> None:
        """Send a NACK, and count it.

        :param instance_id: which service the message was for
        """
        name = wire.REASON_NAMES[reason]
        self._counters.add(name if reason == wire.EXPIRED else
                           f'refused_{name}')
        self.put(envelope, wire.encode_nack(instance_id, message_id, reason,
                                            text))

    def put(self, envelope: list[bytes], frame: bytes) -> None:
        """Send a message to where a request came from.

        :param envelope: the envelope of the request
        :param frame: the message, as the encoders of wire give it
        """
        self._put((envelope, frame, None))

    def acknowledge(self, envelope: list[bytes], message_id: bytes) -> None:
        """Send an ACK; those for one client travel together."""
        self._put((envelope, None, message_id))

    def _put(self, item):
        self._mailbox.put(item)
        # Looked at last, so that nothing is put behind the thread's end
        # without a word.
        if self._has_ended:
            self._discard()
        elif not self._is_woken:
            self._wake()

    def _wake(self):
        if self._thread is not None:
            self._is_woken = True
            self._thread.wake(self)

    # Its end

    def wait_until_empty(self, deadline: float) -> None:
        """Wait until all replies are handed to libzmq.

        :param deadline: monotonic seconds
        """
        while not self._is_empty() and time.monotonic() < deadline:
            time.sleep(0.002)

    def _is_empty(self):
        return self._has_ended or not (
            len(self._mailbox) or self._busy or len(self._slow))

    def stop(self) -> None:
        """Ask the thread to write what is left, and to let go of this
        service; does not wait.
        """
        self._router.guard.stop()
        self.is_stopping = True
        if self._thread is None:
            self.finish()
        else:
            self._thread.wake(self)

    def join(self, deadline: float) -> bool:
        """Wait until the thread has let go of this service.

        :param deadline: monotonic seconds
        :returns: False when it has not
        """
        self._router.guard.join(deadline)
        is_current = self._thread is not None and self._thread.is_current()
        return is_current or self._finished.wait(deadline)

    # The reply thread

    def turn(self) -> None:
        """Write what there is, but not for long: others wait as well."""
        self._busy = True
        # First: whoever puts something from now on wakes the thread again.
        self._is_woken = False
        items = self._mailbox.take(0, _BATCH)
        self._stalls.tick()
        try:
            if len(self._slow):
                self._slow.retry()
            self._write(self._multiparts(items))
        finally:
            self._busy = False
            if len(self._mailbox) and not self._is_woken:
                self._wake()

    def is_behind(self) -> bool:
        """Whether a client is to be tried again soon."""
        return len(self._slow) > 0

    def finish(self) -> None:
        """Write what is left, as far as clients take it."""
        deadline = time.monotonic() + timings.LAST_WRITE
        try:
            while len(self._mailbox) and time.monotonic() < deadline:
                self.turn()
            self._slow.retry()
        finally:
            self._has_ended = True
            self._finished.set()
            self._discard(self._slow.discard())

    def _discard(self, count=0):
        """:param count: answers that are given up, besides the queue's"""
        count += len(self._mailbox.take(0, len(self._mailbox)))
        if count:
            LOG.warning('The service was closed before %d answers could be '
                        'sent', count)
            self._counters.add('replies_dropped', count)

    def _multiparts(self, items):
        try:
            return _multiparts(items, self._instance.id)
        except Exception as error:
            if len(items) == 1:
                self._failed(error)
                return []
        # One of them is at fault; the others must not be lost with it.
        return [frames for item in items
                for frames in self._multiparts([item])]

    def _write(self, batch):
        if len(self._slow):
            batch = self._without_slow(batch)
        outcomes = self._router.send(batch)
        if outcomes:
            self.written_at = time.monotonic()
        for frames, outcome in zip(batch, outcomes):
            if outcome is multiparts.SLOW:
                self._keep(frames)
            elif outcome is multiparts.GONE:
                self._counters.add('replies_to_vanished_clients')
            elif outcome is not multiparts.SENT:
                self._failed(outcome)

    def _without_slow(self, batch):
        """What is for clients that read; the rest is kept for later."""
        ready = []
        for frames in batch:
            if frames[0] in self._slow:
                self._keep(frames)
            else:
                ready.append(frames)
        return ready

    def _keep(self, frames):
        self._slow.keep(frames, sum(map(len, frames)))

    def _retry(self, frames):
        outcome, = self._router.send([frames])
        if isinstance(outcome, Exception):
            self._failed(outcome)
        return outcome

    def _failed(self, error):
        LOG.error('An unexpected error, an answer is lost', exc_info=error)
        self._counters.add('loop_errors')
        self._counters.add('replies_dropped')


def _multiparts(items, instance_id):
    batch: list[list[bytes]] = []
    acks: dict[tuple, list[bytes]] = {}
    for envelope, frame, acknowledged in items:
        if acknowledged is None:
            batch.append([*envelope, frame])
        else:
            acks.setdefault(tuple(envelope), []).append(acknowledged)
    for envelope, ids in acks.items():
        batch.append([*envelope, wire.encode_ack(instance_id, ids)])
    return batch
