# SPDX-License-Identifier: Apache-2.0
"""What a service makes of each multipart that reaches it."""

import collections
import os

from zmq_threaded import counters as counts
from zmq_threaded import logs
from zmq_threaded import payload
from zmq_threaded import quotas
from zmq_threaded import wire
from zmq_threaded.service import failures
from zmq_threaded.service import incoming as incomings
from zmq_threaded.service import requeues

LOG = logs.get(__name__)

# What senders give to others when this service shows no life. Calls end then,
# and copies of a fanout wait.
_FREE = wire.CAST, wire.NOTIFY
# What there is no memory for may be sent again later if it is small, in bytes.
_SMALL = 1 << 20


class Reception:
    """Decodes, refuses, recognises duplicates and answers queries.

    :param instance: the Instance that this service is
    :param replies: service.replies.Replies
    :param held: service.held.Held
    :param pauses: service.pauses.Pauses
    :param released: called when a message is no longer held
    :param wake: makes the poller call turn()
    :param backlog: how many messages may be held unacknowledged
    :ivar taken: how many requests were taken

    Thread: poller.
    """

    def __init__(self, instance, replies, held, pauses, counters, released,
                 wake, backlog):
        self.instance = instance
        self.replies = replies
        self.held = held
        self.pauses = pauses
        self.counters = counters
        self.released = released
        self.accepting = True
        self.taken = 0
        self._pid = os.getpid()
        self.requeues = requeues.Requeues(
            backlog, lambda request: self.give_back(request, wire.REQUEUED))
        self._wake = wake
        self._dropped = collections.deque()
        self._queries = quotas.Quota(quotas.QUERIES)
        self._may_warn = counts.Seldom()
        self._may_warn_of_dropped = counts.Seldom()

    def admit(self, frames):
        """The Incoming that a multipart is, or None if it needs no handling.
        """
        envelope = frame = None
        try:
            envelope, frame = wire.split_envelope(frames)
            frames.clear()
            # This may lack memory, and takes less when nothing else has it.
            frame = frame.bytes
            return self._dispatch(envelope, wire.decode(frame))
        except wire.WrongVersion as error:
            self.counters.add('wrong_version')
            if self._may_warn.allows():
                LOG.warning('Refused a message: %s', error)
            self._refuse(envelope, error.header.instance, error.header.id,
                         wire.VERSION, str(error))
        except ValueError as error:
            self._malformed(error)
        except Exception as error:
            self._failed(envelope, frame, error)
        return None

    def drained(self):
        """All that had arrived was read."""
        self.held.drained()
        self.pauses.drained()

    def give_back(self, request, reason):
        """Let go of a message that is not run, and tell its sender why.

        Thread: any.
        """
        request.is_done = True
        self.held.forget(request)
        self._refuse(request.envelope, self.instance.id, request.id, reason)
        self.released()

    def requeue(self, request):
        """Give a notification back, after a while.

        Thread: any.
        """
        request.is_done = True
        self.held.delay(request)
        self.released()
        self.requeues.put(request)
        self._wake()

    def abandon(self, request):
        """Whoever was to answer a message has dropped it.

        Thread: any, at any line of it.
        """
        # A forked child drops what its parent is still at.
        if self._pid == os.getpid():
            self._dropped.append(request)
            self._wake()

    def turn(self):
        """Answer what is due; to be called often."""
        while self._dropped:
            self._settle_dropped(self._dropped.popleft())
        self.requeues.turn()

    def let_go_of_expired(self):
        """Let go of notifications whose senders have given up. One that no
        worker has begun stays: it lies in some queue, and takes its memory.
        """
        for request in self.held.handled():
            if request.is_notification() and request.is_expired():
                LOG.warning('Notification %s has expired while it was '
                            'handled; its sender has given it up',
                            request.id.hex())
                self.give_back(request, wire.EXPIRED)

    def _settle_dropped(self, request):
        if request.is_done:
            return
        self.counters.add('dropped_by_executor')
        if self._may_warn_of_dropped.allows():
            LOG.warning(
                'A worker or its executor ended without an answer to message '
                '%s; its sender is told (more of them are only counted for a '
                'while)', request.id.hex())
        if request.is_notification():
            self.requeue(request)
        elif request.is_begun:
            self._reply_for_dropped(request)
        else:
            self.give_back(request, wire.BUSY)

    def _reply_for_dropped(self, request):
        request.is_done = True
        incomings.reply(self, request, *failures.named(
            'NoReply', 'the worker of the server ended without a reply; the '
            'call may have been executed, wholly or partly'))
        self.held.forget(request)

    def _failed(self, envelope, frame, error):
        """A fault of ours, or want of memory: the sender is told."""
        self.counters.add('loop_errors')
        kind, message_id, instances = wire.address(memoryview(frame))
        if kind in wire.REQUESTS and self.instance.id in instances:
            is_small = len(frame) <= _SMALL
            self._refuse(
                envelope, self.instance.id, message_id,
                wire.BUSY if is_small else wire.MALFORMED,
                f'a message of {len(frame)} bytes could not be read: '
                f'{type(error).__name__}')
        LOG.error('A message of %d bytes could not be read; its sender was '
                  'told', len(frame), exc_info=error)

    def _malformed(self, error):
        self.counters.add('malformed')
        if self._may_warn.allows():
            LOG.warning('A message cannot be read: %s (more of them are only '
                        'counted for a while)', error)

    def _dispatch(self, envelope, message):
        if message.kind in wire.REQUESTS:
            return self._request(envelope, message)
        if message.kind == wire.QUERY:
            self._answer_query(envelope, message)
            return None
        raise wire.Malformed(
            f'{wire.KIND_NAMES[message.kind]} is not for a service')

    def _request(self, envelope, message):
        # Before anything is looked at: a pause may begin at any line.
        came = self.pauses.now()
        if not wire.is_for(message, self.instance.id):
            # With the id that was asked for: whoever knows ours may call.
            self._refuse(envelope, message.instance, message.id, wire.GONE)
        elif self._is_repeated_call(message):
            self.counters.add('repeated_calls')
            self._refuse_ours(envelope, message, wire.MALFORMED, 'a message '
                              'with this id is held or being run already')
        elif self._is_duplicate(envelope, message):
            self.counters.add('duplicates_dropped')
        elif not self.accepting:
            self._refuse_ours(envelope, message, wire.STOPPING)
        elif message.kind in _FREE and self.pauses.is_waking():
            self._refuse_ours(envelope, message, wire.BUSY)
        else:
            return self._take(envelope, message, came)
        return None

    def _is_repeated_call(self, message):
        """Whether it would replace what is held, and so pass the limit of
        the backlog. No client of ours sends one.
        """
        known = self.held.get(message.id)
        return known is not None and wire.CALL in (message.kind, known.kind)

    def _take(self, envelope, message, came):
        try:
            ctxt, body = _load(message)
        except ValueError as error:
            # Refused, not dropped: its sender would send it again and again.
            self._malformed(error)
            self._refuse_ours(envelope, message, wire.MALFORMED, str(error))
            return None
        request = incomings.request_of(message, envelope, came)
        if request.is_expired():
            self._refuse_ours(envelope, message, wire.EXPIRED)
            return None
        incoming = incomings.Incoming(ctxt, body, message, request, self)
        self.held.add(request)
        self.taken += 1
        settled = wire.settled(message)
        if settled:
            self.held.settle(settled)
        if message.flags & wire.CONFIRM:
            self._put_status(envelope, [(message.id, wire.KNOWN)])
        return incoming

    def _is_duplicate(self, envelope, message):
        if message.kind == wire.CALL:
            return False    # never sent twice to one instance
        held = self.held.get(message.id)
        if held is not None:
            # The connection on which it came first may be dead.
            held.envelope = envelope
            return True
        if self.held.was_seen(message.id):
            self.replies.acknowledge(envelope, message.id)
            return True
        return False

    def _answer_query(self, envelope, message):
        if message.instance != self.instance.id:
            # As a receiver does, for which it has no such instance.
            return self._refuse(envelope, message.instance, wire.NO_ID,
                                wire.GONE)
        if not self._queries.allows(b''.join(envelope)):
            self.counters.add('queries_ignored')
            return None
        find, seen = self.held.get, self.held.seen()
        moves = not message.flags & wire.OBSERVE
        states = []
        for message_id in wire.queried_ids(message):
            held = find(message_id)
            if held is not None:
                if moves:
                    held.envelope = envelope
                states.append((message_id, wire.KNOWN))
            else:
                states.append((message_id, wire.ACKNOWLEDGED
                               if message_id in seen else wire.UNKNOWN))
        self._put_status(envelope, states)
        return None

    def _put_status(self, envelope, states):
        self.replies.put(envelope,
                         wire.encode_status(self.instance.id, states))

    def _refuse_ours(self, envelope, message, reason, text=''):
        self._refuse(envelope, self.instance.id, message.id, reason, text)

    def _refuse(self, envelope, instance_id, message_id, reason, text=''):
        name = wire.REASON_NAMES[reason]
        self.counters.add(name if reason == wire.EXPIRED else
                          f'refused_{name}')
        self.replies.put(envelope, wire.encode_nack(
            instance_id, message_id, reason, text))


def _load(message):
    ctxt, body = (payload.load(part, message.flags)
                  for part in wire.context_and_message(message))
    if not isinstance(ctxt, dict) or not isinstance(body, dict):
        raise ValueError('context and message are no dicts')
    return ctxt, body
