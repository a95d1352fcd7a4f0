# SPDX-License-Identifier: Apache-2.0
"""Calls: one REQ socket, checked out by the calling thread for one call.

The caller's own thread sends and waits, so that no reply wakes another.
"""

import contextlib
import os
import time

import zmq

from zmq_threaded import endpoints
from zmq_threaded import errors
from zmq_threaded import logs
from zmq_threaded import sizes
from zmq_threaded import timings
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import opening
from zmq_threaded.client import pool
from zmq_threaded.client import reasons
from zmq_threaded.client import refusals
from zmq_threaded.net import descriptors
from zmq_threaded.net import multiparts
from zmq_threaded.security import probe as probes

LOG = logs.get(__name__)

NotTaken = refusals.NotTaken
_WATCH_AFTER = timings.ASK_AFTER


class _Connection:
    """A REQ socket to one service, or to the receiver of many.

    :param instance: to whose endpoints it is
    :param endpoint: the one of them that is used
    :param made_at: version of the keys before the socket was opened

    Thread: whoever took it out of the pool.
    """

    __slots__ = ('endpoints', 'key', 'endpoint', 'socket', 'idle_since',
                 'opened_at', 'sent_at', '_made_at', '_sockets',
                 '_counters', '_receive_timeout', '_pid')

    def __init__(self, instance, endpoint, socket, socket_factory, counters,
                 made_at):
        self.endpoints, self.key = instance.endpoints, instance.key
        self.endpoint = endpoint
        self.socket = socket
        self._sockets = socket_factory
        self._made_at = made_at
        self._counters, self._pid = counters, os.getpid()
        self.idle_since = self.sent_at = 0.0
        self.opened_at = time.monotonic()
        self._receive_timeout = None

    def send(self, frame):
        """False when there is no peer to take it."""
        self.sent_at = time.monotonic()
        try:
            multiparts.send(self.socket, [frame])
        except zmq.Again:
            return False
        self._counters.add('sent')
        return True

    def receive(self, deadline, watch=None):
        """The reply's frame, or None at the deadline.

        :param watch: delivery.Watch of the call
        :raises: errors.ServerGone when the connection or the server is lost
        """
        was_lost = False
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._set_timeout(min(left, timings.CALL_SLICE))
            try:
                return multiparts.receive(self.socket, flags=0)[0]
            except multiparts.TooManyFrames:
                # The connection is of no more use.
                raise errors.ServerGone() from None
            except zmq.Again:
                # No last look for a reply: one that lay unread is dropped with
                # its connection, by libzmq (ZMQ_IMMEDIATE).
                if was_lost or self.is_lost() or self.is_revoked():
                    raise errors.ServerGone() from None
                # The reply may have come before the news: look once more.
                was_lost = watch is not None and watch.is_lost

    def is_lost(self):
        """Whether there is no peer any more."""
        return not multiparts.events(self.socket) & multiparts.POLLOUT

    def is_outdated(self):
        """Whether a key has come or gone since it was made."""
        return self._made_at != self._sockets.access.version

    def is_revoked(self):
        """Whether the key of its peer is not trusted any more."""
        return (self.is_outdated() and self.endpoint.startswith('tcp:')
                and bool(self._sockets.access.refusal(self.key)))

    def refusal(self, ports):
        """Why one end refuses the key of the other; '' if neither does, as
        far as is known. Waits for the time of a handshake, for the server may
        have ended.

        :param ports: probe.Reasons
        """
        if not self.key or not self.endpoint.startswith('tcp:'):
            return ''
        # The driver may be closed meanwhile, or the key not trusted any more.
        with contextlib.suppress(zmq.ZMQError, endpoints.BadEndpoint):
            address = self.socket.get(zmq.LAST_ENDPOINT).rstrip(b'\0')
            return (self._sockets.access.refusal(self.key)
                    or ports.find(address.decode(), self.key,
                                  time.monotonic() + probes.AFTER))
        return ''

    def _set_timeout(self, seconds):
        milliseconds = int(seconds * 1000) + 1
        if milliseconds != self._receive_timeout:
            self.socket.set(zmq.RCVTIMEO, milliseconds)
            self._receive_timeout = milliseconds

    def close(self):
        # In a forked child all is the parent's, and a thread that the child
        # does not have may hold the locks.
        if self._pid == os.getpid():
            self._sockets.close(self.socket)

    def __del__(self):
        # An exception may end the thread that has it at any line; the first
        # ones of __init__ are among these.
        with contextlib.suppress(AttributeError):
            self.close()


class Requests:
    """Calls that need one reply and nothing else.

    :param socket_factory: sockets.Sockets
    :param watch: Outbox.watch()
    :param call_by_outbox: OutboxCalls.call(), for a server that replies in
        more than one message, of which a REQ takes only one; and when a
        connection for each thread is too many, for it or for this process

    Thread: any.
    """

    def __init__(self, socket_factory, settings, registry, counters, watch,
                 call_by_outbox):
        self._sockets = socket_factory
        self._opening = opening.Opening(socket_factory, counters)
        self._refusals = probes.Reasons(socket_factory, counters)
        self._registry = registry
        self._counters = counters
        self._watch = watch
        self._call_by_outbox = call_by_outbox
        self._new_id = wire.id_maker()
        self._pool = pool.Pool(settings.pool_size, settings.pool_ttl)

    def call(self, topic, body, flags, deadline, attempts):
        """Send a call to one instance of the topic and wait for its reply.

        It is sent to another instance only if the first certainly did not
        take it.

        :param body: context and message, encoded
        :param deadline: monotonic seconds
        :param attempts: look-ups that may find nobody; None for any number
        :raises: errors.Nobody, MessagingTimeout, MessageDeliveryFailure
        :returns: wire.Message, a REPLY
        """
        message_id = self._new_id()
        while True:
            instance = self._registry.resolve(topic, deadline, attempts)
            if instance.two_messages or instance.sparing:
                return self._call_by_outbox(topic, body, flags, deadline,
                                            attempts, chosen=instance)
            if instance.limit:
                sizes.check(body, instance.limit,
                            f'Call {message_id.hex()} for', instance)
            try:
                return self._exchange(instance, topic, message_id, body,
                                      flags, deadline)
            except descriptors.Short:
                # The outbox needs one for all callers, and waits for it.
                self._pool.shed()
                return self._call_by_outbox(topic, body, flags, deadline,
                                            attempts, chosen=instance)
            except NotTaken as reason:
                LOG.debug('Call %s was not taken by %s: %s',
                          message_id.hex(), instance, reason)
                self._stop_at(deadline, topic)
            except zmq.ZMQError as error:
                raise errors.MessageDeliveryFailure(
                    f'Call {message_id.hex()} to {topic} could not be sent: '
                    f'{error}') from None

    def _stop_at(self, deadline, topic):
        """However many others there are."""
        if time.monotonic() >= deadline:
            raise errors.Nobody(False, self._registry.cache.explain(topic))

    def _exchange(self, instance, topic, message_id, body, flags, deadline):
        connection = self._send(instance, message_id, body, flags, deadline)
        try:
            frame = self._wait(connection, instance, message_id, deadline)
        except errors.ServerGone:
            why = self._lost(connection, instance)
            connection.close()
            raise errors.ServerGone(
                f'The server of call {message_id.hex()} to {topic} was lost '
                f'before it replied: {instance}; it may have been executed'
                + (f'. The cause: {why}' if why else '')) from None
        except zmq.ZMQError as error:
            connection.close()
            raise errors.MessagingTimeout(
                f'No reply to call {message_id.hex()} to {topic}: the driver '
                f'was closed ({error})') from None
        except BaseException:
            connection.close()
            raise
        self._pool.give(connection)
        if frame is None:
            self._counters.add('calls_timed_out')
            self._registry.cache.unanswered.timed_out(instance)
            raise errors.MessagingTimeout(
                f'Timed out waiting for a reply to call {message_id.hex()} '
                f'to {topic} from {instance}')
        return self._read(frame, instance, topic, message_id)

    def _lost(self, connection, instance):
        """:returns: why, if it is known"""
        if self._registry.cache.took_nothing(instance, connection.opened_at,
                                             connection.sent_at):
            connection.close()
            raise NotTaken('its receiver was closing') from None
        refusal = connection.refusal(self._refusals)
        if refusal:
            why = f'{connection.endpoint}: {refusal}'
            self._registry.cache.unreachable(instance, why)
            return reasons.unreachable(instance, why)
        if connection.is_lost():
            self._registry.cache.unreachable(
                instance, f'{connection.endpoint}: the connection was lost '
                'during a call')
        else:
            self._registry.cache.avoid(instance, why='its receiver does not '
                                       'find a call any more that it had')
        return ''

    def _wait(self, connection, instance, message_id, deadline):
        if not instance.receiver:
            return connection.receive(deadline)
        # This connection ends with the receiver, not with the server.
        watch_at = time.monotonic() + _WATCH_AFTER
        frame = connection.receive(min(deadline, watch_at))
        if frame is not None or watch_at >= deadline:
            return frame
        with self._watch(instance, message_id) as watch:
            return connection.receive(deadline, watch)

    def _send(self, instance, message_id, body, flags, deadline):
        """A connection over which the request has gone."""
        connection = (self._pooled(instance)
                      or self._connect(instance, deadline))
        while True:
            if self._registry.cache.is_closing(instance):
                connection.close()
                raise NotTaken('its receiver is closing')
            flag, expiry = deliveries.expiry_for(connection.endpoint, deadline)
            if connection.send(wire.encode(wire.CALL, instance.id, message_id,
                                           body, flags | flag, expiry)):
                return connection
            # It was lost while it was idle, or as soon as it was there.
            connection.close()
            if time.monotonic() >= deadline:
                raise NotTaken('connections to it do not last')
            connection = self._connect(instance, deadline)

    def _pooled(self, instance):
        connection = self._pool.take(instance)
        if connection and (
                connection.is_outdated()
                or endpoints.is_closing(connection.endpoint,
                                        connection.idle_since)
                or self._registry.cache.is_old(instance,
                                               connection.opened_at)):
            connection.close()
            return None
        return connection

    def _connect(self, instance, deadline):
        # Before: a key that changes meanwhile makes it outdated.
        made_at = self._sockets.access.version
        try:
            endpoint, socket = self._opening.open(
                instance.endpoints, deadline, instance.key)
        except opening.Unreachable as problem:
            self._registry.cache.unreachable(instance, str(problem))
            raise NotTaken(str(problem)) from None
        return _Connection(instance, endpoint, socket, self._sockets,
                           self._counters, made_at)

    def _read(self, frame, instance, topic, message_id):
        try:
            message = wire.decode(frame)
            if message.kind == wire.REPLY and message.id == message_id:
                self._registry.cache.reached(instance)
                return message
            if message.kind == wire.NACK:
                refusals.act_on(message, instance, self._registry.cache)
            raise wire.Malformed(f'kind {message.kind}')
        except wire.WrongVersion as error:
            self._counters.add('wrong_version')
            raise errors.Refused(f'Call {message_id.hex()} to {topic}: '
                                 f'{instance} answered it: {error}') from None
        except ValueError as error:
            self._counters.add('malformed')
            raise errors.ServerGone(
                f'The reply to call {message_id.hex()} to {topic} cannot be '
                f'read: {error}') from None

    def close_idle(self):
        """To be called now and then."""
        self._pool.close_idle()

    def close(self):
        """Close all idle connections; those in use close when their call
        ends, which is at once when the context is terminated.
        """
        self._pool.close()
