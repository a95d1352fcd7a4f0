# SPDX-License-Identifier: Apache-2.0
"""The backends of a receiver: one for each service of its node."""

import os
import select
from collections.abc import Iterable
from collections.abc import Iterator

from zmq_threaded import counters as counts
from zmq_threaded import endpoints
from zmq_threaded import logs
from zmq_threaded import sockets
from zmq_threaded.receiver import address
from zmq_threaded.receiver import backend

LOG = logs.get(__name__)

# A message for so many instances at the most has each of them looked for; of
# more instances only those that are here.
_MANY = 64


class Backends:
    """Opens a backend when a message is for its service, and finds the
    backends that have something to read.

    :param socket_factory: sockets.Sockets
    :param ipc_dir: directory of the Unix sockets of the services
    :param epoll: select.epoll on which the receiver waits

    Thread: receiver.
    """

    def __init__(self, socket_factory: sockets.Sockets, ipc_dir: str,
                 epoll: 'select.epoll', counters: counts.Counters) -> None:
        self._sockets = socket_factory
        self._ipc_dir = ipc_dir
        self._epoll = epoll
        self._counters = counters
        self._by_id: dict[bytes, backend.Backend] = {}
        self._by_fd: dict[int, backend.Backend] = {}

    def __iter__(self) -> Iterator[tuple[bytes, backend.Backend]]:
        """Yield the id of each service, and its backend; some may be removed
        meanwhile.
        """
        return iter(list(self._by_id.items()))

    def all(self) -> list[backend.Backend]:
        return list(self._by_id.values())

    def ready(self, events: Iterable[tuple[int, int]]
              ) -> list[backend.Backend]:
        """The backends of which epoll reports something.

        :param events: list of (fd, event mask)
        """
        return [self._by_fd[fd] for fd, _ in events if fd in self._by_fd]

    def here(self, instances: list[bytes]) -> list[bytes]:
        """Of many instances those that are on this node. The others are not
        refused one by one, which would take too long: a sender that asks for
        them is told.
        """
        if len(instances) <= _MANY:
            return instances
        try:
            here = address.listed(self._ipc_dir) | self._by_id.keys()
        except OSError:
            return instances
        return [each for each in instances if each in here]

    def to(self, instance_id: bytes) -> backend.Backend | None:
        """The backend of a service, opened if need be; None when the service
        is not here.

        :raises: descriptors.Short
        """
        return self._by_id.get(instance_id) or self._open(instance_id)

    def _open(self, instance_id: bytes) -> backend.Backend | None:
        path = address.service_path(self._ipc_dir, instance_id)
        if not os.path.exists(path) or endpoints.is_dead(f'ipc://{path}'):
            return None
        try:
            opened = backend.Backend(self._sockets, path, self._counters)
        except endpoints.BadEndpoint as error:
            LOG.warning('The service %s cannot be reached, and messages for '
                        'it are refused: %s', instance_id.hex(), error)
            return None
        self._by_id[instance_id] = self._by_fd[opened.fd] = opened
        self._epoll.register(opened.fd, select.EPOLLIN)
        LOG.debug('Service %s is there', instance_id.hex())
        return opened

    def remove(self, instance_id: bytes) -> None:
        """Forget the backend of a service that is gone. The caller closes
        the backend.
        """
        removed = self._by_id.pop(instance_id)
        del self._by_fd[removed.fd]
        self._epoll.unregister(removed.fd)
        LOG.debug('Service %s is gone', instance_id.hex())
