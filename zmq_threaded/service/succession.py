# SPDX-License-Identifier: Apache-2.0
"""Services that follow each other, each with the key of its time.

A port keeps the key that it was bound with. So when the key of a process
changes, another service with another port takes over: it is registered in the
place of the one before in one step, which goes on until nobody uses it any
more. For the server, and for senders, that is a rolling restart of two
servers, but no message is refused meanwhile.
"""

import time
from collections.abc import Callable
from typing import Any

from zmq_threaded import counters
from zmq_threaded import finished
from zmq_threaded import logs
from zmq_threaded import threads
from zmq_threaded.net import binding
from zmq_threaded.net import descriptors
from zmq_threaded.security import keys
from zmq_threaded.service import service as services

LOG = logs.get(__name__)

# Seconds between two looks at the service of before. It has to be quiet for an
# update of the senders, and for so much more.
_LOOK_EVERY, _MORE = 0.5, 5.0
# Seconds until a renewal that failed is tried again, and between two errors
# that tell of it.
_TRY_AGAIN, _TELL_EVERY = 5.0, 60.0


class Succession:
    """What a listener has in place of one service.

    :param make: makes a bound service
    :param stopped: called with each service when it has stopped
    :param forget: called with each service when it is cleaned up
    :param update: seconds after which senders look at the registry again

    Thread: any; registry for follow(), which starts one renewal at a time.
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
        self._is_stopped = self._is_closed = self._is_renewing = False
        self._next_try = 0.0
        self._may_tell = counters.Seldom(_TELL_EVERY)
        self._ended = finished.Finished()
        self.work = self._services[0].work

    def start(self, on_incoming: Callable[[list], object],
              workers: int | None = None, may_share: bool = False) -> None:
        """As Service.start()."""
        self._services[0].start(on_incoming, workers, may_share)
        self._arguments = on_incoming, workers, may_share

    def stop(self) -> None:
        """As Service.stop(), for all of them."""
        self._is_stopped = True
        self._ended.set()
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

    def follow(self, pair: keys.Pair | None) -> None:
        """Have another service take over, unless the last one has this pair.
        If that fails, a later call tries again. To be called now and then.

        :param pair: with which a port would be bound now
        """
        if (self._is_renewing or self._is_stopped or self._arguments is None
                or time.monotonic() < self._next_try
                or len(self._services) == 1
                and self._services[-1].pair == pair):
            return
        self._is_renewing = True
        try:
            threads.started(self._renew, 'zmq-renewal', pair)
        except descriptors.Short as error:
            self._failed(error)
            self._is_renewing = False

    def _renew(self, pair: keys.Pair | None) -> None:
        try:
            if self._services[-1].pair != pair:
                self._take_over(self._services[-1])
            for old in self._services[:-1]:
                self._retire(old)
        except Exception as error:
            self._failed(error)
        finally:
            self._is_renewing = False

    def _failed(self, error: Exception) -> None:
        self._next_try = time.monotonic() + _TRY_AGAIN
        if not self._is_stopped and self._may_tell.allows():
            LOG.error('%s keeps its old key for now, and it is tried again '
                      'every few seconds, for no service with the new key can '
                      'take over: %s', self._services[0].instance, error,
                      exc_info=not isinstance(error, binding.FAILURES))

    def _take_over(self, old: services.Service) -> None:
        """Start a service in the place of another one.

        :raises: binding.FAILURES; then the other one goes on
        """
        new = self._make()
        if self._is_stopped:
            self._discard(new)
            return
        new.work = self.work
        self._services.append(new)
        try:
            assert self._arguments is not None
            new.start(*self._arguments, old)
        except BaseException:
            self._services.remove(new)
            self._discard(new)
            raise
        LOG.info('zmq: %s is followed by %s, which has the new key',
                 old.instance, new.instance)
        # Looked at afterwards: one of both threads sees what the other did.
        if self._is_stopped:
            new.stop()
            self._stopped(new)
        if self._is_closed:
            self._discard(new)

    def _discard(self, listening: services.Service) -> None:
        listening.cleanup()
        self._forget(listening)

    def _retire(self, old: services.Service) -> None:
        """End a service that another one has followed; waits until nobody
        uses it.
        """
        self._wait_until_unused(old)
        if not self._is_stopped:
            old.stop()
        self._wait(lambda: not old.unanswered())
        if not self._is_stopped:
            old.cleanup()
            self._services.remove(old)
            self._forget(old)

    def _wait_until_unused(self, old: services.Service) -> None:
        taken, since = old.taken(), time.monotonic()
        while not self._is_stopped and time.monotonic() - since < self._quiet:
            self._sleep()
            if old.taken() != taken:
                taken, since = old.taken(), time.monotonic()

    def _wait(self, until: Callable[[], bool]) -> None:
        while not (self._is_stopped or until()):
            self._sleep()

    def _sleep(self) -> None:
        self._ended.wait(time.monotonic() + _LOOK_EVERY)
