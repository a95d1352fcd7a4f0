# SPDX-License-Identifier: Apache-2.0
"""The signs of life of one service: its threads turn, its workers finish."""

import math
import time
from collections.abc import Callable

from zmq_threaded.registry import record
from zmq_threaded.service import held
from zmq_threaded.service import stalls


class Vitals:
    """What a service leaves behind for whoever looks whether it lives.

    A worker that is free takes the first request that waits. So nothing was
    begun, and hence no worker was free, for as long as one and the same
    request is the first. No message has to be touched to see that.

    :param name: of the service, for the log
    :param holding: its requests
    :param observed: its stalls, at which the reply thread looks
    :param is_full: says whether flow control has stopped the reading
    :ivar instance: its record
    :ivar began_at: when it began to listen, in monotonic seconds; inf while
        it does not
    :ivar polled_at: when the poller thread looked after it last, in monotonic
        seconds; inf before the first time
    :ivar workers: threads of its executor, None if that is unknown

    Thread: poller for tick(), any for the rest.
    """

    def __init__(self, name: str, instance: record.Instance,
                 holding: held.Held, observed: stalls.Stalls,
                 is_full: Callable[[], bool]) -> None:
        self.name = name
        self.instance = instance
        self.began_at = self.polled_at = math.inf
        self.workers: int | None = None
        self.is_full = is_full
        self._held = holding
        self._stalls = observed
        self._first = b''
        self._first_since = 0.0

    def tick(self) -> None:
        """To be called about once a second."""
        self.polled_at = time.monotonic()
        first = self._held.first_waiting()
        if first != self._first:
            self._first, self._first_since = first, self.polled_at

    def is_listening(self) -> bool:
        """Whether it listens, and has not been told to stop."""
        return self.began_at < math.inf

    def is_mute_for(self, now: float) -> dict[str, float]:
        """Seconds since each of its threads had its last turn, by name."""
        return {'poller': now - self.polled_at,
                'reply': now - self._stalls.ticked_at}

    def has_waited(self, now: float) -> float:
        """Seconds for which no worker has been free, as far as it is known.

        :returns: 0 while nothing waits
        """
        return now - self._first_since if self._first else 0.0

    def waiting(self) -> int:
        """How many messages it holds."""
        return len(self._held)
