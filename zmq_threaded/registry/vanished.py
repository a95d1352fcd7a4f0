# SPDX-License-Identifier: Apache-2.0
"""Who was registered a moment ago, and is not any more."""

import time
from collections.abc import Iterable

from zmq_threaded.registry import record


class Vanished:
    """Instances by topic, for the life of a record after they went.

    :param seconds: zmq_target_expire

    Thread: registry for note(), any for of().
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # The inner dicts are replaced, never changed.
        self._by_key: dict[str, dict[record.Instance, float]] = {}

    def note(self, key: str, missing: Iterable[record.Instance],
             found: Iterable[record.Instance]) -> None:
        """What the registry said of a topic.

        :param missing: instances that were listed before
        :param found: those that are listed now
        """
        before = self._by_key.get(key)
        if not missing and not before:
            return
        now, back = time.monotonic(), {instance.id for instance in found}
        kept = {instance: went for instance, went in (before or {}).items()
                if now - went < self._seconds and instance.id not in back}
        kept.update(dict.fromkeys(missing, now))
        if kept:
            self._by_key[key] = kept
        else:
            self._by_key.pop(key, None)

    def of(self, key: str) -> list[tuple[record.Instance, float]]:
        """List of (Instance, seconds since it went), the latest first."""
        now = time.monotonic()
        gone = [(instance, now - went) for instance, went
                in self._by_key.get(key, {}).items()
                if now - went < self._seconds]
        return sorted(gone, key=lambda each: each[1])
