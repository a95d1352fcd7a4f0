# SPDX-License-Identifier: Apache-2.0
"""Findings: what a process has found to be wrong with itself.

Whoever finds something calls `note()`, as often as it is found, and `clear()`
once it is gone. The facts of the process carry what is found to the registry
and to the directory of the node, where `status` and `health` read it.
"""

import dataclasses
import threading
import time
from typing import Any

from zmq_threaded import texts

# Findings of a process that are kept, and characters of each text.
MOST = 100
_LONGEST = 400


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    :ivar kind: one word for programs, such as 'unreachable'; it never changes
    :ivar subject: what is concerned, such as 'compute.node-7'
    :ivar text: what happened, as a sentence without a full stop
    :ivar remedy: what to do, as a sentence without a full stop
    :ivar since: when it was first found, in monotonic seconds

    Thread: any.
    """

    kind: str
    subject: str
    text: str
    remedy: str
    since: float

    def document(self, now: float) -> dict[str, Any]:
        """What is published of it.

        :param now: monotonic seconds
        :returns: `since` is the seconds that it has lasted
        """
        return {'kind': self.kind, 'subject': self.subject,
                'text': self.text, 'remedy': self.remedy,
                'since': round(max(0.0, now - self.since), 1)}


class Findings:
    """What a process has found to be wrong, by kind and subject.

    Thread: any.
    """

    def __init__(self) -> None:
        # Signal handlers may meet it.
        self._lock = threading.RLock()
        self._found: dict[tuple[str, str], Finding] = {}

    def note(self, kind: str, subject: str, text: str, remedy: str) -> bool:
        """Something is wrong, or still is.

        :returns: whether it is new, so that it is worth a line in the log
        """
        key = kind, subject
        with self._lock:
            known = self._found.get(key)
            if known is None and len(self._found) >= MOST:
                return False
            since = known.since if known else time.monotonic()
            self._found[key] = Finding(
                kind, texts.line(subject, _LONGEST),
                texts.line(text, _LONGEST), texts.line(remedy, _LONGEST),
                since)
            return known is None

    def clear(self, kind: str, subject: str) -> bool:
        """Something is not wrong any more, or never was.

        :returns: whether it was
        """
        with self._lock:
            return self._found.pop((kind, subject), None) is not None

    def all(self) -> list[Finding]:
        """The oldest first."""
        with self._lock:
            return sorted(self._found.values(),
                          key=lambda finding: finding.since)
