# SPDX-License-Identifier: Apache-2.0
"""ZeroMQ contexts and sockets, with every option set here and nowhere else,
but for the keys (security/curve.py).

All names in capitals are libzmq options (zmq_setsockopt(3), zmq_ctx_set(3)).
"""

import itertools
import time
import weakref

import zmq

from zmq_threaded import endpoints
from zmq_threaded import logs
from zmq_threaded import options
from zmq_threaded import threads
from zmq_threaded import timings
from zmq_threaded.net import descriptors
from zmq_threaded.net import routing_ids
from zmq_threaded.security import access as accesses
from zmq_threaded.security import curve

LOG = logs.get(__name__)

# A bound socket sends no pings: libzmq 4.3.5 aborts the process if a ping is
# due after the peer has left, while messages of that peer still fill the pipe
# (out_event() in stream_engine_base.cpp).
_HEARTBEAT_IVL = timings.milliseconds(timings.HEARTBEAT)
_HEARTBEAT_TIMEOUT = timings.milliseconds(timings.HEARTBEAT_ANSWER)
_HEARTBEAT_TTL = timings.milliseconds(timings.LOST_PEER)
_HANDSHAKE_IVL = timings.milliseconds(timings.HANDSHAKE)
_CONNECT_TIMEOUT = timings.milliseconds(timings.CONNECT)
_RECONNECT_IVL = timings.milliseconds(timings.RECONNECT)
_RECONNECT_IVL_MAX = timings.milliseconds(timings.RECONNECT_MAX)
# Of a context at most; ZeroMQ knows no more than 65535, and one that is in use
# has two descriptors.
_MAX_SOCKETS, _LEAST_SOCKETS = 65535, 1024
_numbers = itertools.count()

_SERVICE_RCVHWM = timings.SERVICE_PIPE
_BACKEND_SNDHWM = timings.RECEIVER_PIPE
_CLIENT_RCVHWM = timings.CLIENT_PIPE

# Bytes of a frame beside the parts of the message: the header, and the ids
# of the instances of a fanout.
_HEADROOM = 128 * 1024

# Descriptors of a context; and its threads beside those for I/O: the reaper.
_FOR_A_CONTEXT, _THREADS_OF_A_CONTEXT = 8, 1
# Seconds between two attempts to start a thread.
_TRY_AGAIN = 0.1


def new_context(settings: options.Settings) -> zmq.Context:
    """A zmq.Context for one driver in this process.

    :raises: descriptors.Short
    """
    descriptors.demand(_FOR_A_CONTEXT + 2 * settings.io_threads)
    threads.demand(_THREADS_OF_A_CONTEXT + settings.io_threads)
    try:
        context = zmq.Context(io_threads=settings.io_threads)
    except zmq.ZMQError as error:
        raise descriptors.short(error) from None
    # Later than the first socket this option would be ignored.
    context.set(zmq.MAX_SOCKETS, min(_MAX_SOCKETS, max(
        _LEAST_SOCKETS, descriptors.limit() // 2)))
    # With the first socket libzmq starts its threads, and aborts the process
    # if there are no descriptors for them (epoll.cpp), or no threads
    # (thread.cpp): so now.
    try:
        new_socket(context, zmq.PAIR).close(linger=0)
    except descriptors.Short:
        context.term()
        raise
    return context


def new_socket(context: zmq.Context, kind: int) -> zmq.Socket:
    """A socket without options.

    :raises: descriptors.Short
    """
    descriptors.demand(descriptors.FOR_A_CONNECTION)
    # The numbers that libzmq draws for a socket, it draws here.
    routing_ids.shuffle()
    try:
        return context.socket(kind)
    except (zmq.ZMQError, OSError) as error:
        if descriptors.is_shortage(error):
            raise descriptors.short(error) from None
        raise


def terminate(context: zmq.Context, limit: float) -> bool:
    """Terminate a context whose sockets are closed or about to be.

    :param limit: seconds to wait; a socket that somebody still holds would
        otherwise block for ever
    :returns: whether it ended in time
    """
    deadline = time.monotonic() + limit
    thread = _terminating(context, deadline)
    if thread is None:
        return False
    thread.join(max(0.0, deadline - time.monotonic()))
    if thread.is_alive():
        LOG.warning('A ZeroMQ context did not end within %.1f s', limit)
    return not thread.is_alive()


def _terminating(context, deadline):
    """The thread that terminates a context; None when there was none to be
    had until the deadline.
    """
    while True:
        try:
            return threads.started(context.term, 'zmq-term')
        except descriptors.Short as error:
            if time.monotonic() >= deadline:
                LOG.warning('A ZeroMQ context stays open: %s', error)
                return None
        time.sleep(_TRY_AGAIN)


class Sockets:
    """Makes the sockets of one context, with all their options, and knows
    which of them are open.

    :param context: zmq.Context
    :param settings: options.Settings
    :param access: what may be connected to; by default as the settings say
    :ivar access: the same

    Thread: any.
    """

    def __init__(self, context: zmq.Context, settings: options.Settings,
                 access: accesses.Access | None = None) -> None:
        self._context = context
        self._settings = settings
        self.access = access or accesses.Access(settings)
        # Weak: a socket that an exception made unreachable is closed by the
        # garbage collector, and is not counted any more.
        self._open: weakref.WeakSet[zmq.Socket] = weakref.WeakSet()

    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    def request(self, endpoint: str, key: bytes = b'') -> zmq.Socket:
        """A REQ socket, connected. Waits for nothing.

        :param key: public key of the port, b'' for an open one
        :raises: endpoints.BadEndpoint, descriptors.Short

        RELAXED and CORRELATE belong together: after a timeout the socket can
        be used again, and the late reply is dropped by libzmq.
        """
        socket = self._new(zmq.REQ)
        socket.set(zmq.REQ_RELAXED, 1)
        socket.set(zmq.REQ_CORRELATE, 1)
        return self._connected(socket, endpoint, key)

    def dealer(self, endpoint: str, key: bytes = b'') -> zmq.Socket:
        """A DEALER socket of a client, connected. Waits for nothing.

        :param key: public key of the port, b'' for an open one
        :raises: endpoints.BadEndpoint, descriptors.Short
        """
        socket = self._new(zmq.DEALER)
        # None: a full pipe has no POLLOUT and would look like a lost peer.
        # The windows of the send queues (client/send_queue.py) are the limit.
        socket.set(zmq.SNDHWM, 0)
        socket.set(zmq.RCVHWM, _CLIENT_RCVHWM)
        return self._connected(socket, endpoint, key)

    def backend(self, endpoint: str) -> zmq.Socket:
        """A DEALER socket of a receiver, connected to a service.

        :raises: endpoints.BadEndpoint, descriptors.Short
        """
        socket = self._new(zmq.DEALER)
        # Of all its clients, when it stops reading; later ones are refused as
        # BUSY.
        socket.set(zmq.SNDHWM, _BACKEND_SNDHWM)
        return self._connected(socket, endpoint, heartbeats=False)

    def service(self) -> zmq.Socket:
        """An unbound ROUTER socket of a service.

        :raises: descriptors.Short
        """
        socket = self.router()
        if self._settings.topology != 'receiver':
            socket.set(zmq.RCVHWM, _SERVICE_RCVHWM)
        return socket

    def router(self) -> zmq.Socket:
        """An unbound ROUTER socket of a service or a receiver.

        :raises: descriptors.Short
        """
        socket = self._new(zmq.ROUTER)
        # Without MANDATORY a reply to a slow or vanished client is dropped
        # with no error.
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.LINGER, int(self._settings.linger * 1000))
        return socket

    def probe(self, endpoint: str, key: bytes
              ) -> tuple[zmq.Socket, zmq.Socket]:
        """A DEALER socket, connected, and one that tells how its handshake
        ends. For close_probe(), and soon: the second one has to be read.

        :raises: endpoints.BadEndpoint, descriptors.Short
        """
        told = self._new(zmq.PAIR)
        told.set(zmq.RCVHWM, 0)
        address = f'inproc://zmq_threaded.monitor.{next(_numbers)}'
        socket = self._new(zmq.DEALER)
        curve.monitor(socket, address)
        told.connect(address)
        return self._connected(socket, endpoint, key), told

    def close_probe(self, socket: zmq.Socket, told: zmq.Socket) -> None:
        """Close both sockets of probe(). Twice is fine."""
        # Not the other way round: libzmq waits for ever for somebody to read.
        curve.stop_monitor(socket)
        self.close(socket, 0.0)
        self.close(told, 0.0)

    def authenticator(self) -> zmq.Socket:
        """A REP socket that libzmq asks who may connect; one in a context.

        :raises: descriptors.Short, zmq.ZMQError
        """
        socket = self._new(zmq.REP)
        try:
            socket.bind(curve.ZAP_ENDPOINT)
        except BaseException:
            self.close(socket)
            raise
        return socket

    def close(self, socket: zmq.Socket, linger: float | None = None) -> None:
        """Close a socket. Twice is fine, so whoever was interrupted by an
        exception calls this again.

        :param linger: seconds that libzmq may take to send what is queued;
            None for those of the socket's own option
        """
        # First, so that an exception between the two lines never leaves a
        # closed socket in the gauge.
        self._open.discard(socket)
        socket.close(None if linger is None else int(linger * 1000))

    def _new(self, kind):
        socket = new_socket(self._context, kind)
        self._open.add(socket)
        _set_common(socket, self._settings)
        return socket

    def _connected(self, socket, endpoint, key=b'', heartbeats=True):
        if endpoint.startswith('tcp:'):
            self._secure(socket, endpoint, key)
        if heartbeats:
            socket.set(zmq.HEARTBEAT_IVL, _HEARTBEAT_IVL)
            socket.set(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT)
            socket.set(zmq.HEARTBEAT_TTL, _HEARTBEAT_TTL)
        # With IMMEDIATE nothing is queued for a peer that has not shaken
        # hands, so POLLOUT means a living peer and its loss a lost one.
        socket.set(zmq.IMMEDIATE, 1)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.CONNECT_TIMEOUT, _CONNECT_TIMEOUT)
        socket.set(zmq.RECONNECT_IVL, _RECONNECT_IVL)
        socket.set(zmq.RECONNECT_IVL_MAX, _RECONNECT_IVL_MAX)
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close(socket)
            raise endpoints.BadEndpoint(f'{endpoint}: {error}') from None
        return socket

    def _secure(self, socket, endpoint, key):
        """The one place that decides whether anything goes in the clear."""
        refusal = self.access.refusal(key)
        if refusal:
            self.close(socket)
            raise endpoints.BadEndpoint(f'{endpoint}: {refusal}')
        if key:
            curve.use_key(socket, self.access.pair, key)


def listen_on(socket: zmq.Socket, endpoint: str, descriptor: int) -> None:
    """Bind a socket to an endpoint on which a descriptor listens already.

    :raises: zmq.ZMQError
    """
    socket.set(zmq.USE_FD, descriptor)
    try:
        socket.bind(endpoint)
    finally:
        socket.set(zmq.USE_FD, -1)


def listen_on_ipv4(socket: zmq.Socket) -> None:
    """To be called before a socket is bound to an interface by its name, which
    would give the IPv6 address of the interface, if it has one.
    """
    socket.set(zmq.IPV6, 0)


def _set_common(socket, settings):
    socket.set(zmq.IPV6, 1)
    # The size of one frame; a peer that sends more loses the connection.
    socket.set(zmq.MAXMSGSIZE, settings.max_message_size + _HEADROOM)
    socket.set(zmq.HANDSHAKE_IVL, _HANDSHAKE_IVL)
    for option, value in (
            (zmq.TCP_KEEPALIVE, settings.keepalive),
            (zmq.TCP_KEEPALIVE_IDLE, settings.keepalive_idle),
            (zmq.TCP_KEEPALIVE_CNT, settings.keepalive_cnt),
            (zmq.TCP_KEEPALIVE_INTVL, settings.keepalive_intvl)):
        if value >= 0:
            socket.set(option, value)
