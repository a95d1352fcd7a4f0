# SPDX-License-Identifier: Apache-2.0
"""The options of libzmq that encrypt a connection, or a port (CURVE).

All names in capitals are libzmq options (zmq_setsockopt(3), zmq_curve(7)).
"""

import contextlib
import struct
from collections.abc import Iterator

import zmq

from zmq_threaded.security import keys

# Where libzmq asks who may connect (ZeroMQ RFC 27). The domain of an encrypted
# port, and the one that IPC gets afterwards, for it cannot be taken back.
ZAP_ENDPOINT = 'inproc://zeromq.zap.01'
TCP_DOMAIN, IPC_DOMAIN = b'zmq_threaded.tcp', b'zmq_threaded.ipc'
# How a handshake ended: the other end refused the key, or there was no
# handshake at all.
SUCCEEDED, REFUSED, FAILED = 'succeeded', 'refused', 'failed'
_OUTCOMES = {int(zmq.EVENT_HANDSHAKE_SUCCEEDED): SUCCEEDED,
             int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): REFUSED,
             int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): FAILED,
             int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): FAILED}
_HANDSHAKES = sum(_OUTCOMES)
# Who sent a frame, as the authenticator has said.
USER_ID = 'User-Id'


@contextlib.contextmanager
def encrypted(socket: zmq.Socket, pair: keys.Pair) -> Iterator[None]:
    """What a socket is bound to in this block is encrypted, and only who has
    a trusted key gets in. What was bound before, and will be afterwards, is
    not: libzmq copies the options when it binds.
    """
    _set_pair(socket, pair)
    socket.set(zmq.CURVE_SERVER, 1)
    # Without a domain that is enforced everybody would get in while nobody
    # answers libzmq.
    socket.set(zmq.ZAP_DOMAIN, TCP_DOMAIN)
    socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
    try:
        yield
    finally:
        socket.set(zmq.ZAP_ENFORCE_DOMAIN, 0)
        socket.set(zmq.ZAP_DOMAIN, IPC_DOMAIN)
        socket.set(zmq.CURVE_SERVER, 0)


def use_key(socket: zmq.Socket, pair: keys.Pair, server: bytes) -> None:
    """What a socket connects to from now on has to have this key.

    :param pair: of this process
    :param server: public key, Z85 text
    """
    _set_pair(socket, pair)
    socket.set(zmq.CURVE_SERVERKEY, server)


def _set_pair(socket, pair):
    socket.set(zmq.CURVE_PUBLICKEY, pair.public)
    socket.set(zmq.CURVE_SECRETKEY, pair.secret)


def monitor(socket: zmq.Socket, address: str) -> None:
    """Have libzmq tell how the handshakes of a socket end.

    :param address: an inproc:// endpoint, of a PAIR that is to be read
    """
    socket.monitor(address, _HANDSHAKES)


def stop_monitor(socket: zmq.Socket) -> None:
    """Undo monitor(); before its PAIR is closed."""
    if not socket.closed:
        socket.disable_monitor()


def outcome(event: list[bytes]) -> str:
    """What an event of a monitor means.

    :returns: SUCCEEDED, REFUSED, FAILED, or '' for anything else
    """
    number, = struct.unpack_from('=H', event[0])
    return _OUTCOMES.get(number, '')


def user_of(frame: zmq.Frame) -> bytes:
    """The public key of who sent a frame, b'' if it came without one."""
    try:
        return str(frame.get(USER_ID)).encode()
    except zmq.ZMQError:
        return b''
