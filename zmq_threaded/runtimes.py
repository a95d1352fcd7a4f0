# SPDX-License-Identifier: Apache-2.0
"""The Runtime of this process: one for each pid in which a driver is used."""

import inspect
import os

from zmq_threaded import errors
from zmq_threaded import exits
from zmq_threaded import options
from zmq_threaded import runtime
from zmq_threaded import topic as topics
from zmq_threaded.net import binding

# How often a thread may open a driver while it opens one: a signal handler or
# a log handler comes in between, and ends.
_NESTED_LIMIT = 2


class Runtimes:
    """The Runtimes of one driver, in each process that uses it.

    Nothing is opened before its first use. When this object is forgotten, its
    Runtime closes by itself as soon as everything is delivered.

    Thread: any.
    """

    def __init__(self, settings: options.Settings) -> None:
        self._settings = settings
        # By pid: where one is that was used, which leads to the latest. No
        # lock: log handlers may come in between, and wait for another thread
        # that comes here.
        self._places: dict[int, dict[str, runtime.Runtime]] = {}
        exits.prepare()

    def current(self) -> runtime.Runtime:
        """The Runtime of this process, which is open.

        :raises: MessageDeliveryFailure, errors.ConfigurationError,
            errors.OutOfResources
        """
        found = self.latest()
        if found is None or found.is_closed:
            found = self._next_to(found)
        return found

    def latest(self) -> runtime.Runtime | None:
        """The Runtime of this process, which may be closed; None before the
        first.
        """
        found, place = None, self._places.get(os.getpid())
        while place:
            found = place['is']
            place = found.successors
        return found

    def explain(self, topic: topics.Topic) -> str:
        """Why nobody of a topic can be reached, as text."""
        # Not by current(): after cleanup() that would open everything anew.
        found = self.latest()
        return ('the driver was closed' if found is None or found.is_closed
                else found.explain(topic))

    def close(self, flush_deadline: float) -> None:
        """Close what is open in this process.

        :param flush_deadline: see Runtime.close()
        """
        found = self.latest()
        if found is not None:
            found.close(flush_deadline)

    def _next_to(self, closed):
        """The Runtime after this one, or the first."""
        if exits.is_ending():
            raise errors.MessageDeliveryFailure(
                'This process is ending, and the zmq driver was closed')
        exits.prepare()
        exits.close_forgotten()
        pid = os.getpid()
        place = (self._places.setdefault(pid, {}) if closed is None
                 else closed.successors)
        # Of all threads that found this one closed, the first one's.
        made, found = self._open(place), place['is']
        self._places[pid] = place
        if found is made:
            made.tell()
        return found

    def _open(self, place):
        if _depth(self._open.__code__) >= _NESTED_LIMIT:
            raise errors.MessageDeliveryFailure(
                'The zmq driver is just being opened by this thread')
        try:
            return runtime.Runtime(self._settings, self, place)
        except options.InvalidOption as error:
            raise errors.ConfigurationError(str(error)) from None
        except binding.FAILURES as error:
            raise errors.OutOfResources(
                f'The zmq driver cannot be opened: {error}') from None


def _depth(code):
    """How often this thread is in a function, but for its caller."""
    # The stack cannot be left wrong by an exception, as a count can.
    frame, found = inspect.currentframe(), -1
    while frame is not None:
        found += frame.f_code is code
        frame = frame.f_back
    return found
