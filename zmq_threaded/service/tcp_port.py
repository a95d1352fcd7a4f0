# SPDX-License-Identifier: Apache-2.0
"""The TCP port of a service, which is bound anew when it was lost."""

import functools
from typing import Any

from zmq_threaded import logs
from zmq_threaded import options
from zmq_threaded.net import binding
from zmq_threaded.security import keys
from zmq_threaded.service import router

LOG = logs.get(__name__)


class TcpPort:
    """The port to which the ROUTER of a service is bound, if it is to any.

    :param owner: who listens there, for the log
    :param port: 0 for none
    :param pair: security.keys.Pair of an encrypted port, None for an open one

    Thread: any for doubt(), poller for tick().
    """

    def __init__(self, settings: options.Settings, port: int,
                 pair: keys.Pair | None, owner: str) -> None:
        self._listen_again: Any = functools.partial(
            binding.listen_again, settings=settings, port=port,
            pair=pair)
        self._owner = owner
        self._is_doubted = False

    def doubt(self) -> None:
        """Nobody could connect to it: it is bound anew soon, unless it still
        is bound.
        """
        self._is_doubted = True

    def tick(self, shared: router.SharedRouter) -> None:
        """To be called about once a second."""
        if not self._is_doubted:
            return
        self._is_doubted = False
        try:
            if shared.maintain(self._listen_again):
                LOG.warning('The TCP port of %s was lost, and is bound anew',
                            self._owner)
        except binding.FAILURES as error:
            LOG.warning('The TCP port of %s was lost, and cannot be bound '
                        'anew: %s', self._owner, error)
