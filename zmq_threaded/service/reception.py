# SPDX-License-Identifier: Apache-2.0
"""What a service makes of each multipart that reaches it."""


from zmq_threaded import counters as counts
from zmq_threaded import logs
from zmq_threaded import payload
from zmq_threaded import wire
from zmq_threaded.service import incoming as incomings

LOG = logs.get(__name__)

# What senders give to others when this service shows no life. Calls end then,
# and copies of a fanout wait.
_FREE = wire.CAST, wire.NOTIFY


class Reception:
    """Decodes, refuses, recognises duplicates and answers queries.

    :param instance: the Instance that this service is
    :param replies: service.replies.Replies
    :param held: service.held.Held
    :param pauses: service.pauses.Pauses
    :param released: called when a message is no longer held

    Thread: poller.
    """

    def __init__(self, instance, replies, held, pauses, counters, released):
        self.instance = instance
        self.replies = replies
        self.held = held
        self.pauses = pauses
        self.counters = counters
        self.released = released
        self.accepting = True
        self._may_warn = counts.Seldom()

    def admit(self, frames):
        """The Incoming that a multipart is, or None if it needs no handling.
        """
        envelope = None
        try:
            envelope, frame = wire.split_envelope(frames)
            return self._dispatch(envelope, wire.decode(frame))
        except wire.WrongVersion as error:
            self.counters.add('wrong_version')
            if self._may_warn.allows():
                LOG.warning('Refused a message: %s', error)
            self._refuse(envelope, error.header, wire.VERSION, str(error))
        except ValueError as error:
            self._malformed(error)
        return None

    def drained(self):
        """All that had arrived was read."""
        self.held.drained()
        self.pauses.drained()

    def give_back(self, incoming, reason):
        """Let go of a message that is not run, and tell its sender why.

        Thread: any.
        """
        self.held.forget(incoming)
        self._refuse(incoming.envelope, incoming, reason)
        self.released()

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
            self._refuse(envelope, message, wire.GONE)
        elif self._is_duplicate(envelope, message):
            self.counters.add('duplicates_dropped')
        elif not self.accepting:
            self._refuse(envelope, message, wire.STOPPING)
        elif message.kind in _FREE and self.pauses.is_waking():
            self._refuse(envelope, message, wire.BUSY)
        else:
            return self._take(envelope, message, came)
        return None

    def _take(self, envelope, message, came):
        try:
            ctxt, body = _load(message)
        except ValueError as error:
            # Refused, not dropped: its sender would send it again and again.
            self._malformed(error)
            self._refuse(envelope, message, wire.MALFORMED, str(error))
            return None
        incoming = incomings.Incoming(ctxt, body, message, envelope, self,
                                       came)
        if incoming.is_expired():
            self._refuse(envelope, message, wire.EXPIRED)
            return None
        self.held.add(incoming)
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
        states = []
        for message_id in wire.split_ids(message.body[0]):
            held = self.held.get(message_id)
            if held is not None:
                if not message.flags & wire.OBSERVE:
                    held.envelope = envelope
                states.append((message_id, wire.KNOWN))
            elif self.held.was_seen(message_id):
                states.append((message_id, wire.ACKNOWLEDGED))
            else:
                states.append((message_id, wire.UNKNOWN))
        self._put_status(envelope, states)

    def _put_status(self, envelope, states):
        self.replies.put(envelope,
                         wire.encode_status(self.instance.id, states))

    def _refuse(self, envelope, message, reason, text=''):
        name = wire.REASON_NAMES[reason]
        self.counters.add(name if reason == wire.EXPIRED else
                          f'refused_{name}')
        self.replies.put(envelope, wire.encode_nack(
            self.instance.id, message.id, reason, text))


def _load(message):
    ctxt, body = (payload.load(part, message.flags)
                  for part in message.body[:2])
    if not isinstance(ctxt, dict) or not isinstance(body, dict):
        raise ValueError('context and message are no dicts')
    return ctxt, body
