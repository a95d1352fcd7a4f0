# SPDX-License-Identifier: Apache-2.0
"""Looks at the cloud from this machine: at the files of the node, and once
at the registry.
"""

import queue
import time
from collections.abc import Callable
from typing import Any

from zmq_threaded import ipc_directory
from zmq_threaded import options
from zmq_threaded import threads
from zmq_threaded.registry import engines
from zmq_threaded.registry import shared_facts
from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import fact_files

# A topic of which there is nothing, for a question that costs next to nothing.
_SMALL = 'zmq_threaded.ping'


class Look:
    """Looks at the cloud, as often as it is asked.

    :param settings: options.Settings
    :param limit: seconds to wait for the registry
    :raises: options.InvalidOption

    Thread: any, one at a time.
    """

    def __init__(self, settings: options.Settings, limit: float) -> None:
        self.ipc_dir = ipc_directory.find(settings)
        self._limit = limit
        self._store = engines.opened(settings, self.ipc_dir)

    def look(self) -> clouds.Cloud:
        """The cloud as it is now."""
        local = list(fact_files.read(self.ipc_dir))
        everything, trouble = self._ask(self._store.read_all)
        cloud = clouds.put_together(
            self._store.place, local,
            everything or shared_facts.Everything())
        cloud.trouble = trouble
        if not trouble:
            began = time.monotonic()
            _, cloud.trouble = self._ask(lambda: self._store.lookup(_SMALL))
            if not cloud.trouble:
                cloud.milliseconds = 1000 * (time.monotonic() - began)
        return cloud

    def close(self) -> None:
        """End the connection to the registry."""
        self._store.hurry()
        threads.started(self._store.close, threads.REGISTRY).join(1.0)

    def _ask(self, question: Callable[[], Any]) -> tuple[Any, str]:
        """(answer, why there is none)."""
        answers: queue.SimpleQueue = queue.SimpleQueue()

        def ask():
            try:
                answers.put((question(), ''))
            except Exception as error:
                answers.put((None, self._store.explain(error)))
        threads.started(ask, threads.REGISTRY)
        try:
            return answers.get(timeout=self._limit)
        except queue.Empty:
            self._store.hurry()
            return None, (f'{self._store.place}: no answer within '
                          f'{self._limit:.1f} s')
