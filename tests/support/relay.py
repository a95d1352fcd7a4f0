# SPDX-License-Identifier: Apache-2.0
"""A relay in front of a receiver, which sees each multipart that crosses the
network to it, and may hold it up or drop it.
"""

import threading

import zmq

from zmq_threaded import wire

_POLL_MS = 20


class Relay:
    """Passes on what clients send to a port, and what comes back.

    :param to_receiver: given the message of a request; false drops it
    :param to_client: given the message of an answer; false drops it
    :ivar seen: of each request: (kind, ids of its instances)
    """

    def __init__(self, port, target_port, to_receiver=None, to_client=None):
        self.seen = []
        self._may_go = {True: to_receiver, False: to_client}
        self._context = zmq.Context()
        self._front = self._context.socket(zmq.ROUTER)
        self._back = self._context.socket(zmq.DEALER)
        for socket in (self._front, self._back):
            socket.linger = 0
            socket.set(zmq.SNDHWM, 0)
            socket.set(zmq.RCVHWM, 0)
        self._front.bind(f'tcp://127.0.0.1:{port}')
        self._back.connect(f'tcp://127.0.0.1:{target_port}')
        self._ended = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def counted(self, kind):
        return sum(each == kind for each, _ in self.seen)

    def end(self):
        self._ended = True
        self._thread.join()
        self._context.destroy(linger=0)

    def _run(self):
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        poller.register(self._back, zmq.POLLIN)
        while not self._ended:
            for socket, _ in poller.poll(_POLL_MS):
                self._pass_on(socket)

    def _pass_on(self, socket):
        frames = socket.recv_multipart()
        is_request = socket is self._front
        message = frames[frames.index(b'') + 1]
        if is_request:
            kind, _, instances = wire.address(message)
            self.seen.append((kind, instances))
        may_go = self._may_go[is_request]
        if may_go is None or may_go(message):
            other = self._back if is_request else self._front
            other.send_multipart(frames)
