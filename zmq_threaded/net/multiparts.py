# SPDX-License-Identifier: Apache-2.0
"""Multiparts, the messages of ZeroMQ: sending and receiving them.

Each function is called by the thread that owns the socket.
"""

import errno

import zmq

# Frames of a multipart. The envelope of a call through a receiver has four,
# and the message is one; newer versions may add a few. A service gets two more
# than its receiver.
_MOST_FRAMES, _MOST_TO_PASS_ON = 16, 14

# Plain ints: operators on pyzmq's enums cost more than the calls they steer
# (a five-frame recv_multipart() 66 us, receive() 24 us).
POLLIN, POLLOUT = int(zmq.POLLIN), int(zmq.POLLOUT)
_NOBLOCK = int(zmq.NOBLOCK)
_send_frame = zmq.backend.Socket.send
_NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_RCVMORE, _EVENTS = int(zmq.RCVMORE), int(zmq.EVENTS)
_SRCFD = int(zmq.SRCFD)

# What became of a multipart that was sent to a client.
SENT, SLOW, GONE = 'sent', 'slow', 'gone'


class TooManyFrames(Exception):
    """A multipart goes on after all that a message can have; skip() the rest
    of it.

    :ivar fd: descriptor of the connection over which it came
    """

    def __init__(self, limit, fd):
        self.fd = fd
        super().__init__(f'more than {limit} frames')


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

    :param note: called with the first frame as zmq.Frame, and its bytes
    :raises: zmq.Again when there is none, TooManyFrames
    :returns: list of bytes
    """
    # As zmq.Frame, which knows whether another one follows: to ask the socket
    # costs more than the object.
    receive_frame = socket.recv
    frame = receive_frame(flags, False)
    frames = [frame.bytes]
    if note is not None:
        note(frame, frames[0])
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
    # Not copied, for a frame may be big.
    return any(not receive_frame(_NOBLOCK, False).more for _ in range(limit))


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

    :param note: called with the first frame as zmq.Frame, and its bytes
    :param most: frames that a message may have
    :raises: zmq.Again when there is none, TooManyFrames
    :returns: list of bytes through the first empty frame, then zmq.Frame
    """
    receive_frame, is_copied = socket.recv, True
    frame = receive_frame(_NOBLOCK, False)
    frames = [frame.bytes]
    if note is not None:
        note(frame, frames[0])
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


def connection_of(frame):
    """The descriptor of the connection over which a zmq.Frame came."""
    return frame.get(_SRCFD)


def events(socket):
    """POLLIN and POLLOUT, as ZMQ_EVENTS has them."""
    return socket.get(_EVENTS)
