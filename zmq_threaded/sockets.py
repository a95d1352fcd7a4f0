# SPDX-License-Identifier: Apache-2.0
"""ZeroMQ contexts and sockets, with every option set here and nowhere else.

All names in capitals are libzmq options (zmq_setsockopt(3), zmq_ctx_set(3)).
"""

import contextlib
import errno
import os
import random
import socket as system_socket
import time
import weakref

import zmq

from zmq_threaded.net import descriptors
from zmq_threaded.net import accept_gate
from zmq_threaded.net import accept_gates
from zmq_threaded import logs
from zmq_threaded.net import routing_ids
from zmq_threaded import threads

LOG = logs.get(__name__)

# A client pings its peer every HEARTBEAT_IVL by the I/O thread, however busy
# Python is; a paused peer or a cut wire is noticed after at most IVL + TIMEOUT,
# and by the peer when no ping came for HEARTBEAT_TTL. Who is bound sends none:
# libzmq 4.3.5 aborts the process if it is time for one after the peer has
# left, while what that had sent still fills its pipe (out_event() in
# stream_engine_base.cpp).
_HEARTBEAT_IVL = 2000
_HEARTBEAT_TIMEOUT = 4000
_HEARTBEAT_TTL = _HEARTBEAT_IVL + _HEARTBEAT_TIMEOUT
_HANDSHAKE_IVL = 2000
_CONNECT_TIMEOUT = 3000
# Callers look at their connection every CALL_SLICE; a peer that died and came
# back in between would go unnoticed, so reconnecting must take longer.
CALL_SLICE = 0.2
_RECONNECT_IVL = 500
_RECONNECT_IVL_MAX = 5000
# Of a context at most; ZeroMQ knows no more than 65535, and one that is in use
# has two descriptors.
_MAX_SOCKETS, _LEAST_SOCKETS = 65535, 1024

# From a pipe that is full libzmq reads nothing more, heartbeats included, and
# both ends take the other for dead. A client's pipe to a service is not: of the
# window of its lane (client/lane.py) and its questions there is room for more
# than twice, for a reader counts as read only after half a pipe. (Only calls
# that time out while their service hangs could fill it.) The one of a receiver,
# with the messages of many, may be, so it has no heartbeats.
_SERVICE_RCVHWM, _BACKEND_SNDHWM = 3000, 2000
# Of answers; never full, for a client sends heartbeats.
_CLIENT_RCVHWM = 100_000

# What goes with the parts of a message in its frame: the header, the ids of the
# instances of a fanout.
_HEADROOM = 128 * 1024

# A service renames its file CLOSING_QUIET before it closes, in seconds; who
# has heard of it within FRESH needs no look at the file. The new name stays
# until all have noticed the end of their connections.
CLOSING_QUIET, FRESH = 0.05, 0.02
_CLOSING = '.closing'

# The envelope of a call through a receiver has four, and the message one; newer
# versions may add a few. A service gets two more than its receiver.
_MOST_FRAMES, _MOST_TO_PASS_ON = 16, 14

IPC_PATH_LIMIT = 107
_FOR_A_CONTEXT, _FOR_A_DOOR = 8, 8
# The reaper. And seconds between two attempts to start a thread.
_THREADS_OF_A_CONTEXT = 1
_TRY_AGAIN = 0.1


# Plain ints: operators on pyzmq's enums cost more than the calls they steer
# (a five-frame recv_multipart() 66 us, receive() 24 us).
POLLIN, POLLOUT = int(zmq.POLLIN), int(zmq.POLLOUT)
_NOBLOCK = int(zmq.NOBLOCK)
_send_frame = zmq.backend.Socket.send
_NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_RCVMORE, _EVENTS = int(zmq.RCVMORE), int(zmq.EVENTS)
_SRCFD = int(zmq.SRCFD)


SENT, SLOW, GONE = 'sent', 'slow', 'gone'


class BadEndpoint(Exception):
    """A record names an endpoint to which nobody can connect."""


class TooManyFrames(Exception):
    """A multipart goes on after all that a message can have; skip() the rest
    of it.

    :ivar fd: descriptor of the connection over which it came
    """

    def __init__(self, limit, fd):
        self.fd = fd
        super().__init__(f'more than {limit} frames')


class BindError(Exception):
    """A service could not bind; the text names the address.

    :ivar is_full: the disk has no room for the file of a Unix socket
    """

    def __init__(self, text, is_full=False):
        self.is_full = is_full
        super().__init__(text)


# What making a socket, a thread or a file may raise.
FAILURES = BindError, descriptors.Short, OSError, zmq.ZMQError


def new_context(settings):
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


def new_socket(context, kind):
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


def terminate(context, limit):
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

    Thread: any.
    """

    def __init__(self, context, settings):
        self._context = context
        self._settings = settings
        # Weak: a socket that an exception made unreachable is closed by the
        # garbage collector, and is not counted any more.
        self._open = weakref.WeakSet()

    def count(self):
        """How many are open."""
        return len(self._open)

    def request(self, endpoint):
        """A REQ socket, connected. Waits for nothing.

        :raises: BadEndpoint, descriptors.Short

        RELAXED and CORRELATE belong together: after a timeout the socket can
        be used again, and the late reply is dropped by libzmq.
        """
        socket = self._new(zmq.REQ)
        socket.set(zmq.REQ_RELAXED, 1)
        socket.set(zmq.REQ_CORRELATE, 1)
        return self._connected(socket, endpoint)

    def dealer(self, endpoint):
        """A DEALER socket of a client, connected. Waits for nothing.

        :raises: BadEndpoint, descriptors.Short
        """
        socket = self._new(zmq.DEALER)
        # None: a full pipe has no POLLOUT and would look like a lost peer.
        # The windows of the send queues (client/send_queue.py) are the limit.
        socket.set(zmq.SNDHWM, 0)
        socket.set(zmq.RCVHWM, _CLIENT_RCVHWM)
        return self._connected(socket, endpoint)

    def backend(self, endpoint):
        """A DEALER socket of a receiver, connected to a service.

        :raises: BadEndpoint, descriptors.Short
        """
        socket = self._new(zmq.DEALER)
        # Of all its clients, when it stops reading; later ones are refused as
        # BUSY.
        socket.set(zmq.SNDHWM, _BACKEND_SNDHWM)
        return self._connected(socket, endpoint, heartbeats=False)

    def service(self):
        """An unbound ROUTER socket of a service.

        :raises: descriptors.Short
        """
        socket = self.router()
        if self._settings.topology != 'receiver':
            socket.set(zmq.RCVHWM, _SERVICE_RCVHWM)
        return socket

    def router(self):
        """An unbound ROUTER socket of a service or a receiver.

        :raises: descriptors.Short
        """
        socket = self._new(zmq.ROUTER)
        # Without MANDATORY a reply to a slow or vanished client is dropped
        # with no error.
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.LINGER, int(self._settings.linger * 1000))
        return socket

    def close(self, socket, linger=None):
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

    def _connected(self, socket, endpoint, heartbeats=True):
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
            raise BadEndpoint(f'{endpoint}: {error}') from None
        return socket


def _set_common(socket, settings):
    socket.set(zmq.IPV6, 1)
    # Of one frame; who sends more loses the connection.
    socket.set(zmq.MAXMSGSIZE, settings.max_message_size + _HEADROOM)
    socket.set(zmq.HANDSHAKE_IVL, _HANDSHAKE_IVL)
    for option, value in (
            (zmq.TCP_KEEPALIVE, settings.keepalive),
            (zmq.TCP_KEEPALIVE_IDLE, settings.keepalive_idle),
            (zmq.TCP_KEEPALIVE_CNT, settings.keepalive_cnt),
            (zmq.TCP_KEEPALIVE_INTVL, settings.keepalive_intvl)):
        if value >= 0:
            socket.set(option, value)


def bind_ipc(socket, path):
    """Bind to a Unix socket and return its endpoint; see door.py.

    The path must be new: a live one is taken away from its owner without an
    error. unbind_ipc() is to be called before the socket is closed.

    :raises: BindError, descriptors.Short
    """
    if len(os.fsencode(path)) > IPC_PATH_LIMIT:
        raise BindError(f'rpc_zmq_ipc_dir: {path} is longer than the '
                        f'{IPC_PATH_LIMIT} bytes of a Unix socket')
    endpoint = f'ipc://{path}'

    def bind(descriptor):
        socket.set(zmq.USE_FD, descriptor)
        try:
            socket.bind(endpoint)
        finally:
            socket.set(zmq.USE_FD, -1)

    with _bind_errors(endpoint):
        descriptors.demand(_FOR_A_DOOR)
        accept_gates.bind(path, bind)
    return endpoint


def reopen_ipc(path):
    """Make the file of a path anew, to which a socket is bound still.

    :returns: False when none is
    :raises: BindError, descriptors.Short
    """
    with _bind_errors(f'ipc://{path}'):
        descriptors.demand(_FOR_A_DOOR)
        return accept_gates.reopen(path)


@contextlib.contextmanager
def _bind_errors(endpoint):
    try:
        yield
    except (zmq.ZMQError, OSError) as error:
        if descriptors.is_shortage(error):
            raise descriptors.short(error) from None
        is_full = getattr(error, 'errno', 0) in (errno.ENOSPC, errno.EDQUOT)
        raise BindError(f'{endpoint}: {error}', is_full) from None


def own_addresses(port, path):
    """The port, and the paths that accepted connections have as their own
    address: the file was renamed to where it is.
    """
    return {port, path, *accept_gate.beside(path)}


def holds_ipc(path):
    """Whether the file of a path that was bound here is there, and ours."""
    return accept_gates.holds(path)


def unbind_ipc(path):
    """Remove a Unix socket, if it is still ours; those who are connected stay
    so. Twice is fine.
    """
    accept_gates.unbind(path)


def bind_tcp(socket, settings):
    """Bind to a free port of the configured range.

    :raises: BindError
    :returns: the endpoint under which other hosts reach it
    """
    tries = min(settings.bind_retries, len(settings.ports))
    for port in random.sample(settings.ports, tries):
        if _bind_port(socket, settings, port):
            return tcp_endpoint(settings, port)
    raise BindError(
        f'no free port on {settings.bind_address} in {tries} tries between '
        f'rpc_zmq_min_port {settings.ports.start} and '
        f'rpc_zmq_max_port {settings.ports.stop - 1}')


def bind_receiver_port(socket, settings):
    """Bind to the one TCP port of the node.

    :raises: BindError
    """
    if not _bind_port(socket, settings, settings.receiver_port):
        raise BindError(
            f'rpc_zmq_port {settings.receiver_port} on '
            f'{settings.bind_address} is taken: another receiver, or '
            'something else, listens there')


def _bind_port(socket, settings, port):
    """False when the port is taken."""
    address = _bracketed(settings.bind_address)
    if address != '*' and ':' not in address:
        # An interface would give its IPv6 address, if it has one.
        socket.set(zmq.IPV6, 0)
    try:
        # IPv6 sockets bound to '*' take IPv4 too.
        socket.bind(f'tcp://{address}:{port}')
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            return False
        raise BindError(f'rpc_zmq_bind_address: tcp://{address}:{port}: '
                        f'{error}') from None
    return True


def tcp_endpoint(settings, port):
    """The endpoint under which other hosts reach a TCP port of this one."""
    return f'tcp://{_bracketed(settings.host)}:{port}'


def _bracketed(address):
    plain = ':' in address and not address.startswith('[')
    return f'[{address}]' if plain else address


def send(socket, frames):
    """Send a multipart without blocking.

    :raises: zmq.Again, zmq.ZMQError; then nothing of it was sent
    """
    # Past the options of zmq.Socket.send(), which cost as much as the frame.
    last = len(frames) - 1
    for frame in frames[:last]:
        _send_frame(socket, frame, _NOBLOCK_MORE)
    _send_frame(socket, frames[last], _NOBLOCK)


def is_out_of_memory(error):
    """Whether a message could not be sent for want of memory. Then the frames
    before its big one may have been.
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, zmq.ZMQError) and error.errno == errno.ENOMEM)


def receive(socket, flags=_NOBLOCK, note=None):
    """Receive a multipart, by default without blocking.

    :param note: called with the descriptor of the connection, and the first
        frame
    :raises: zmq.Again when there is none, TooManyFrames
    :returns: list of bytes
    """
    # As zmq.Frame, which knows whether another one follows: to ask the socket
    # costs more than the object.
    receive_frame = socket.recv
    frame = receive_frame(flags, False)
    frames = [frame.bytes]
    if note is not None:
        note(frame.get(_SRCFD), frames[0])
    while frame.more:
        if len(frames) >= _MOST_FRAMES:
            raise _too_many(socket, _MOST_FRAMES)
        frame = receive_frame(flags, False)
        frames.append(frame.bytes)
    return frames


def _too_many(socket, limit):
    return TooManyFrames(limit, socket.recv(_NOBLOCK, False).get(_SRCFD))


def skip(socket, limit):
    """Throw away what follows in a multipart.

    :param limit: frames at most
    :returns: whether its end is reached
    """
    receive_frame, get = socket.recv, socket.get
    if not get(_RCVMORE):
        return True
    for _ in range(limit):
        # Not copied, for a frame may be big.
        if not receive_frame(_NOBLOCK, False).more:
            return True
    return False


def answer(socket, frames, send=send):
    """Send a multipart of a ROUTER to the client that its first frame names,
    without blocking.

    :param send: send() or forward()
    :returns: SENT, SLOW (the client takes no more for now) or GONE (it has
        vanished)
    """
    try:
        send(socket, frames)
    except zmq.Again:
        return SLOW
    except zmq.ZMQError as error:
        if error.errno == zmq.EHOSTUNREACH:
            return GONE
        raise
    return SENT


def receive_uncopied(socket, note=None, most=_MOST_TO_PASS_ON):
    """Receive a multipart without blocking, and without a copy of what
    follows its envelope.

    :param note: called with the descriptor of the connection, and the first
        frame
    :param most: frames that a message may have
    :raises: zmq.Again when there is none, TooManyFrames
    :returns: list of bytes through the first empty frame, then zmq.Frame
    """
    receive_frame, is_copied = socket.recv, True
    frame = receive_frame(_NOBLOCK, False)
    frames = [frame.bytes]
    if note is not None:
        note(frame.get(_SRCFD), frames[0])
    while frame.more:
        if len(frames) >= most:
            raise _too_many(socket, most)
        is_copied = is_copied and bool(frames[-1])
        frame = receive_frame(_NOBLOCK, False)
        frames.append(frame.bytes if is_copied else frame)
    return frames


def receive_request(socket, note=None):
    """As receive_uncopied(), for a service: its receiver has added frames."""
    return receive_uncopied(socket, note, _MOST_FRAMES)


def forward(socket, frames):
    """Send a multipart of receive_uncopied() on; like send()."""
    last = len(frames) - 1
    for frame in frames[:last]:
        # A short frame is copied faster than it is shared.
        _send_frame(socket, frame, _NOBLOCK_MORE, isinstance(frame, bytes))
    _send_frame(socket, frames[last], _NOBLOCK, False)


def events(socket):
    """POLLIN and POLLOUT, as ZMQ_EVENTS has them."""
    return socket.get(_EVENTS)


def reachable(endpoints):
    """The first endpoint that this process can use: IPC where its file is
    on this machine and its user may connect, else TCP; None when there is
    none.
    """
    for endpoint in endpoints:
        if (not endpoint.startswith('ipc://')
                or os.access(endpoint[6:], os.W_OK)):
            return endpoint
    return None


def bound_port(socket):
    """The TCP port to which a socket was bound last, or None."""
    endpoint = socket.get(zmq.LAST_ENDPOINT).rstrip(b'\0').decode()
    is_tcp = endpoint.startswith('tcp://')
    return int(endpoint.rpartition(':')[2]) if is_tcp else None


def is_there(endpoint):
    """False when an IPC endpoint has no file on this machine."""
    return not endpoint.startswith('ipc://') or os.path.exists(endpoint[6:])


def is_closing(endpoint, heard_at):
    """Whether the service of an endpoint is closing, so that what is sent to
    it now may be lost: libzmq notices the end of a connection too late.

    :param heard_at: monotonic seconds of its last sign of life
    """
    return (time.monotonic() - heard_at > FRESH
            and endpoint.startswith('ipc://')
            and os.path.exists(closing_marker(endpoint[6:])))


def closing_marker(path):
    """The name that the file of a Unix socket gets when its owner closes."""
    return path.removesuffix('.sock') + _CLOSING


def missing(endpoints):
    """The IPC endpoint among these whose file is not there, or None. Its
    service may be about to make the file anew.
    """
    return next((endpoint for endpoint in endpoints
                 if not is_there(endpoint)), None)


def is_gone(endpoint):
    """Whether the service of an endpoint has ended, known for certain: a
    missing file alone says nothing, unless the service said that it closes.
    """
    if is_there(endpoint):
        return is_dead(endpoint)
    return os.path.exists(closing_marker(endpoint[6:]))


def is_dead(endpoint):
    """Whether nobody listens on an endpoint now, known for certain: libzmq
    says nothing about it and tries for ever. False for TCP, where a host that
    is down gives no answer either way.
    """
    if not endpoint.startswith('ipc://'):
        return False
    try:
        with system_socket.socket(system_socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(endpoint[6:])
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except OSError:
        pass    # busy, not ours to judge, or no descriptor left
    return False
