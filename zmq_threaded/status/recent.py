# SPDX-License-Identifier: Apache-2.0
"""By how much counters grew lately."""

import collections

# Seconds.
SPAN = 60.0


class Recent:
    """The growth of counters in the last minute, as well as looks at them
    every few seconds can tell.

    Thread: registry.
    """

    def __init__(self) -> None:
        self._looks: collections.deque[tuple[float, dict[str, int]]] = (
            collections.deque([(float('-inf'), {})]))

    def growth(self, now: float, counts: dict[str, int]) -> dict[str, int]:
        """Look at the counters.

        :param now: monotonic seconds
        :param counts: all of them
        :returns: those that grew since the last look that is a minute old
        """
        while len(self._looks) > 1 and self._looks[1][0] <= now - SPAN:
            self._looks.popleft()
        before = self._looks[0][1]
        self._looks.append((now, counts))
        return {name: count - before.get(name, 0)
                for name, count in counts.items()
                if count > before.get(name, 0)}
