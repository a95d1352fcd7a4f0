# SPDX-License-Identifier: Apache-2.0
"""All connections of an outbox, and the send queues on them."""

from collections.abc import Callable
from collections.abc import Iterator

from zmq_threaded import endpoints
from zmq_threaded import mailbox
from zmq_threaded.client import dealer_connection
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import in_doubt
from zmq_threaded.client import reasons
from zmq_threaded.client import send_queue
from zmq_threaded.net import descriptors
from zmq_threaded.registry import record

Connection = dealer_connection.Connection
SendQueue = send_queue.SendQueue

# Connections without a peer that are probed at one time: each probe is a
# client more for its service, and when a fanout has just opened 1,000
# connections, those services are busy letting its own in.
_PROBES = 20


class Connections:
    """Send queues by instance; opens the connections that they need, and
    closes those that nobody uses.

    :param socket_factory: sockets.Sockets
    :param settings: options.Settings
    :param polled: mailbox.PolledMailbox of the outbox thread
    :param counters: counters.Counters
    :param doubt: what notes the messages that were sent
    :param on_message: called with a connection and each multipart that
        arrives
    :param unreachable: called with an instance that cannot be reached, and
        why
    :param tell: runs a callable in the outbox thread, later

    Thread: outbox.
    """

    def __init__(self, socket_factory, settings,
                 polled: mailbox.PolledMailbox, counters,
                 doubt: in_doubt.InDoubt, on_message: Callable,
                 unreachable: Callable, tell: Callable):
        self._sockets = socket_factory
        self._settings = settings
        self._mailbox = polled
        self._counters = counters
        self._in_doubt = doubt
        self._on_message = on_message
        self._unreachable = unreachable
        self._tell = tell
        self._connections: dict[tuple, Connection] = {}
        self._by_fd: dict[int, Connection] = {}
        # Where something was queued in this turn. What is not sent then is
        # sent when its connection is ready for it.
        self._queued_to: dict[Connection, None] = {}
        self._queues: dict[bytes, SendQueue] = {}

    def __iter__(self) -> Iterator[SendQueue]:
        return iter(list(self._queues.values()))

    def get(self, instance_id: bytes) -> SendQueue | None:
        """The queue to an instance, or None if there is none yet."""
        return self._queues.get(instance_id)

    def queue_of(self, delivery: deliveries.Delivery) -> SendQueue:
        """The queue in which a message is, or over which it was sent."""
        return self._queues[delivery.instance.id]

    def to(self, instance: record.Instance,
           is_patient: Callable[[], bool] = lambda: False
           ) -> SendQueue | None:
        """The queue to an instance, opened if need be; None if the instance
        cannot be reached from here.

        :param is_patient: whether to open a connection though the file of its
            socket is missing, which may come back; called only if that file
            is missing
        :raises: descriptors.Short
        """
        queue = self._queues.get(instance.id)
        if queue is None:
            connection = (self._connections.get(instance.endpoints)
                          or self._open(instance, is_patient))
            if connection is not None:
                connection.use_key(instance.key)
                queue = connection.queue(instance)
                self._queues[instance.id] = queue
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
            connection = dealer_connection.Connection(
                self._sockets, instance.endpoints, endpoint,
                instance.receiver, self._counters, self._in_doubt,
                self._on_message, self._watch, self._tell,
                self._queued_to, instance.key)
        except endpoints.BadEndpoint as error:
            return self._unreachable(instance, str(error))
        self._connections[instance.endpoints] = connection
        return connection

    def _watch(self, connection, old_fd):
        if self._by_fd.pop(old_fd, None) is connection:
            self._mailbox.unwatch(old_fd)
        self._by_fd[connection.fd] = connection
        self._mailbox.watch(connection.fd)

    def is_watching(self) -> bool:
        """Whether somebody waits to learn whether an instance has a call."""
        return any(queue.watched for queue in self._queues.values())

    def watch(self, watch: deliveries.Watch) -> None:
        """Ask the instance of a call now and then whether it still has it."""
        try:
            queue = self.to(watch.instance)
        except descriptors.Short:
            return      # its caller waits for its time
        if queue is not None:
            queue.watched[watch.id] = watch

    def unwatch(self, watch: deliveries.Watch) -> None:
        """Ask no more."""
        queue = self._queues.get(watch.instance.id)
        if queue is not None:
            queue.watched.pop(watch.id, None)

    def pump(self, ready: list[tuple[int, int]]) -> None:
        """Receive and send on the connections that epoll reports.

        :param ready: list of (fd, event mask)
        """
        for fd, _ in ready:
            if fd in self._by_fd:
                self._by_fd[fd].pump()

    def pump_queued(self) -> None:
        """Send what was just queued."""
        for connection in list(self._queued_to):
            del self._queued_to[connection]
            connection.pump()

    def check(self, now: float) -> list[SendQueue]:
        """Look after connections; to be called a few times a second.

        :returns: list of the queues whose connection is lost
        """
        lost: list[SendQueue] = []
        oldest = now - self._settings.pool_ttl
        probes = _PROBES
        for connection in list(self._connections.values()):
            for queue in connection.idle_since(oldest):
                self._forget(queue)
            if connection.is_idle():
                if (connection.used_at < oldest
                        or connection.keys.is_outdated()
                        or connection.keys.is_revoked()):
                    self._close(connection)
            elif not connection.check(now, probes > 0):
                lost += connection.queues()
            probes -= not connection.connected
        return lost

    def had_stalled(self, now: float) -> None:
        """This process stood still: give lost connections their time anew,
        for their peers may have come back meanwhile.
        """
        for connection in self._connections.values():
            connection.had_stalled(now)

    def remove(self, queue: SendQueue) -> None:
        """Forget the queue to an instance that is lost, and close its
        connection if no other instance is behind that.
        """
        connection = queue.connection
        self._forget(queue)
        if not connection.to_receiver and not connection.queues():
            self._close(connection)

    def _forget(self, queue):
        queue.connection.remove(queue)
        self._queues.pop(queue.instance.id, None)

    def _close(self, connection: Connection):
        for queue in connection.queues():
            self._forget(queue)
        del self._connections[connection.endpoints]
        fd = connection.fd
        if fd is not None and self._by_fd.pop(fd, None) is connection:
            self._mailbox.unwatch(fd)
        connection.close()

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self._connections.values()):
            self._close(connection)
