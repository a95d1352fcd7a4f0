# SPDX-License-Identifier: Apache-2.0
"""Looks at the cloud from this machine: at the files of the node, and once
at the registry.
"""

import time
from collections.abc import Callable
from typing import Any

from zmq_threaded import ipc_directory
from zmq_threaded import options
from zmq_threaded import threads
from zmq_threaded.registry import asking
from zmq_threaded.registry import engines
from zmq_threaded.registry import shared_facts
from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import fact_files
from zmq_threaded.status import problem

# A topic of which there is nothing, for a question that costs next to nothing.
_SMALL = 'zmq_threaded.ping'
# Seconds between two looks at those of whom nobody knows whether they go on,
# and for which one who has just come may be known in part.
_AGAIN, _JUST_COME = 1.0, 2.0


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

    def look_twice(self) -> clouds.Cloud:
        """As look(); again after a while if one look leaves open whether a
        clock is wrong or a process hangs, or whether a service has just come.
        """
        first = cloud = self.look()
        deadline = time.monotonic() + max(
            [_JUST_COME * bool(problem.older_instances(cloud)),
             *(problem.limit(each) for each in _open(first, cloud))])
        while ((_open(first, cloud) or problem.older_instances(cloud))
               and not cloud.trouble and time.monotonic() < deadline):
            time.sleep(_AGAIN)
            cloud = self.look()
        _conclude(first, cloud)
        return cloud

    def close(self) -> None:
        """End the connection to the registry."""
        self._store.hurry()
        threads.started(self._store.close, threads.REGISTRY).join(1.0)

    def _ask(self, question: Callable[[], Any]) -> tuple[Any, str]:
        return asking.ask(self._store, question, self._limit)


def _open(first: clouds.Cloud, now: clouds.Cloud) -> list[clouds.Process]:
    """Those who look late by a clock that may be wrong, and have not been
    seen to go on.
    """
    before = {each.facts['id']: each.facts['seq'] for each in first.processes}
    return [each for each in now.processes
            if not each.is_sure and not each.is_gone()
            and problem.is_late(each)
            and before.get(each.facts['id']) == each.facts['seq']]


def _conclude(first: clouds.Cloud, now: clouds.Cloud) -> None:
    hangs = {each.facts['id'] for each in _open(first, now)}
    for each in now.processes:
        if each.is_sure or each.is_gone():
            continue
        if each.facts['id'] in hangs:
            each.is_sure = True
            continue
        off = each.facts['at'] - time.time()
        if off > 0 or problem.is_late(each):
            # It goes on: its clock is wrong, and not its age.
            each.clock_seen = off
            each.age = 0.0
