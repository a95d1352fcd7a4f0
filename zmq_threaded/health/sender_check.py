# SPDX-License-Identifier: Apache-2.0
"""A process finds out which services it sends to in vain."""

import time

from zmq_threaded.client import outbox as outboxes
from zmq_threaded.health import telling
from zmq_threaded.registry import cache as caches
from zmq_threaded.status import findings

Key, Verdict = telling.Key, telling.Verdict

_SEE_THERE = ('ask oslo-messaging-zmq status what is wrong there: it is '
              'stopped, overloaded or cut off, or its workers are stuck')


class SenderCheck:
    """Names the destinations that are listed in the registry, and cannot be
    reached or do not answer.

    :param cache: knows whom this process has tried in vain
    :param outbox: knows for whom messages wait
    :param found: where what is found is kept

    Thread: registry.
    """

    def __init__(self, cache: caches.Cache, outbox: outboxes.Outbox,
                 found: findings.Findings) -> None:
        self._cache = cache
        self._outbox = outbox
        self._telling = telling.Telling(found)

    def turn(self) -> None:
        """To be called about once a second."""
        now = time.monotonic()
        self._telling.update({**self._unreachable(now), **self._mute(now),
                              **self._unanswered(now)})

    def _unreachable(self, now):
        return {Key('cannot_reach', instance.endpoints[-1]): Verdict(
            f'This process has not reached {instance} for {now - since:.0f} '
            f's, which is listed: {why}',
            'see whether it runs, and its receiver, and whether a firewall '
            'is between here and there', is_told=True)
            for instance, why, since in self._cache.complaints.current()}

    def _mute(self, now):
        return {Key('unacknowledged', each.name): Verdict(
            f'{each.messages} messages have waited {now - each.since:.0f} '
            f's for {each.name}', _SEE_THERE, is_told=True)
            for each in self._outbox.mute()}

    def _unanswered(self, now):
        return {Key('unanswered', str(instance)): Verdict(
            f'{instance} is listed, and has answered none of {count} calls '
            f'of this process in the last {now - since:.0f} s', _SEE_THERE)
            for instance, count, since in self._cache.unanswered.all()}
