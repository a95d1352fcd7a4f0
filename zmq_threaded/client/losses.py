# SPDX-License-Identifier: Apache-2.0
"""Reports of messages that were given up: each counted, none a flood.

The first of a topic and a cause is a warning at once, with its id and what
can be done; those that follow are summed up once a minute. The ids of all of
them are in the log at level DEBUG.
"""

import dataclasses
import time

from zmq_threaded import counters as counting
from zmq_threaded import logs
from zmq_threaded import topic as topics
from zmq_threaded.client import delivery as deliveries

LOG = logs.get(__name__)

Where = deliveries.Where

_EVERY = 60.0
# Topics and causes with lines of their own; the rest shares one for a cause.
_LIMIT = 32
_REST = 'all other topics'


@dataclasses.dataclass(frozen=True)
class Cause:
    """Why messages are given up.

    Thread: any, for it does not change.

    :ivar name: of its counter, after 'dropped_'
    :ivar why: what happened, for the sender and the log
    :ivar remedy: what an operator can do
    """

    name: str
    why: str
    remedy: str


_START = 'start a service that listens there, or stop sending'
NOBODY_TOOK = Cause(
    'nobody_took', 'nobody took it in time (rpc_message_ttl, or for what lies '
    'in a journal rpc_zmq_custody_ttl)', _START)
NO_ROOM = Cause(
    'no_room', 'nobody listens, and the outbox is full '
    '(rpc_zmq_outbox_limit)', _START)
BY_HAND = Cause(
    'by_hand', 'an operator dropped it (oslo-messaging-zmq custody drop)',
    'nothing, if that was meant')
NO_SPACE = Cause(
    'no_space', 'nobody listens, and the journal is full '
    '(rpc_zmq_custody_bytes)', _START)
NOT_LOOKED_UP = Cause(
    'not_looked_up', 'the registry did not say in time who is to have it '
    '(rpc_message_ttl)', 'see to the registry')
NOT_SENT = Cause(
    'not_sent', 'it could not be sent in time',
    'see to the service: it is too slow, stands still or is cut off')
NOT_RECORDED = Cause(
    'not_recorded', 'it could not be sent in time: its journal could not be '
    'written', 'see to the disk: rpc_zmq_custody_dir')
NOT_ACKNOWLEDGED = Cause(
    'not_acknowledged', 'it was not acknowledged in time; it may have been '
    'executed',
    'see to the service: it is too slow, stands still or is cut off')
NOT_BEGUN = Cause(
    'not_begun', 'it expired before a worker began it',
    'the service has too few workers, or they are held up')
REFUSED = Cause(
    'refused', 'refused by its service',
    'compare the releases of both sides')
GONE = Cause(
    'gone', 'its instance is gone, and there is no other; it may have been '
    'executed', 'start another service of the topic')
CLOSED = Cause(
    'closed', 'the driver was closed before it was acknowledged',
    'see to the services that it waited for')
FAULT = Cause(
    'fault', 'an unexpected error, see above', 'please report it')
# No loss of a message, but reported in the same way.
NOBODY_THERE = Cause(
    'nobody_there', 'nobody is registered any more',
    'if it was not stopped, see to the registry and to the clocks')

_LATE = {Where.WAITING: NOBODY_TOOK, Where.SPREADING: NOT_LOOKED_UP,
         Where.HELD_UP: NOT_SENT, Where.QUEUED: NOT_SENT,
         Where.RECORDING: NOT_RECORDED,
         Where.IN_FLIGHT: NOT_ACKNOWLEDGED}


def late(delivery: deliveries.Delivery) -> Cause:
    """Why a message is not delivered when its time is over."""
    return _LATE.get(delivery.where, FAULT)


@dataclasses.dataclass
class _Sum:
    """What was reported of one topic and cause, and what is to be.

    :ivar since: when the last line was written, in monotonic seconds; None
        before the first
    :ivar count: of those that no line has told of

    Thread: outbox.
    """

    topic: topics.Topic | str
    cause: Cause
    since: float | None = None
    count: int = 0


class Losses:
    """Where all that is given up is reported.

    Thread: outbox.
    """

    def __init__(self, counters: counting.Counters):
        self._counters = counters
        self._sums: dict[tuple, _Sum] = {}

    def dropped(self, delivery: deliveries.Delivery, cause: Cause,
                reason: str) -> None:
        """A message is given up.

        :param reason: cause.why, or more exactly what happened
        """
        self._counters.add('dropped')
        self._counters.add(f'dropped_{cause.name}')
        if self._is_first(delivery.topic, cause):
            LOG.warning('%s was dropped: %s. What to do: %s', delivery,
                        reason, cause.remedy)
        else:
            LOG.debug('%s was dropped: %s', delivery, reason)

    def copy_for_gone(self, delivery: deliveries.Delivery,
                      reason: str) -> None:
        """The server of a fanout's copy is gone; that is no loss."""
        self._counters.add('copies_for_gone')
        LOG.debug('%s was dropped: %s', delivery, reason)

    def nobody_there(self, delivery: deliveries.Delivery, missing: str,
                     known: list) -> None:
        """A message went to nobody where somebody was known a moment before.

        :param missing: what was done without them
        :param known: list of (Instance, seconds since it was listed)
        """
        who = f'{missing}, where there was known a moment before: '
        who += ', '.join(f'{instance} ({ago:.0f} s ago)'
                         for instance, ago in known[:3])
        who += f' and {len(known) - 3} others' if len(known) > 3 else ''
        if self._is_first(delivery.topic, NOBODY_THERE):
            LOG.warning('%s %s. What to do: %s', delivery, who,
                        NOBODY_THERE.remedy)
        else:
            LOG.debug('%s %s', delivery, who)

    def _is_first(self, topic, cause):
        """Whether this one has a line of its own; else it is counted."""
        kept = self._sums.get((topic.key, cause))
        if kept is None:
            key = topic.key
            if len(self._sums) >= _LIMIT:
                key, topic = None, _REST
            kept = self._sums.setdefault((key, cause), _Sum(topic, cause))
        if kept.since is None:
            kept.since = time.monotonic()
            return True
        kept.count += 1
        return False

    def tick(self, now: float) -> None:
        """Write the sums that are due; to be called now and then."""
        for key, each in list(self._sums.items()):
            if each.since is None or now - each.since < _EVERY:
                continue
            if each.count:
                self._write(each, now)
            else:
                del self._sums[key]

    def close(self) -> None:
        """Write what is left."""
        for each in self._sums.values():
            if each.count:
                self._write(each, time.monotonic())
        self._sums.clear()

    @staticmethod
    def _write(each, now):
        what = ('went to nobody' if each.cause is NOBODY_THERE
                else 'were dropped')
        LOG.warning(
            '%d more messages for %s %s in the last %.0f s: %s. What to do: '
            '%s (their ids are logged at level DEBUG)', each.count,
            each.topic, what, now - each.since, each.cause.why,
            each.cause.remedy)
        each.since, each.count = now, 0
