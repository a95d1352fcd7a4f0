# SPDX-License-Identifier: Apache-2.0
"""Services that follow each other, each with the key of its time.

A port keeps the key that it was bound with. So when the key of a process
changes, another service with another port takes over: it is registered in the
place of the one before in one step, which goes on until nobody uses it any
more. For the server, and for senders, that is a rolling restart of two
servers, but no message is refused meanwhile.
"""

import contextlib
import queue
import time
from collections.abc import Callable
from typing import Any

from zmq_threaded import logs
from zmq_threaded.net import binding
from zmq_threaded.service import service as services

LOG = logs.get(__name__)

# Seconds between two looks at the service of before. It has to be quiet for an
# update of the senders, and for so much more.
_LOOK_EVERY, _MORE = 0.5, 5.0
_TRIES, _TRY_AGAIN = 5, 2.0


class Succession:
    """What a listener has in place of one service.

    :param make: makes a bound service
    :param stopped: called with each service when it has stopped
    :param forget: called with each service when it is cleaned up
    :param update: seconds after which senders look at the registry again

    Thread: any; renewal for renew().
    """

    def __init__(self, make: Callable[[], services.Service],
                 stopped: Callable[[services.Service], object],
                 forget: Callable[[services.Service], object],
                 update: float) -> None:
        self._make = make
        self._stopped = stopped
        self._forget = forget
        self._quiet = update + _MORE
        self._services = [make()]
        self._arguments: tuple[Any, Any, Any] | None = None
        self._is_stopped = self._is_closed = False
        # Of all waits one is enough: stop() may be called in a signal handler.
        self._wakeup: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.work = self._services[0].work

    def start(self, on_incoming: Callable[[list], object],
              workers: int | None = None, may_share: bool = False) -> None:
        """As Service.start()."""
        self._services[0].start(on_incoming, workers, may_share)
        self._arguments = on_incoming, workers, may_share

    def stop(self) -> None:
        """As Service.stop(), for all of them."""
        self._is_stopped = True
        self._wakeup.put(None)
        for each in list(self._services):
            each.stop()

    @property
    def current(self) -> services.Service:
        """The service that senders find now."""
        return self._services[-1]

    def tell_stopped(self, _: object) -> None:
        """Tell the driver that all of them have stopped."""
        for each in list(self._services):
            self._stopped(each)

    def cleanup(self) -> None:
        """As Service.cleanup(), for all of them."""
        self.stop()
        self._is_closed = True
        for each in list(self._services):
            each.cleanup()

    def tell_forgotten(self, _: object) -> None:
        """Tell the driver that all of them are cleaned up."""
        for each in list(self._services):
            self._forget(each)

    def renew(self) -> None:
        """Let another service take over; returns when the one before has
        ended.
        """
        if self._is_stopped or self._arguments is None:
            return
        old = self._services[-1]
        new = self._successor(old)
        if new is None:
            return
        LOG.info('zmq: %s is followed by %s, which has the new key',
                 old.instance, new.instance)
        self._wait_until_unused(old)
        if not self._is_stopped:
            old.stop()
        self._wait(lambda: not old.unanswered())
        if not self._is_stopped:
            old.cleanup()
            self._services.remove(old)
            self._forget(old)

    def _successor(self, old: services.Service) -> services.Service | None:
        """A started service in the place of another one, or None."""
        for _ in range(_TRIES):
            try:
                new = self._make()
                break
            except binding.FAILURES as error:
                LOG.error('%s keeps its old key for now, for no port can be '
                          'bound with the new one: %s', old.instance, error)
                self._sleep(_TRY_AGAIN)
        else:
            return None
        new.work = self.work
        self._services.append(new)
        assert self._arguments is not None
        new.start(self._arguments[0], self._arguments[1], self._arguments[2],
                  old)
        # Looked at afterwards: one of both threads sees what the other did.
        if self._is_stopped:
            new.stop()
            self._stopped(new)
        if self._is_closed:
            new.cleanup()
            self._forget(new)
        return new

    def _wait_until_unused(self, old: services.Service) -> None:
        taken, since = old.taken(), time.monotonic()
        while not self._is_stopped and time.monotonic() - since < self._quiet:
            self._sleep(_LOOK_EVERY)
            if old.taken() != taken:
                taken, since = old.taken(), time.monotonic()

    def _wait(self, until: Callable[[], bool]) -> None:
        while not (self._is_stopped or until()):
            self._sleep(_LOOK_EVERY)

    def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            self._wakeup.get(timeout=seconds)
            self._wakeup.put(None)
