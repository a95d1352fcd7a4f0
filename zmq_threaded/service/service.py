# SPDX-License-Identifier: Apache-2.0
"""A service: one ROUTER, and what its threads do for it.

It needs no oslo.messaging server: give start() any callable, for instance
one of :mod:`zmq_threaded.service.executors`.
"""

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable

from zmq_threaded import counters as counting
from zmq_threaded import live_options
from zmq_threaded import logs
from zmq_threaded import texts
from zmq_threaded import threads
from zmq_threaded import timings
from zmq_threaded import wire
from zmq_threaded.health import vitals
from zmq_threaded.net import binding
from zmq_threaded.net import descriptors
from zmq_threaded.net import ipc_path
from zmq_threaded.receiver import address
from zmq_threaded.registry import record
from zmq_threaded.service import batch as batches
from zmq_threaded.service import crews
from zmq_threaded.service import held
from zmq_threaded.service import outcomes
from zmq_threaded.service import poller
from zmq_threaded.service import poller_thread
from zmq_threaded.service import reception
from zmq_threaded.service import replies
from zmq_threaded.service import router
from zmq_threaded.service import saturation
from zmq_threaded.service import stalls
from zmq_threaded.service import tcp_port
from zmq_threaded.status import meters

LOG = logs.get(__name__)

# Seconds to wait at the most, before the end, for requests that clients sent
# before they heard of it.
_QUIET_LIMIT = 1.0
_REPLIES_LIMIT = 2.0
_JOIN_LIMIT = 5.0


class Service:
    """One listening instance, registered under some topics.

    Construction binds; nothing is read before start().

    :param socket_factory: sockets.Sockets
    :param topics: list of Topic
    :param own_crews: where it gets its threads from
    :param batch: service.batch.Batch, None for one message at a time
    :param pool: of a notification listener
    :raises: binding.BindError
    :ivar vitals: its signs of life
    :ivar pair: keys.Pair with which its TCP port is encrypted, None for an
        open one
    :ivar port: its tcp_port.TcpPort
    :ivar instance: its record
    :ivar topics: list of Topic
    :ivar work: what its workers do, as they measure it
    :ivar counters: of this service; they count for the whole driver too
    :ivar workers: threads of its executor, None if unknown
    :ivar is_registered: it means to be registered
    :ivar is_stopping: stop() was called

    Thread: any.
    """

    def __init__(self, socket_factory, settings, ipc_dir, registry, topics,
                 counters, own_crews: crews.Crews, batch=None, pool=''):
        self._pid = os.getpid()
        self._registry = registry
        self.topics, self.work = topics, meters.Work()
        self.counters = counting.Counters(counters)
        self.made_at = time.monotonic()
        self._crews = own_crews
        self._crew: crews.Crew | None = None
        self.is_registered = self.is_stopping = False
        self.workers: int | None = None
        self._linger, self._closed_at = settings.linger, math.inf
        instance_id = os.urandom(wire.ID_SIZE)
        self._ipc = ipc_path.IpcPath(
            address.service_path(ipc_dir, instance_id),
            ' and '.join(map(str, topics)))
        self._endpoints_behind = functools.partial(
            address.endpoints_behind, settings, ipc_dir)
        self.pair = pair = socket_factory.access.pair_to_bind()
        socket = socket_factory.service()
        try:
            endpoints = self._bind(socket, settings, pair)
            is_behind = settings.topology == 'receiver'
            key = pair.public if pair and len(endpoints) > 1 else b''
            if is_behind:
                key = address.receiver_key(settings, ipc_dir) or b''
                endpoints = self._endpoints_behind(key)
            self.instance = record.Instance(
                instance_id, endpoints, pool, is_behind,
                settings.two_messages, settings.host,
                _server_of(topics),
                not is_behind and descriptors.are_few(),
                _limit_to_tell(settings.max_message_size), key)
            self._make_parts(socket_factory, socket, settings, self.counters,
                             batch or batches.Batch(1, None))
        except BaseException:
            self._ipc.remove()
            socket_factory.close(socket, linger=0)
            raise

    def _make_parts(self, socket_factory, socket, settings, counters,
                    batch):
        inbox = poller_thread.Inbox()
        self._router = router.SharedRouter(
            socket_factory, socket, inbox.wake, counters,
            self._ipc.path, settings.max_message_size)
        own_stalls = stalls.Stalls()
        own_held = held.Held(settings.message_ttl)
        self._replies = replies.Replies(
            self._router, self.instance, own_stalls, counters,
            settings.max_message_size)
        self._outcomes = outcomes.Outcomes(
            self.instance, self._replies, own_held, own_stalls, counters,
            inbox, self._made_room, settings.backlog)
        self._reception = reception.Reception(
            self.instance, self._outcomes, self._replies, own_held,
            own_stalls, counters)
        self._poller = poller.Poller(
            self._router, inbox, self._reception, self._outcomes,
            settings.backlog, batch, counters, self._tick)
        self._saturation = saturation.Saturation(
            self._name(), self.backlog, self._poller.backlog)
        self.vitals = vitals.Vitals(
            self._name(), self.instance, own_held, own_stalls,
            self._poller.is_full)
        self.port = tcp_port.TcpPort(
            settings, binding.bound_port(socket) or 0,
            self.pair, self._name())

    def _name(self):
        """Topics, server, host and id, for the log."""
        names = sorted({str(topic) for topic in self.topics
                        if not topic.server})
        return f'{self.instance} of {", ".join(names)}'

    def start(self, on_incoming: Callable[[list], object],
              workers: int | None = None, may_share: bool = False,
              in_place_of: 'Service | None' = None) -> None:
        """Begin to listen; returns when the registry lists the service, or
        after a few seconds if it cannot be reached.

        :param on_incoming: called by the poller thread with a list of
            Incoming; it should only pass them on
        :param workers: threads that handle them, if that is known
        :param may_share: whether the callback does nothing but to pass them
            on, so that its thread may read for other services as well
        :param in_place_of: a service that is taken off the list in the same
            step
        :raises: descriptors.Short when there are no threads to be had; then
            it may be called again
        """
        self._registry.start()
        self.workers = self.vitals.workers = workers
        if self._crew is None:
            self._crew = self._crews.join(self.instance.id.hex()[:8],
                                          may_share)
        self._replies.start(self._crew.replies)
        self._poller.start(on_incoming, self._crew.poller)
        self.is_registered, self.is_stopping = True, False
        self.vitals.began_at = time.monotonic()
        self._registry.register(self.instance, self.topics,
                                in_place_of and in_place_of.instance)
        # Afterwards: when that fails, it has to take its record off itself.
        if in_place_of is not None:
            in_place_of.is_registered = False
        LOG.info('zmq: %s listens on %s', self._name(),
                 ', '.join(self.instance.endpoints))

    def receiver_has_key(self, key: bytes) -> None:
        """Publish the public key of the receiver in front of this service.

        :param key: b'' for an open port
        """
        if key != self.instance.key:
            self.instance = dataclasses.replace(
                self.instance, key=key, endpoints=self._endpoints_behind(key))
            self.vitals.instance = self.instance
            if self.is_registered:
                self._registry.renew(self.instance, self.topics)
                LOG.info('zmq: %s is published %s', self._name(),
                         _port_of_receiver(self.instance))

    def stop(self) -> None:
        """Take no new requests. When this returns, no callback follows; the
        answers to earlier requests still go out.
        """
        if self._is_inherited():
            return
        self.is_stopping = True
        self.vitals.began_at = math.inf
        if self.is_registered:
            self.is_registered = False
            self._registry.unregister(self.instance)
        self._poller.refuse_from_now_on()

    def backlog(self) -> int:
        """How many messages are held unacknowledged."""
        return len(self._reception.held)

    def taken(self) -> int:
        """How many requests it has taken so far."""
        return self._reception.taken

    def unanswered(self) -> int:
        """How many messages it has taken and not answered."""
        return self._reception.held.unanswered()

    def measures(self, now: float) -> dict[str, object]:
        """What it has to do; see status.facts.

        :param now: monotonic seconds
        """
        oldest = self._reception.held.oldest()
        return {'backlog': self.backlog(), 'limit': self._poller.backlog,
                'oldest': 0.0 if oldest is None else now - oldest,
                'full': self._poller.is_full(),
                'taken': self._reception.taken}

    def cleanup(self) -> None:
        """Close everything, within a few seconds; once is enough."""
        if self._is_inherited() or self._closed_at < math.inf:
            return
        self.stop()
        self._replies.wait_until_empty(time.monotonic() + _REPLIES_LIMIT)
        self._ipc.announce_end()
        threads.wait_for_quiet(lambda: self._poller.last_read,
                               timings.CLOSING_QUIET, _QUIET_LIMIT)
        has_ended = self._end_threads()
        # What was written last must be read before its connection ends: then
        # libzmq drops what a client with IMMEDIATE has not read.
        time.sleep(max(0.0, self._replies.written_at + timings.LAST_READ
                       - time.monotonic()))
        if has_ended and self._router.close():
            LOG.info('zmq: %s has ended; it took %d messages, and %d are not '
                     'answered', self._name(), self._reception.taken,
                     self._reception.held.unanswered())
        self._closed_at = time.monotonic()

    def may_remove_files(self) -> bool:
        """Whether all clients have noticed by now that it is closed."""
        return (time.monotonic() - self._closed_at
                > self._linger + timings.NOTICED_WITHIN)

    def remove_files(self) -> None:
        """Remove the mark of its end."""
        if not self._is_inherited():
            self._ipc.remove()

    def _end_threads(self):
        """:returns: whether both have ended"""
        deadline = time.monotonic() + _JOIN_LIMIT
        self._poller.stop()
        has_ended = self._poller.join(deadline)
        # Only now: the poller's last act may be to refuse requests.
        self._replies.stop()
        deadline = max(deadline, time.monotonic() + timings.LAST_REPLIES)
        has_ended = self._replies.join(deadline) and has_ended
        crew, self._crew = self._crew, None
        if crew is not None:
            self._crews.leave(crew, deadline)
        return has_ended

    def _is_inherited(self):
        # A forked child may run its parent's signal handlers and clean-up;
        # the sockets, the record and the file are the parent's.
        return self._pid != os.getpid()

    def _bind(self, socket, settings, pair):
        endpoints = [self._ipc.bind(socket)]
        if settings.topology == 'direct' and settings.transport == 'tcp':
            endpoints.append(binding.bind_tcp(socket, settings, pair))
        return tuple(endpoints)

    def _made_room(self):
        self._poller.made_room()

    def _tick(self):
        self.vitals.tick()
        if self._ipc.is_lost():
            self._router.maintain(self._ipc.restore)
        self.port.tick(self._router)
        self._outcomes.let_go_of_expired()
        was_full, self._poller.was_full = (
            self._poller.was_full, self._poller.is_full())
        self._saturation.tick(time.monotonic(), was_full, self.workers)


def _server_of(topics):
    """The name of the server as its record shows it: for people only."""
    name = next((topic.server for topic in topics if topic.server), '')
    return texts.line(name, texts.NAME)


def _port_of_receiver(instance):
    """What its record says of the TCP port of its receiver, for the log."""
    if instance.key:
        return 'with the new key of its receiver'
    return ('with the open port of its receiver'
            if len(instance.endpoints) > 1 else
            'without a TCP port, since the port of its receiver is open')


def _limit_to_tell(size):
    """The size in a record; 0 for the one that everybody has."""
    return 0 if size == live_options.DEFAULT_MESSAGE_SIZE else size
