# SPDX-License-Identifier: Apache-2.0
"""What is measured while messages pass: of a service, and of a sender."""

import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from zmq_threaded import topic as topics
from zmq_threaded.status import histogram

# Topics of which a sender keeps times; and ways there from a topic's key.
_MOST_TOPICS, _MOST_KEYS = 200, 10_000
_REST = '(other topics)'


class Work:
    """What the workers of one service do.

    :ivar waiting: from the reading of a message until a worker takes it up
    :ivar running: from there until the worker is done with it
    :ivar other_half: returns 1 if the other half of a bridge listens at the
        moment, 0 if it does not, None without a bridge
    :ivar begun: since when, in monotonic seconds, by what a worker is at

    Thread: any.
    """

    def __init__(self) -> None:
        self.waiting = histogram.Histogram()
        self.running = histogram.Histogram()
        self.begun: dict[object, float] = {}
        self.other_half: Callable[[], int | None] = lambda: None

    def begin(self, requests: Sequence[Any]) -> None:
        """A worker takes messages up, together.

        :param requests: held.Request of each; there is one at least
        """
        for each in requests:
            self.waiting.add(each.looked_at - each.read_at)
        self.begun[requests[0]] = requests[0].looked_at

    def end(self, request: Any) -> None:
        """The worker is done with what it took up.

        :param request: the first one of them
        """
        began = self.begun.pop(request, None)
        if began is not None:
            self.running.add(time.monotonic() - began)

    def busy(self) -> int:
        """How many workers are at work."""
        return len(self.begun)

    def longest(self, now: float) -> float:
        """For how many seconds the worker that began first is at work; 0 if
        none is.
        """
        return max(0.0, now - min(self.begun.copy().values(), default=now))


class Trips:
    """The round trips of one topic, to all its servers.

    :ivar calls: from the sending of a call until its reply
    :ivar casts: from the posting of any other message until its
        acknowledgement
    :ivar failed: calls without a reply

    Thread: any for calls, outbox for casts.
    """

    def __init__(self, topic: topics.Topic | None) -> None:
        self.exchange = topic.exchange if topic else ''
        self.name = topic.name if topic else _REST
        self.calls = histogram.Histogram()
        self.casts = histogram.Histogram()
        self.failed = 0


class Sent:
    """The round trips of what a process sends, by exchange and topic.

    Thread: any.
    """

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str], Trips] = {}
        self._by_key: dict[str, Trips] = {}
        self._rest = Trips(None)

    def of(self, topic: topics.Topic) -> Trips:
        """The round trips of a topic."""
        return self._by_key.get(topic.key) or self._find(topic)

    def _find(self, topic: topics.Topic) -> Trips:
        name = topic.exchange, topic.name
        found = self._by_name.get(name)
        if found is None and len(self._by_name) < _MOST_TOPICS:
            found = self._by_name.setdefault(name, Trips(topic))
        if len(self._by_key) >= _MOST_KEYS:
            self._by_key.clear()
        found = self._by_key[topic.key] = found or self._rest
        return found

    def all(self) -> list[Trips]:
        """The round trips of all topics."""
        return [*self._by_name.copy().values(),
                *([self._rest] if any(self._rest.calls.counts)
                  or any(self._rest.casts.counts) else [])]
