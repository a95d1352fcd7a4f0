# SPDX-License-Identifier: Apache-2.0
"""A peer that speaks ZMTP 3.0 by hand, and so may say what libzmq never does.
"""

import socket

_GREETING = (b'\xff' + bytes(8) + b'\x7f' + b'\x03\x00' + b'NULL' + bytes(16)
             + b'\x00' + bytes(31))
_MORE, _LONG, _COMMAND = 1, 2, 4


def pack(body, more=False, command=False):
    """One frame."""
    flags = _MORE * more | _COMMAND * command
    if len(body) > 255:
        return bytes((flags | _LONG,)) + len(body).to_bytes(8, 'big') + body
    return bytes((flags, len(body))) + body


def multipart(*frames):
    *first, last = frames
    return b''.join(pack(frame, True) for frame in first) + pack(last)


class RawPeer:
    """A DEALER on a plain socket, connected.

    :param where: path of a Unix socket, or (host, port)
    :param own: socket that is not connected yet; by default a new one
    """

    def __init__(self, where, identity=b'', timeout=10, own=None):
        is_path = isinstance(where, str)
        self.socket = own or socket.socket(socket.AF_UNIX if is_path
                                           else socket.AF_INET)
        self.socket.settimeout(timeout)
        self.socket.connect(where)
        self.seen = b''
        self._read_to = 0
        self.socket.sendall(_GREETING)
        self._read(64)
        ready = b'\x05READY'
        for name, value in ((b'Socket-Type', b'DEALER'),
                            (b'Identity', identity)):
            ready += (bytes((len(name),)) + name
                      + len(value).to_bytes(4, 'big') + value)
        self.socket.sendall(pack(ready, command=True))
        self._frame()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, *frames):
        self.socket.sendall(multipart(*frames))

    def flood(self, data, enough):
        """Send the same again and again, until enough() or the peer closes.

        :returns: how many bytes went
        """
        sent = 0
        self.socket.settimeout(0.2)
        while not enough():
            try:
                sent += self.socket.send(data)
            except TimeoutError:
                pass
            except OSError:
                break
        return sent

    def receive(self):
        """:returns: list of frames of the next multipart"""
        frames = []
        while True:
            flags, body = self._frame()
            if flags & _COMMAND:
                continue
            frames.append(body)
            if not flags & _MORE:
                return frames

    def _frame(self):
        flags = self._read(1)[0]
        size = int.from_bytes(self._read(8 if flags & _LONG else 1), 'big')
        return flags, self._read(size)

    def _read(self, count):
        while len(self.seen) - self._read_to < count:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.seen += data
        self._read_to += count
        return self.seen[self._read_to - count:self._read_to]
