# SPDX-License-Identifier: Apache-2.0
"""Says once what is wrong, and once that it is over."""

import time
from collections.abc import Mapping
from typing import NamedTuple

from zmq_threaded import logs
from zmq_threaded.status import findings

LOG = logs.get(__name__)

# Lines of the log for what begins at one time.
_LINES = 5


class Key(NamedTuple):
    """What is wrong with whom; see findings.Finding.

    Thread: any.
    """

    kind: str
    subject: str


class Verdict(NamedTuple):
    """What is wrong, and what to do about it; see findings.Finding.

    :ivar is_told: another part of the driver writes this to the log
    :ivar deaf: ids of the instances that nobody can use for this reason

    Thread: any.
    """

    text: str
    remedy: str
    is_told: bool = False
    deaf: frozenset[bytes] = frozenset()


class Telling:
    """Keeps the findings of this process as they are now, and writes one line
    to the log when one begins, and one when it ends.

    :param found: the findings of this process, to which others add as well

    Thread: one.
    """

    def __init__(self, found: findings.Findings) -> None:
        self._findings = found
        # Since when, and whether the log has a line of ours.
        self._known: dict[Key, tuple[float, bool]] = {}

    def update(self, now_wrong: Mapping[Key, Verdict]) -> None:
        """:param now_wrong: all that is wrong now"""
        ended = {key: known for key, known in self._known.items()
                 if key not in now_wrong}
        begun = {key: verdict for key, verdict in now_wrong.items()
                 if key not in self._known}
        for key in ended:
            del self._known[key]
            self._findings.clear(*key)
        for key, verdict in now_wrong.items():
            self._findings.note(*key, verdict.text, verdict.remedy)
        now = time.monotonic()
        self._known.update((key, (now, not verdict.is_told))
                           for key, verdict in begun.items())
        _tell_of_begun([verdict for verdict in begun.values()
                        if not verdict.is_told])
        _tell_of_ended([(key, now - since) for key, (since, is_ours)
                        in ended.items() if is_ours])


def _tell_of_begun(verdicts):
    for verdict in verdicts[:_LINES]:
        LOG.warning('%s. What to do: %s.', verdict.text, verdict.remedy)
    if len(verdicts) > _LINES:
        LOG.warning('%d more things like that are wrong with this process '
                    '(oslo-messaging-zmq health lists them)',
                    len(verdicts) - _LINES)


def _tell_of_ended(ended):
    for key, seconds in ended[:_LINES]:
        LOG.info('It is over after %.0f s: %s of %s', seconds, key.kind,
                 key.subject)
    if len(ended) > _LINES:
        LOG.info('%d more things like that are over', len(ended) - _LINES)
