# SPDX-License-Identifier: Apache-2.0
"""What a service makes of each multipart that reaches it."""

from typing import Any

from zmq_threaded import counters as counts
from zmq_threaded import logs
from zmq_threaded import payload
from zmq_threaded import quotas
from zmq_threaded import wire
from zmq_threaded.registry import record
from zmq_threaded.service import held
from zmq_threaded.service import incoming
from zmq_threaded.service import outcomes
from zmq_threaded.service import replies
from zmq_threaded.service import stalls

LOG = logs.get(__name__)

# What senders give to others when this service shows no life. Calls end then,
# and copies of a fanout wait.
_FREE = wire.CAST, wire.NOTIFY
# What there is no memory for may be sent again later if it is small, in bytes.
_SMALL = 1 << 20


class Reception:
    """Decodes what arrives, takes or refuses requests, recognises duplicates,
    and answers queries.

    :param instance: what this service is
    :param ends: brings the requests that are taken to their end
    :param answers: writes to the senders of all other messages
    :ivar accepting: False when each new request is refused
    :ivar taken: how many requests were taken

    Thread: poller.
    """

    def __init__(self, instance: record.Instance, ends: outcomes.Outcomes,
                 answers: replies.Replies, holding: held.Held,
                 observed: stalls.Stalls, counters: counts.Counters) -> None:
        self.instance = instance
        self.held = holding
        self.stalls = observed
        self.accepting = True
        self.taken = 0
        self._outcomes = ends
        self._replies = answers
        self._counters = counters
        self._queries = quotas.Quota(quotas.QUERIES)
        self._may_warn = counts.Seldom()

    def admit(self, frames: list[Any]) -> incoming.Incoming | None:
        """The Incoming that a multipart is, or None if it needs no handling.
        """
        envelope: Any = None
        frame: Any = None
        try:
            envelope, frame = wire.split_envelope(frames)
            frames.clear()
            # This may lack memory, and takes less when nothing else has it.
            frame = frame.bytes
            return self._dispatch(envelope, wire.decode(frame))
        except wire.WrongVersion as error:
            self._counters.add('wrong_version')
            if self._may_warn.allows():
                LOG.warning('Refused a message: %s', error)
            self._replies.refuse(envelope, error.header.instance,
                                 error.header.id, wire.VERSION, str(error))
        except ValueError as error:
            self._malformed(error)
        except Exception as error:
            self._failed(envelope, frame, error)
        return None

    def drained(self) -> None:
        """All that had arrived was read."""
        self.held.drained()
        self.stalls.drained()

    def _failed(self, envelope, frame, error):
        """A fault of ours, or want of memory: the sender is told."""
        self._counters.add('loop_errors')
        kind, message_id, instances = wire.address(memoryview(frame))
        if kind in wire.REQUESTS and self.instance.id in instances:
            is_small = len(frame) <= _SMALL
            self._replies.refuse(
                envelope, self.instance.id, message_id,
                wire.BUSY if is_small else wire.MALFORMED,
                f'a message of {len(frame)} bytes could not be read: '
                f'{type(error).__name__}')
        LOG.error('A message of %d bytes could not be read; its sender was '
                  'told', len(frame), exc_info=error)

    def _malformed(self, error):
        self._counters.add('malformed')
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
        # Before anything is looked at: a stall may begin at any line.
        came = self.stalls.now()
        if not wire.is_for(message, self.instance.id):
            # With the id that was asked for: whoever knows ours may call.
            self._replies.refuse(envelope, message.instance, message.id,
                                 wire.GONE)
        elif self._is_repeated_call(message):
            self._counters.add('repeated_calls')
            self._refuse_ours(envelope, message, wire.MALFORMED, 'a message '
                              'with this id is held or being run already')
        elif self._is_duplicate(envelope, message):
            pass
        elif not self.accepting:
            self._refuse_ours(envelope, message, wire.STOPPING)
        elif message.kind in _FREE and self.stalls.is_waking():
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
        request = held.request_of(message, envelope, came)
        if request.is_expired():
            self._refuse_ours(envelope, message, wire.EXPIRED)
            return None
        request.read_at = request.looked_at
        made = incoming.Incoming(ctxt, body, message, request,
                                 self._outcomes)
        self.held.add(request)
        self.taken += 1
        settled = wire.settled(message)
        if settled:
            self.held.settle(settled)
        if message.flags & wire.CONFIRM:
            self._replies.status(envelope, [(message.id, wire.KNOWN)])
        return made

    def _is_duplicate(self, envelope, message):
        if message.kind == wire.CALL:
            return False    # never sent twice to one instance
        known = self.held.get(message.id)
        if known is not None:
            # The connection on which it came first may be dead.
            known.envelope = envelope
            self._counters.add('duplicates_dropped')
            return True
        if self.held.was_seen(message.id):
            # First, for whoever gets the answer may look at the count.
            self._counters.add('duplicates_dropped')
            self._replies.acknowledge(envelope, message.id)
            return True
        return False

    def _answer_query(self, envelope, message):
        if message.instance != self.instance.id:
            # As a receiver does, for which it has no such instance.
            return self._replies.refuse(envelope, message.instance,
                                        wire.NO_ID, wire.GONE)
        if not self._queries.allows(b''.join(envelope)):
            self._counters.add('queries_ignored')
            return None
        find, seen = self.held.get, self.held.seen()
        moves = not message.flags & wire.OBSERVE
        states = []
        for message_id in wire.queried_ids(message):
            known = find(message_id)
            if known is not None:
                if moves:
                    known.envelope = envelope
                states.append((message_id, wire.KNOWN))
            else:
                states.append((message_id, wire.ACKNOWLEDGED
                               if message_id in seen else wire.UNKNOWN))
        self._replies.status(envelope, states)
        return None

    def _refuse_ours(self, envelope, message, reason, text=''):
        self._replies.refuse(envelope, self.instance.id, message.id, reason,
                             text)


def _load(message):
    ctxt, body = (payload.load(part, message.flags)
                  for part in wire.context_and_message(message))
    if not isinstance(ctxt, dict) or not isinstance(body, dict):
        raise ValueError('context and message are no dicts')
    return ctxt, body
