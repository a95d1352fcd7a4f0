# SPDX-License-Identifier: Apache-2.0
"""Services that have stopped, until they are cleaned up.

A server is cleaned up by its wait(), which not every program calls: then its
sockets, files and threads would stay for as long as the process.
"""

import threading
import time
from collections.abc import Callable

from zmq_threaded import logs
from zmq_threaded import threads
from zmq_threaded.net import descriptors
from zmq_threaded.service import service as services

LOG = logs.get(__name__)

# Seconds after which nobody is expected to clean up a service any more.
_LEFT = 60.0


class Stopped:
    """The stopped services of a driver.

    :param forget: called with each service that was cleaned up here

    Thread: any; registry for turn(), which starts one clean-up at a time.
    """

    def __init__(self, forget: Callable[[services.Service], object]) -> None:
        self._forget = forget
        self._since: dict[services.Service, float] = {}
        self._thread: threading.Thread | None = None

    def add(self, listening: services.Service) -> None:
        """It takes no more requests."""
        self._since[listening] = time.monotonic()

    def discard(self, listening: services.Service) -> None:
        """It is cleaned up."""
        self._since.pop(listening, None)

    def __contains__(self, listening: services.Service) -> bool:
        return listening in self._since

    def turn(self) -> None:
        """Clean up those that stopped a while ago, and have nothing left to
        answer. To be called now and then.
        """
        if self._thread is not None and self._thread.is_alive():
            return
        before = time.monotonic() - _LEFT
        left = [listening for listening, since in list(self._since.items())
                if since < before and not listening.unanswered()]
        if left:
            try:
                self._thread = threads.started(self._clean_up, 'zmq-clean-up',
                                               left)
            except descriptors.Short as error:
                LOG.debug('Stopped services are cleaned up later: %s', error)

    def join(self, deadline: float) -> None:
        """Wait for the clean-up that runs, if any does.

        :param deadline: monotonic seconds
        """
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _clean_up(self, left: list[services.Service]) -> None:
        for listening in left:
            LOG.debug('%s was stopped and not cleaned up; this is done now',
                      listening.instance)
            listening.cleanup()
            self._forget(listening)
