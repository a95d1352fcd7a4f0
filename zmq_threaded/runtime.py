# SPDX-License-Identifier: Apache-2.0
"""All that one driver has in one process: context, sockets and threads."""

import contextlib
import itertools
import math
import os
import threading
import time
import weakref

from zmq_threaded import counters
from zmq_threaded.net import descriptors
from zmq_threaded import errors
from zmq_threaded import exits
from zmq_threaded import logs
from zmq_threaded.registry import engines
from zmq_threaded import options
from zmq_threaded.registry import tooz_url
from zmq_threaded import sockets
from zmq_threaded.registry import sweep
from zmq_threaded import threads
from zmq_threaded.registry import registry as registries
from zmq_threaded.client import outbox
from zmq_threaded.client import requests
from zmq_threaded.receiver import address
from zmq_threaded.receiver import published
from zmq_threaded.service import service

LOG = logs.get(__name__)

# Descriptors: of the parts of a driver with a service and one connection; and
# of what does not grow with its load (docs/promises.md).
_FOR_A_START, _FOR_THE_REST = 24, 30
# What is sent while the services close has this much of the time, at the most.
_LAST_FLUSH, _LAST_FLUSH_LIMIT = 0.2, 1.0
# Seconds after which a flush says what it waits for, and for how many topics.
_SILENCE, _TOPICS_TOLD = 0.3, 5
_SURVEY_LIMIT = 0.5
_JOIN_LIMIT = 5.0
_TERM_LIMIT = 2.0
# How long another thread's close() may go on after its time for the flush.
_OTHER_LIMIT = 10.0


class Runtime:
    """Wires the parts. Threads start with their first use.

    A forked child must not touch its parent's Runtime, only drop it; the
    driver sees to that.

    :param settings: options.Settings
    :param owner: the driver; when it is forgotten, this closes by itself as
        soon as everything is delivered
    :raises: options.InvalidOption, descriptors.Short
    :ivar is_closed: close() has done all it does
    :ivar successors: the driver's next one under 'is', once there is one

    Thread: any.
    """

    def __init__(self, settings, owner=None):
        # Before anything is opened: libzmq bears no half of what it needs.
        descriptors.warn_if_few(2 * settings.pool_size + _FOR_THE_REST)
        descriptors.demand(_FOR_A_START + 2 * settings.io_threads)
        self.pid = os.getpid()
        self._settings = settings
        # Only a weak one, of which nothing is run by the garbage collector.
        self._owner = weakref.ref(owner) if owner is not None else None
        self._services, self._stopped = [], set()
        self._closed_services = []
        self._swept = self._is_used = self._has_told = False
        self._closers, self._background = {}, {}
        self._terminations = itertools.count()
        self._is_closing = self.is_closed = False
        self.successors = {}
        self._ipc_dir = options.ipc_directory(settings)
        self.counters = counters.Counters()
        self._registry = registries.Registry(
            _registry(self._ipc_dir, settings), settings.update,
            settings.expire, self.counters, threads.REGISTRY,
            housekeeping=self._housekeeping)
        with contextlib.ExitStack() as undo:
            undo.callback(self._registry.stop)
            self._context = sockets.new_context(settings)
            undo.callback(self._context.term)
            self.outbox = outbox.Outbox(
                self._context, settings, self._registry, self.counters,
                threads.OUTBOX)
            undo.callback(self.outbox.stop)
            self.requests = requests.Requests(
                self._context, settings, self._registry, self.counters,
                self.outbox.watch)
            self._presence = address.Presence(settings, self._ipc_dir)
            self._published = published.Published(settings)
            exits.add(self)
            undo.pop_all()

    def tell(self):
        """Log where everything is. Not while it is being made: a handler may
        use the driver.
        """
        LOG.info('zmq: sockets in %s, registry: %s', self._ipc_dir,
                 tooz_url.without_password(self._settings.matchmaker))

    def service(self, topics, **kwargs):
        """A bound service, registered under these topics once it starts.

        :param kwargs: batch and pool of service.Service
        :raises: sockets.BindError
        """
        if not self._swept:
            self._swept = True
            sweep.sweep(self._ipc_dir, self._settings.expire)
            self._warn_of_open_port()
        listening = service.Service(
            self._context, self._settings, self._ipc_dir, self._registry,
            topics, self.counters, **kwargs)
        self._services.append(listening)
        self._look_around()
        return listening

    def snapshot(self):
        """All counts so far, and what there is now: sockets, backlog (of the
        services), unacknowledged, descriptors_left (to this process).
        """
        return {'sockets': 0, **self.counters.snapshot(),
                'descriptors_left': descriptors.left(),
                'backlog': sum(listening.backlog()
                               for listening in list(self._services)),
                'unacknowledged': self.outbox.pending()}

    def explain(self, topic):
        """Why nobody of a topic can be reached, as text."""
        return self._registry.cache.explain(topic)

    def stopped(self, listening):
        """The service takes no more requests."""
        self._stopped.add(listening)
        exits.server_stopped()

    def forget(self, listening):
        """The service was cleaned up."""
        if listening in self._services:
            self._services.remove(listening)
            self._closed_services.append(listening)
        self._stopped.discard(listening)

    def is_serving(self):
        """Whether a service has not stopped."""
        return any(listening not in self._stopped
                   for listening in list(self._services))

    @property
    def exit_limit(self):
        """Seconds that the exit of the process may wait."""
        return self._settings.exit_timeout

    def close(self, flush_deadline, is_exit=False):
        """Deliver what can be delivered, then stop all threads and close all
        sockets, within a bounded time. One that was interrupted by an
        exception can be called again.

        :param flush_deadline: monotonic seconds until which acknowledgements
            are waited for
        :param is_exit: whether the process is about to end
        """
        if not threads.may_wait():
            # The garbage collector runs code of anybody in our threads.
            return self._close_in_background(flush_deadline)
        # Atomic, and no lock: a signal handler may interrupt its own thread
        # in here.
        me = threading.get_ident()
        limit = max(flush_deadline, time.monotonic()) + _OTHER_LIMIT
        while not self.is_closed and time.monotonic() < limit:
            if self._closers.setdefault('is', me) == me:
                # Else the handler goes, and what it interrupted goes on.
                if not self._is_closing:
                    self._close(flush_deadline, is_exit)
                return
            time.sleep(0.005)

    def _close(self, flush_deadline, is_exit):
        self._is_closing = True
        try:
            threads.do_all(self._closing_steps(flush_deadline, is_exit))
        finally:
            self._is_closing = False
            self._closers.pop('is', None)

    def _closing_steps(self, flush_deadline, is_exit):
        began = time.monotonic()
        last = min(_LAST_FLUSH_LIMIT,
                   max(0.0, _LAST_FLUSH * (flush_deadline - began)))
        return (lambda: self._flush(flush_deadline - last, is_exit, began,
                                    flush_deadline),
                self._close_services,
                lambda: self.outbox.refuse(
                    'this process is ending' if is_exit
                    else 'the driver was closed'),
                # What endpoints, and threads that never stop, have sent
                # while the services were closing.
                lambda: self._flush(max(flush_deadline,
                                        time.monotonic() + last), is_exit),
                self.outbox.stop,
                self._registry.stop,
                self._join,
                self.requests.close,
                self._terminate,
                self._set_closed)

    def flush_for_exit(self):
        """Wait as the exit of the process does, but close nothing."""
        now = time.monotonic()
        self._flush(now + self.exit_limit, True, now)

    def _flush(self, deadline, is_exit, until=math.inf, in_all=None):
        """:param in_all: when the last flush ends, for the log"""
        flush = self.outbox.begin_flush(deadline, until)
        if not flush.wait(min(deadline, time.monotonic() + _SILENCE)):
            self._tell_what_is_waited_for(in_all or deadline, is_exit)
            flush.wait(deadline)

    def _tell_what_is_waited_for(self, deadline, is_exit):
        left = deadline - time.monotonic()
        if self._has_told or left <= 0:
            return
        self._has_told = True
        try:
            waiting = self.outbox.survey(min(left, _SURVEY_LIMIT))
        except errors.MessagingTimeout as error:
            waiting = str(error)
        LOG.warning('zmq: %s waits up to %.1f s (%s) for messages to be '
                    'acknowledged: %s',
                    'the exit of this process' if is_exit else 'cleanup()',
                    left, 'rpc_zmq_exit_timeout' if is_exit
                    else 'rpc_cast_timeout', _by_topic(waiting))

    # Without its driver

    def close_if_forgotten(self):
        """Close it if its driver was forgotten and nothing is left to do."""
        if not self._is_forgotten():
            return
        if self._is_used:
            self._close_in_background(time.monotonic())
        else:
            self.close(time.monotonic())

    def _is_forgotten(self):
        return (self._owner is not None and self._owner() is None
                and not self._services and not self.outbox.pending())

    def _close_in_background(self, flush_deadline):
        me = object()
        if self._background.setdefault('is', me) is not me:
            return
        is_begun = False
        try:
            threads.started(self._close_behind, 'zmq-closing',
                            flush_deadline)
            is_begun = True
        except descriptors.Short as error:
            LOG.debug('zmq: a driver is closed later: %s', error)
        finally:
            if not is_begun:
                self._background.pop('is', None)

    def _close_behind(self, flush_deadline):
        try:
            self.close(flush_deadline)
        finally:
            # One that was interrupted is begun again.
            self._background.pop('is', None)

    def _close_services(self):
        threads.do_all([
            listening.cleanup for listening in list(self._services)])

    def _join(self):
        deadline = time.monotonic() + _JOIN_LIMIT
        self.outbox.join(deadline)
        self._registry.join(deadline)

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

    def _warn_of_open_port(self):
        if (self._settings.topology, self._settings.transport) == (
                'direct', 'tcp'):
            LOG.warning('zmq: TCP ports on %s are open without encryption; '
                        'whoever reaches them may call the services',
                        self._settings.bind_address)

    def _housekeeping(self):
        self._is_used = True
        self.close_if_forgotten()
        exits.prepare()
        self.requests.close_idle()
        for listening in list(self._closed_services):
            if listening.may_remove_files():
                listening.remove_files()
                self._closed_services.remove(listening)
        self._look_around()

    def _look_around(self):
        """What the owner of a service should know of its node."""
        if not self._services:
            return
        if self._settings.topology == 'receiver':
            self._presence.check()
        self._published.check()


def _by_topic(waiting):
    """What Outbox.survey() returns, in words."""
    if not isinstance(waiting, dict):
        return waiting
    told = sorted(waiting.items(), key=lambda each: -each[1]['count'])
    text = ', '.join(f'{each["count"]} for topic {topic}'
                     for topic, each in told[:_TOPICS_TOLD])
    return text + (f', and for {len(told) - _TOPICS_TOLD} more topics'
                   if len(told) > _TOPICS_TOLD else '')


def _registry(ipc_dir, settings):
    if settings.matchmaker != options.EMBEDDED:
        return engines.distributed(settings.matchmaker, settings.expire)
    try:
        return engines.embedded(ipc_dir, settings.expire)
    except OSError as error:
        raise options.InvalidOption(f'rpc_zmq_ipc_dir: {error}') from None
