# SPDX-License-Identifier: Apache-2.0
"""All connections of an outbox, and the queues on them."""

import select

from zmq_threaded import endpoints
from zmq_threaded.client import dealer_connection
from zmq_threaded.client import reasons


class Connections:
    """Connections by instance; opens the connections that they need, and closes those
    that nobody uses.

    :param socket_factory: sockets.Sockets
    :param epoll: select.epoll on which the outbox thread waits
    :param unsettled: client.unsettled.Unsettled
    :param on_message: called with a connection and each multipart that arrives
    :param unreachable: called with an instance to which there is no way, and
        why
    :param tell: runs a callable in the outbox thread, later

    Thread: outbox.
    """

    def __init__(self, socket_factory, settings, epoll, counters,
                 unsettled, on_message, unreachable, tell):
        self._sockets = socket_factory
        self._settings = settings
        self._epoll = epoll
        self._counters = counters
        self._unsettled = unsettled
        self._on_message = on_message
        self._unreachable = unreachable
        self._tell = tell
        self._connections = {}
        self._by_fd = {}
        self._queues = {}

    def __iter__(self):
        return iter(list(self._queues.values()))

    def get(self, instance_id):
        """The queue to an instance, or None if there is none yet."""
        return self._queues.get(instance_id)

    def to(self, instance, is_patient=lambda: False):
        """The queue to an instance, opened if need be; None if it cannot be
        reached from here.

        :param is_patient: whether to open one though the file of its socket
            is missing, which may come back; called only when it is
        :raises: descriptors.Short
        """
        queue = self._queues.get(instance.id)
        if queue is None:
            connection = self._connections.get(instance.endpoints) or self._open(
                instance, is_patient)
            if connection is not None:
                queue = self._queues[instance.id] = connection.queue(instance)
        return queue

    def _open(self, instance, is_patient):
        endpoint = endpoints.reachable(instance.endpoints)
        if endpoint is None:
            missing = endpoints.missing(instance.endpoints)
            endpoint = missing if missing and is_patient() else None
        if endpoint is None:
            return self._unreachable(instance,
                                     reasons.unusable(instance.endpoints))
        try:
            connection = dealer_connection.Connection(self._sockets,
                              instance.endpoints, endpoint, instance.receiver,
                              self._counters, self._unsettled,
                              self._on_message, self._watch, self._tell)
        except endpoints.BadEndpoint as error:
            return self._unreachable(instance, str(error))
        self._connections[instance.endpoints] = connection
        return connection

    def _watch(self, connection, old_fd):
        if self._by_fd.pop(old_fd, None) is connection:
            self._epoll.unregister(old_fd)
        self._by_fd[connection.fd] = connection
        self._epoll.register(connection.fd, select.EPOLLIN)

    def is_idle(self):
        """Whether nothing is waited for."""
        return all(connection.is_idle() for connection in self._connections.values())

    def pump(self, ready):
        """Receive and send on the connections that epoll reports.

        :param ready: list of (fd, event mask)
        """
        for fd, _ in ready:
            if fd in self._by_fd:
                self._by_fd[fd].pump()

    def pump_queued(self):
        """Send what was just queued."""
        for connection in list(self._connections.values()):
            connection.pump_queued()

    def check(self, now):
        """Look after connections; to be called a few times a second.

        :returns: list of the queues whose connection is lost
        """
        lost, oldest = [], now - self._settings.pool_ttl
        for connection in list(self._connections.values()):
            for queue in connection.idle_since(oldest):
                self._forget(queue)
            if connection.is_idle():
                if connection.used_at < oldest:
                    self._close(connection)
            elif not connection.check(now):
                lost += connection.queues()
        return lost

    def was_paused(self, now):
        """This process was; who came back meanwhile is not lost."""
        for connection in self._connections.values():
            connection.was_paused(now)

    def remove(self, queue):
        """Its instance is lost, and so is its connection if that led to
        nobody else.
        """
        if queue.connection.to_receiver:
            self._forget(queue)
        else:
            self._close(queue.connection)

    def _forget(self, queue):
        queue.connection.remove(queue)
        self._queues.pop(queue.instance.id, None)

    def _close(self, connection):
        for queue in connection.queues():
            self._queues.pop(queue.instance.id, None)
        del self._connections[connection.endpoints]
        if self._by_fd.pop(connection.fd, None) is connection:
            self._epoll.unregister(connection.fd)
        connection.close()

    def close(self):
        for connection in list(self._connections.values()):
            self._close(connection)
