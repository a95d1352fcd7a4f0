# SPDX-License-Identifier: Apache-2.0
"""What one driver finds out about its services and about where it sends."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

from zmq_threaded import counters as counting
from zmq_threaded import options
from zmq_threaded.client import outbox as outboxes
from zmq_threaded.health import self_check
from zmq_threaded.health import sender_check
from zmq_threaded.net import descriptors
from zmq_threaded.registry import registry as registries
from zmq_threaded.status import findings


class Checks:
    """The checks of one driver in one process; see self_check.SelfCheck and
    sender_check.SenderCheck for the parameters.

    Thread: any; registry for turn().
    """

    def __init__(self, services: Callable[[], Iterable[Any]],
                 socket_factory: Any, registry: registries.Registry,
                 outbox: outboxes.Outbox, found: findings.Findings,
                 settings: options.Settings, counters: counting.Counters,
                 local: Callable[[], tuple[bool, str]]) -> None:
        self._services = services
        self._of_sender = sender_check.SenderCheck(registry.cache, outbox,
                                                   found)
        self._of_services = self_check.SelfCheck(
            services, socket_factory, registry, outbox.turned_at, found,
            settings, counters, local)
        self.stop = self._of_services.stop
        self.join = self._of_services.join

    def turn(self) -> None:
        """To be called about once a second; waits for nothing."""
        self._of_sender.turn()
        if self._services():
            with contextlib.suppress(descriptors.Short):
                self._of_services.start()       # else it is tried again

    def deaf(self) -> int:
        """How many services others cannot use."""
        return self._of_services.deaf
