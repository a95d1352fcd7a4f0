# SPDX-License-Identifier: Apache-2.0
"""Receivers that have said that they are closing (pure but for the clock).

From that word on a receiver passes on no request, and its senders send it
none. It also said until when it will be closed. Whoever is there later is its
successor.
"""

import time
from collections.abc import Hashable
from typing import NamedTuple

from zmq_threaded import timings

# Seconds for which a receiver that has closed is expected back, in the middle
# of a restart: to find only such receivers is not to find nobody.
_EXPECTED = 5.0


class _Word(NamedTuple):
    """What a receiver has said, in monotonic seconds.

    :ivar first: when it was heard first
    :ivar last: when it was heard last
    :ivar until: when the receiver is closed at the latest

    Thread: any.
    """

    first: float
    last: float
    until: float


class Closings:
    """The words of receivers, by what is lost with them; see avoided.way().

    Thread: any. Each change is one step: a word is replaced, never changed.
    """

    def __init__(self) -> None:
        self._words: dict[Hashable, _Word] = {}

    def __len__(self) -> int:
        return len(self._words)

    def heard(self, way: Hashable, seconds: float) -> None:
        """A receiver says that it is closing.

        :param seconds: after which it is closed at the latest
        """
        now = time.monotonic()
        before = self._words.get(way)
        first = before.first if before and before.until > now else now
        self._words[way] = _Word(first, now, now + seconds)

    def holds(self, way: Hashable) -> bool:
        """Whether a receiver is closing."""
        word = self._words.get(way)
        return word is not None and word.until > time.monotonic()

    def all(self) -> set[Hashable]:
        """Those that are closing."""
        return {way for way in list(self._words) if self.holds(way)}

    def is_expected(self, way: Hashable) -> bool:
        """Whether a receiver is closing, or about to come back."""
        word = self._words.get(way)
        return (word is not None
                and word.until + _EXPECTED > time.monotonic())

    def is_old(self, way: Hashable, opened_at: float) -> bool:
        """Whether a connection may lead to a receiver that is closing, or was
        since the connection was opened.
        """
        word = self._words.get(way)
        return word is not None and opened_at < word.last

    def took_nothing(self, way: Hashable, opened_at: float,
                     sent_at: float) -> bool:
        """Whether a request was certainly not taken, though its connection
        was lost without an answer.

        The connection led to the receiver that has said the word, or to an
        earlier one, if it was opened before the word. libzmq makes a new one
        to the successor by itself, but not so soon after the word.
        """
        word = self._words.get(way)
        return (word is not None and opened_at < word.last
                and word.first < sent_at < word.last + timings.RECONNECT)

    def tidy(self) -> None:
        """Forget the words of those who must be back."""
        before = time.monotonic() - _EXPECTED - timings.LOST_PEER
        for way, word in list(self._words.items()):
            if word.until < before:
                self._words.pop(way, None)
