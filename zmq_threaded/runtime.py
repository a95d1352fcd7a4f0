# SPDX-License-Identifier: Apache-2.0
"""All that one driver has in one process: context, sockets and threads."""

import contextlib
import itertools
import os
import threading
import time

from zmq_threaded import counters
from zmq_threaded import descriptors
from zmq_threaded import logs
from zmq_threaded import matchmaker
from zmq_threaded import options
from zmq_threaded import registry_url
from zmq_threaded import sockets
from zmq_threaded import sweep
from zmq_threaded.client import directory
from zmq_threaded.client import outbox
from zmq_threaded.client import requests
from zmq_threaded.receiver import address
from zmq_threaded.receiver import published
from zmq_threaded.service import service

LOG = logs.get(__name__)

# Descriptors: of the parts of a driver with a service and one connection; and
# of what does not grow with its load (README, "Limits").
_FOR_A_START, _FOR_THE_REST = 24, 30
_LAST_FLUSH_LIMIT = 1.0
_JOIN_LIMIT = 5.0
_TERM_LIMIT = 2.0
# How long another thread's close() may go on after its time for the flush.
_OTHER_LIMIT = 10.0


def do_all(steps):
    """Call each in turn, though earlier ones raise whatever it be (a signal
    handler may); the last exception is raised at the end.
    """
    with contextlib.ExitStack() as stack:
        for step in reversed(list(steps)):
            stack.callback(step)


class Runtime:
    """Wires the parts. Threads start with their first use.

    A forked child must not touch its parent's Runtime, only drop it; the
    driver sees to that.

    :param settings: options.Settings
    :raises: options.InvalidOption, descriptors.Short
    :ivar is_closed: close() has done all it does

    Thread: any.
    """

    def __init__(self, settings):
        # Before anything is opened: libzmq bears no half of what it needs.
        descriptors.warn_if_few(2 * settings.pool_size + _FOR_THE_REST)
        descriptors.demand(_FOR_A_START + 2 * settings.io_threads)
        self.pid = os.getpid()
        self._settings = settings
        self._services = []
        self._closed_services = []
        self._swept = False
        self._closers = {}
        self._terminations = itertools.count()
        self._is_closing = self.is_closed = False
        self._ipc_dir = options.ipc_directory(settings)
        LOG.info('zmq: sockets in %s, registry: %s', self._ipc_dir,
                 registry_url.without_password(settings.matchmaker))
        self.counters = counters.Counters()
        self._directory = directory.Directory(
            _registry(self._ipc_dir, settings), settings.update,
            settings.expire, self.counters, 'zmq-directory',
            housekeeping=self._housekeeping)
        self._context = sockets.new_context(settings)
        self.outbox = outbox.Outbox(
            self._context, settings, self._directory, self.counters,
            'zmq-outbox')
        self.requests = requests.Requests(
            self._context, settings, self._directory, self.counters,
            self.outbox.watch)
        self._presence = address.Presence(settings, self._ipc_dir)
        self._published = published.Published(settings)

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
            self._context, self._settings, self._ipc_dir, self._directory,
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
        return self._directory.explain(topic)

    def forget(self, listening):
        """The service was cleaned up."""
        if listening in self._services:
            self._services.remove(listening)
            self._closed_services.append(listening)

    def close(self, flush_deadline):
        """Deliver what can be delivered, then stop all threads and close all
        sockets, within a bounded time.

        :param flush_deadline: monotonic seconds until which acknowledgements
            are waited for
        """
        # Atomic, and no lock: a signal handler may interrupt its own thread
        # in here.
        me = threading.get_ident()
        if self._closers.setdefault('first', me) != me:
            self._wait_until_closed(flush_deadline)
        elif not (self._is_closing or self.is_closed):
            self._is_closing = True
            try:
                do_all(self._closing_steps(flush_deadline))
            finally:
                self._is_closing = False
        # Else the handler goes, and what it interrupted goes on.

    def _wait_until_closed(self, flush_deadline):
        deadline = max(flush_deadline, time.monotonic()) + _OTHER_LIMIT
        while not self.is_closed and time.monotonic() < deadline:
            time.sleep(0.005)

    def _closing_steps(self, flush_deadline):
        return (lambda: self.outbox.flush(flush_deadline),
                self._close_services,
                # What endpoints have sent while their services were closing.
                lambda: self.outbox.flush(min(
                    flush_deadline, time.monotonic() + _LAST_FLUSH_LIMIT)),
                self.outbox.stop,
                self._directory.stop,
                self._join,
                self.requests.close,
                self._terminate,
                self._set_closed)

    def _close_services(self):
        do_all([listening.cleanup for listening in list(self._services)])

    def _join(self):
        deadline = time.monotonic() + _JOIN_LIMIT
        self.outbox.join(deadline)
        self._directory.join(deadline)

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

    def _warn_of_open_port(self):
        if (self._settings.topology, self._settings.transport) == (
                'direct', 'tcp'):
            LOG.warning('zmq: TCP ports on %s are open without encryption; '
                        'whoever reaches them may call the services',
                        self._settings.bind_address)

    def _housekeeping(self):
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


def _registry(ipc_dir, settings):
    if settings.matchmaker != options.EMBEDDED:
        return matchmaker.distributed(settings.matchmaker, settings.expire)
    try:
        return matchmaker.embedded(ipc_dir, settings.expire)
    except OSError as error:
        raise options.InvalidOption(f'rpc_zmq_ipc_dir: {error}') from None
