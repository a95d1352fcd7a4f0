# SPDX-License-Identifier: Apache-2.0
"""What one driver does when keys have come, gone or changed."""

import threading
import weakref
from collections.abc import Callable

from zmq_threaded import options
from zmq_threaded.registry import registry as registries
from zmq_threaded.security import access as accesses
from zmq_threaded.service import service as services
from zmq_threaded.service import succession as successions

_Tell = Callable[[services.Service], object]


class KeyFollower:
    """Judges the records anew when other keys are trusted, and has services
    followed by others when the key of this process is a new one.

    :param access: what is asked for the keys of this moment

    Thread: registry for follow(), any for the rest.
    """

    def __init__(self, access: accesses.Access, registry: registries.Registry,
                 settings: options.Settings) -> None:
        self._access = access
        self._registry = registry
        self._update = settings.update
        self._binds_ports = (settings.topology, settings.transport) == (
            'direct', 'tcp')
        self._judged_at = access.version
        # Reentrant for the sake of signal handlers.
        self._lock = threading.RLock()
        self._successions: weakref.WeakSet[successions.Succession] = (
            weakref.WeakSet())

    def succession(self, make: Callable[[], services.Service], stopped: _Tell,
                   forget: _Tell) -> successions.Succession:
        """A service that will be followed by others; see Succession.

        :raises: binding.BindError
        """
        made = successions.Succession(make, stopped, forget, self._update)
        with self._lock:
            self._successions.add(made)
        return made

    def follow(self) -> None:
        """To be called about once a second."""
        if self._judged_at != self._access.version:
            self._judged_at = self._access.version
            self._registry.cache.judge_anew()
        if self._binds_ports:
            pair = self._access.pair_to_bind()
            for each in self._all():
                each.follow(pair)

    def stop(self) -> None:
        """All services are about to close."""
        for each in self._all():
            each.stop()

    def _all(self) -> list[successions.Succession]:
        # Another thread may be adding one.
        with self._lock:
            return list(self._successions)
