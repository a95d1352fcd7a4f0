# SPDX-License-Identifier: Apache-2.0
"""All that one driver has in one process: context, sockets and threads."""

import functools
import itertools
import os
import time
import weakref
from collections.abc import Callable
from typing import Any

from zmq_threaded import closing
from zmq_threaded import counters
from zmq_threaded import exits
from zmq_threaded import ipc_directory
from zmq_threaded import logs
from zmq_threaded import options
from zmq_threaded import sockets
from zmq_threaded import threads
from zmq_threaded import topic as topics
from zmq_threaded.client import outbox as outboxes
from zmq_threaded.client import outbox_calls
from zmq_threaded.client import requests
from zmq_threaded.health import checks
from zmq_threaded.health import meditation
from zmq_threaded.journal import journals
from zmq_threaded.net import descriptors
from zmq_threaded.receiver import surroundings
from zmq_threaded.registry import engines
from zmq_threaded.registry import registry as registries
from zmq_threaded.registry import sweep
from zmq_threaded.registry import tooz_url
from zmq_threaded.security import access as accesses
from zmq_threaded.security import authenticator
from zmq_threaded.security import own_directory
from zmq_threaded.service import batch as batches
from zmq_threaded.service import crews
from zmq_threaded.service import following
from zmq_threaded.service import service as services
from zmq_threaded.service import stopped
from zmq_threaded.service import succession as successions
from zmq_threaded.status import collector
from zmq_threaded.status import findings

LOG = logs.get(__name__)

# Descriptors: of the parts of a driver with a service and one connection; and
# of what does not grow with its load (docs/promises.md).
_FOR_A_START, _FOR_THE_REST = 24, 30
# What is sent while the services close has this much of the time, at the most.
_LAST_FLUSH, _LAST_FLUSH_LIMIT = 0.2, 1.0
_JOIN_LIMIT = 5.0
_TERM_LIMIT = 2.0
# What was logged of where everything is, with the pid.
_told: set[tuple[int, str, str]] = set()


class Runtime:
    """Wires the parts. Threads start with their first use.

    A forked child must not touch its parent's Runtime, only drop it; the
    driver sees to that.

    :param settings: options.Settings
    :param owner: the driver; when it is forgotten, this closes by itself as
        soon as everything is delivered
    :param place: dict in which this becomes the one under 'is', unless there
        is one already; then this one is closed
    :raises: options.InvalidOption, descriptors.Short
    :ivar is_closed: close() has done all it does
    :ivar findings: status.findings.Findings, what is wrong
    :ivar registry: registry.registry.Registry
    :ivar successors: the driver's next one under 'is', once there is one

    Thread: any.
    """

    def __init__(self, settings: options.Settings, owner: object = None,
                 place: dict[str, 'Runtime'] | None = None) -> None:
        # Before anything is opened: libzmq bears no half of what it needs.
        descriptors.warn_if_few(2 * settings.pool_size + _FOR_THE_REST)
        descriptors.demand(_FOR_A_START + 2 * settings.io_threads)
        self.pid = os.getpid()
        self._settings = settings
        # Only a weak one, of which nothing is run by the garbage collector.
        self._owner = weakref.ref(owner) if owner is not None else None
        self._services: list[services.Service] = []
        self._stopped = stopped.Stopped(self.forget)
        self._closed_services: list[services.Service] = []
        self._swept = self._is_used = self.is_closed = False
        self._terminations = itertools.count()
        self._closing = closing.Closing(
            self._closing_steps, lambda: self._flushing.hurry())
        self.successors: dict[str, Runtime] = {}
        place = {} if place is None else place
        undo: list[Callable[[], object]] = []
        try:
            self._open(settings, undo)
            exits.add(self)
            place.setdefault('is', self)
        finally:
            # Also if an exception comes behind the last step.
            if place.get('is') is not self:
                self._set_closed()
                threads.do_all(reversed(undo))

    def _open(self, settings, undo):
        """:param undo: list to which is added what undoes it"""
        self._ipc_dir = ipc_directory.find(settings)
        self.counters = counters.Counters()
        self._access = accesses.Access(settings)
        self._crews = crews.Crews(self.counters)
        store = engines.opened(settings, self._ipc_dir)
        own = own_directory.OwnDirectory(self._ipc_dir)
        self.registry = registries.Registry(
            store, settings.update, settings.expire, self.counters,
            threads.REGISTRY, housekeeping=self._housekeeping,
            problem=lambda instance: (own.problem(instance)
                                      or self._access.problem(instance)),
            only_own=own.only)
        self._keys = following.KeyFollower(self._access, self.registry,
                                           settings)
        undo.append(self.registry.stop)
        self._context = sockets.new_context(settings)
        undo.append(self._context.term)
        self._sockets = sockets.Sockets(self._context, settings,
                                        self._access)
        self._authenticator = authenticator.Authenticator(self._sockets,
                                                          self.counters)
        undo.append(self._authenticator.end)
        self._authenticator.start()
        self.outbox = outboxes.Outbox(
            self._sockets, settings, self.registry, self.counters,
            threads.OUTBOX, functools.partial(
                journals.Journals, settings, self._ipc_dir, self.counters))
        undo += [self.outbox.journals.stop, self.outbox.stop]
        self._flushing = closing.Flushing(self.outbox, settings.exit_timeout)
        self.outbox_calls = outbox_calls.OutboxCalls(
            self.outbox, self.registry, self.counters)
        self.requests = requests.Requests(
            self._sockets, settings, self.registry, self.counters,
            self.outbox.watch, self.outbox_calls.call)
        self.findings = findings.Findings()
        self._surroundings = surroundings.Surroundings(
            settings, self._ipc_dir, self.findings)
        self._checks = checks.Checks(
            lambda: list(self._services), self._sockets, self.registry,
            self.outbox, self.findings, settings, self.counters,
            self._surroundings.problems)
        self._facts = collector.publisher(
            settings, self._ipc_dir, store, self.counters, self.registry,
            self.outbox, self.snapshot, self._services,
            self._surroundings.presence,
            self.findings)

    def tell(self) -> None:
        """Log where everything is, once in each process. Not while it is
        being made: a handler may use the driver.
        """
        places = (self._ipc_dir,
                  tooz_url.without_password(self._settings.matchmaker))
        if (os.getpid(), *places) not in _told:
            _told.add((os.getpid(), *places))
            LOG.info('zmq: sockets in %s, registry: %s', *places)

    def service(self, addresses: list[topics.Topic],
                **kwargs: object) -> services.Service:
        """A bound service, registered under these topics once it starts.

        :param kwargs: batch and pool of services.Service
        :raises: binding.BindError
        """
        if not self._swept:
            self._swept = True
            sweep.sweep(self._ipc_dir, self._settings.expire)
            self._surroundings.warn_of_open_port()
        listening = services.Service(
            self._sockets, self._settings, self._ipc_dir, self.registry,
            addresses, self.counters, self._crews, **kwargs)
        self._services.append(listening)
        self._surroundings.look(self._services)
        return listening

    def succession(self, addresses: list[topics.Topic], pool: str,
                   batch_size: int, batch_timeout: float | None
                   ) -> successions.Succession:
        """A service that is followed by another one when the key of this
        process changes.

        :raises: binding.BindError
        """
        return self._keys.succession(
            lambda: self.service(addresses, pool=pool, batch=batches.Batch(
                batch_size, batch_timeout)), self.stopped, self.forget)

    def snapshot(self) -> dict[str, int]:
        """All counts so far, and what there is now: sockets, backlog (of the
        services), unacknowledged, descriptors_left (to this process).
        """
        return {**self.counters.snapshot(),
                'sockets': self._sockets.count(),
                'descriptors_left': descriptors.left(),
                'backlog': sum(listening.backlog()
                               for listening in list(self._services)),
                'unacknowledged': self.outbox.pending(),
                'deaf_services': self._checks.deaf()}

    def explain(self, topic: topics.Topic) -> str:
        """Why nobody of a topic can be reached, as text."""
        return self.registry.cache.explain(topic)

    def describe(self) -> dict[str, Any]:
        """What is known of it, for a Guru Meditation Report."""
        return meditation.describe(list(self._services), self.outbox.survey,
                                   self.findings)

    def stopped(self, listening: services.Service) -> None:
        """The service takes no more requests."""
        self._stopped.add(listening)
        exits.server_stopped()

    def forget(self, listening: services.Service) -> None:
        """The service was cleaned up."""
        if listening in self._services:
            self._services.remove(listening)
            self._closed_services.append(listening)
        self._stopped.discard(listening)

    def is_serving(self) -> bool:
        """Whether a service has not stopped."""
        return any(listening not in self._stopped
                   for listening in list(self._services))

    @property
    def exit_limit(self) -> float:
        """Seconds that the exit of the process may wait."""
        return self._settings.exit_timeout

    def flush_for_exit(self) -> None:
        """Wait as the exit of the process does, but close nothing."""
        self._flushing.for_exit()

    def close(self, flush_deadline: float, is_exit: bool = False) -> None:
        """Deliver what can be delivered, then stop all threads and close all
        sockets, within a bounded time. An exception that interrupts the
        thread that waits for it ends only the time for the delivery.

        :param flush_deadline: monotonic seconds until which acknowledgements
            are waited for
        :param is_exit: whether the process is about to end
        """
        if not self.is_closed:
            self._closing.close(flush_deadline, is_exit)

    def _closing_steps(self, flush_deadline, is_exit):
        if self.is_closed:
            return []
        began = time.monotonic()
        last = min(_LAST_FLUSH_LIMIT,
                   max(0.0, _LAST_FLUSH * (flush_deadline - began)))
        return [self._checks.stop,
                lambda: self._flush_first(flush_deadline, last, is_exit,
                                          began),
                self._close_services,
                lambda: self.outbox.refuse(
                    'this process is ending' if is_exit
                    else 'the driver was closed'),
                lambda: self._flush_last(flush_deadline, last, is_exit),
                self.outbox.stop,
                self.registry.stop,
                self._join,
                self._facts.close,
                self.requests.close,
                self._authenticator.end,
                self._terminate,
                self._set_closed]

    def _flush_first(self, flush_deadline, last, is_exit, began):
        try:
            self._flushing.wait(flush_deadline - last, is_exit, began,
                                flush_deadline)
        except BaseException:
            self._flushing.hurry()
            raise

    def _flush_last(self, flush_deadline, last, is_exit):
        """What endpoints, and threads that never stop, have sent while the
        services were closing.
        """
        soon = time.monotonic() + last
        self._flushing.wait(soon if self._flushing.is_hurried
                            else max(flush_deadline, soon), is_exit)

    # Without its driver

    def close_if_forgotten(self) -> None:
        """Close it if its driver was forgotten and nothing is left to do."""
        if not self._is_forgotten():
            return
        if self._is_used:
            self._closing.begin(time.monotonic())
        else:
            self.close(time.monotonic())

    def _is_forgotten(self):
        return (self._owner is not None and self._owner() is None
                and not self._services and not self.outbox.pending())

    def _close_services(self):
        self._keys.stop()
        threads.do_all([
            listening.cleanup for listening in list(self._services)])

    def _join(self):
        deadline = time.monotonic() + _JOIN_LIMIT
        self._checks.join(deadline)
        self._stopped.join(deadline)
        self.outbox.join(deadline)
        self.registry.join(deadline)
        self.outbox.journals.stop()
        self.outbox.journals.join(deadline)

    def _terminate(self):
        # Once: libzmq bears no second thread that terminates.
        if not next(self._terminations):
            sockets.terminate(self._context,
                              _TERM_LIMIT + self._settings.linger)
            # Now nobody is connected to them any more.
            for listening in (*self._services, *self._closed_services):
                listening.remove_files()

    def _set_closed(self):
        self.is_closed = True
        exits.discard(self)

    def _housekeeping(self):
        self._is_used = True
        self.close_if_forgotten()
        exits.prepare()
        self.requests.close_idle()
        self._keys.follow()
        for listening in list(self._closed_services):
            if listening.may_remove_files():
                listening.remove_files()
                self._closed_services.remove(listening)
        self._surroundings.look(self._services)
        self._checks.turn()
        self._stopped.turn()
        if self._services or self.outbox.journals.keeps:
            self.outbox.journals.look_around(self.outbox.start)
        self._facts.turn()
