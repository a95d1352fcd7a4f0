# SPDX-License-Identifier: Apache-2.0
"""A server written by hand, a ROUTER and no more, that answers as a test
says; listed in the real registry.
"""

import contextlib
import dataclasses
import os
import queue
import threading
import time

import zmq

from zmq_threaded import counters
from zmq_threaded import endpoints
from zmq_threaded import payload
from zmq_threaded import topic
from zmq_threaded import wire
from zmq_threaded.receiver import address
from zmq_threaded.registry import engines
from zmq_threaded.registry import record
from zmq_threaded.registry import registry as registries

TOPIC = topic.rpc('openstack', 'topic')
_LIMIT = 20


@dataclasses.dataclass
class Request:
    """A call, and how to answer it.

    :ivar envelope: of a DEALER one frame and the empty one, of a REQ with
        its request id another, of a receiver another
    """

    server: object
    envelope: list
    message: object

    @property
    def argument(self):
        return payload.load(self.message.body[1],
                            self.message.flags)['args']['value']

    def result(self, value, flags=0):
        body, encoding = payload.dump((value,), 'json')
        self.send(wire.REPLY, body, encoding | flags)

    def ending(self):
        self.send(wire.REPLY, (wire.NO_RESULT,), wire.ENDING)

    def send(self, kind, body=(), flags=0, major=wire.MAJOR):
        frame = bytearray(wire.encode(kind, self.server.instance.id,
                                      self.message.id, body, flags))
        frame[4] = major
        self.server.socket.send_multipart([*self.envelope, bytes(frame)])


class OldServer:
    """One instance of TOPIC.

    :param script: called with each Request, by the thread of the server
    :param two_messages: what its record says
    :param settings: of the node, if it is behind a receiver
    :ivar requests: all so far
    :ivar gate: for scripts to wait for and tests to set
    """

    def __init__(self, ipc_dir, script, two_messages=True, settings=None):
        self._script = script
        self.requests, self.errors = [], []
        self.gate = threading.Event()
        instance_id = os.urandom(wire.ID_SIZE)
        self._path = address.service_path(ipc_dir, instance_id)
        endpoints = ((f'ipc://{self._path}',) if settings is None else
                     address.receiver_endpoints(settings, ipc_dir))
        self.instance = record.Instance(
            instance_id, endpoints, '', settings is not None, two_messages)
        self._registry = registries.Registry(
            engines.embedded(ipc_dir, 30), 10, 30, counters.Counters(),
            'zmq-old-registry')
        self._asked = queue.SimpleQueue()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.bind(f'ipc://{self._path}')
        self._thread.start()
        self._registry.register(self.instance, [TOPIC])
        return self

    def __exit__(self, *exc_info):
        self._registry.unregister(self.instance)
        self._registry.stop()
        self._registry.join(time.monotonic() + _LIMIT)
        self.gate.set()
        self._ending.set()
        self._thread.join(_LIMIT)
        self.socket.close(linger=0)
        self._context.term()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(endpoints.closing_marker(self._path))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        assert not self.errors, self.errors

    def ask(self, answer, *args):
        """Have the server's thread, the only one that may use its socket,
        answer now.
        """
        self._asked.put((answer, args))

    def hide(self):
        """Say that it closes, by the name of its file, and stay connected.

        :returns: when, in monotonic seconds
        """
        os.rename(self._path, endpoints.closing_marker(self._path))
        return time.monotonic()

    def _run(self):
        try:
            while not self._ending.is_set():
                if self.socket.poll(50):
                    self._on_frames(self.socket.recv_multipart())
                while not self._asked.empty():
                    answer, args = self._asked.get()
                    answer(*args)
        except Exception as error:
            self.errors.append(error)

    def _on_frames(self, frames):
        envelope, frame = wire.split_envelope(frames)
        request = Request(self, envelope, wire.decode(frame))
        if request.message.kind == wire.QUERY:
            ids = request.message.body[0]
            return request.send(wire.STATUS, (ids, bytes((
                wire.KNOWN,)) * (len(ids) // wire.ID_SIZE)))
        self.requests.append(request)
        self._script(request)
