# SPDX-License-Identifier: Apache-2.0
"""Collects the facts of one driver in one process."""

import time
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

from zmq_threaded import counters as counting
from zmq_threaded import options
from zmq_threaded import texts
from zmq_threaded import topic as topics
from zmq_threaded.client import outbox as outboxes
from zmq_threaded.receiver import address
from zmq_threaded.registry import registry as registries
from zmq_threaded.registry import store as stores
from zmq_threaded.service import service as services
from zmq_threaded.status import findings
from zmq_threaded.status import meters
from zmq_threaded.status import processes
from zmq_threaded.status import publisher as publishers
from zmq_threaded.status import recent

# Of the keys of topics; the pools of a listener are no topics to people.
_RPC, _POOL = 'rpc:', 'pool:'
_MOST_TOPICS = 20


class Collector:
    """What a driver says of itself: see status.facts.

    :param snapshot: returns the counters and gauges of the driver
    :param listening: the services that listen; it changes
    :param presence: whether the receiver of the node is there
    :ivar found: what is wrong

    Thread: registry.
    """

    def __init__(self, settings: options.Settings, ipc_dir: str,
                 counters: counting.Counters, registry: registries.Registry,
                 outbox: outboxes.Outbox, snapshot: Callable[[], dict],
                 listening: list[services.Service],
                 presence: address.Presence,
                 found: findings.Findings) -> None:
        self._settings = settings
        self._ipc_dir = ipc_dir
        self._sent = counters.sent
        self._registry = registry
        self._pending = Pending(outbox)
        self._snapshot = snapshot
        self._listening, self._presence = listening, presence
        self.found = found
        self._recent = recent.Recent()
        self._of_services: dict[bytes, recent.Recent] = {}

    def ask(self) -> None:
        """Have the other threads say what collect() will need soon."""
        self._pending.ask()

    def state(self) -> object:
        """What people wait for: when it changes, a document is due."""
        return (self._presence.is_there, self._registry.trouble() is None,
                frozenset(each.instance.id for each in list(self._listening)
                          if each.is_registered),
                tuple(each.work.other_half() for each in list(
                    self._listening)),
                frozenset((each.kind, each.subject)
                          for each in self.found.all()))

    def collect(self) -> dict[str, Any]:
        """The document, but for what the publisher adds."""
        now, counts = time.monotonic(), self._snapshot()
        listening = list(self._listening)
        self._of_services = {
            each.instance.id: self._of_services.get(each.instance.id)
            or recent.Recent() for each in listening}
        return {
            'kind': 'runtime',
            'process': processes.configured(
                self._settings, self._ipc_dir,
                counts.get('descriptors_left', 0)),
            'registry': self._of_registry(now),
            'counts': counts, 'minute': self._recent.growth(now, counts),
            'services': [self._service(each, now) for each in listening],
            'sent': [_trips(each) for each in self._sent.all()],
            **self._pending.document(now),
            'stuck_after': self._settings.stuck_after,
            'receiver': self._receiver(bool(listening)),
            'findings': [each.document(now) for each in self.found.all()]}

    def _of_registry(self, now: float) -> dict[str, Any]:
        since, why = self._registry.trouble() or (now, '')
        return {'place': self._registry.place, 'answers': not why,
                'failing': round(now - since, 1),
                'why': texts.line(why, texts.NAME)}

    def _receiver(self, is_listening: bool) -> dict[str, Any]:
        if not is_listening or self._settings.topology != 'receiver':
            return {'expected': False, 'there': False, 'endpoint': ''}
        endpoint = address.receiver_endpoints(self._settings,
                                              self._ipc_dir)[-1]
        return {'expected': True,
                'there': self._presence.is_there is not False,
                'endpoint': endpoint}

    def _service(self, service: services.Service,
                 now: float) -> dict[str, Any]:
        instance, work = service.instance, service.work
        counts = service.counters.snapshot()
        return {
            'id': instance.id.hex(), **_topics(service.topics),
            'server': instance.server, 'pool': instance.pool,
            'endpoints': list(instance.endpoints),
            'listed': service.is_registered,
            'other_half': work.other_half(),
            'up': round(now - service.made_at, 1),
            'workers': service.workers, 'busy': work.busy(),
            'longest': round(work.longest(now), 3), **service.measures(now),
            'waiting': work.waiting.document(),
            'running': work.running.document(), 'counts': counts,
            'minute': self._of_services[instance.id].growth(now, counts)}


def publisher(settings: options.Settings, ipc_dir: str, store: stores.Store,
              counters: counting.Counters, registry: registries.Registry,
              *args: Any) -> publishers.Publisher:
    """What publishes the facts of a driver.

    :param args: the other ones of Collector
    """
    collecting = Collector(settings, ipc_dir, counters, registry, *args)
    return publishers.Publisher(
        ipc_dir, settings.update, collecting.collect, collecting.state,
        collecting.ask, store.tell, lambda: registry.trouble() is None,
        collecting.found)


class Pending:
    """What the outbox holds, as it last said.

    :param outbox: client.outbox.Outbox

    Thread: registry; outbox for the answer.
    """

    def __init__(self, outbox: outboxes.Outbox) -> None:
        self._outbox = outbox
        self._asked_at: float | None = None
        self._answer: list[dict[str, Any]] = []

    def ask(self) -> None:
        """Ask the outbox, unless it has not answered yet."""
        if not (self._outbox.pending()
                or self._outbox.journals.is_adopting()):
            self._asked_at, self._answer = None, []
        elif self._asked_at is None:
            self._asked_at = time.monotonic()
            self._outbox.ask_pending(self._answered)

    def _answered(self, answer: list[dict[str, Any]]) -> None:
        self._answer, self._asked_at = answer, None

    def document(self, now: float) -> dict[str, Any]:
        """See status.facts."""
        asked_at = self._asked_at
        return {'pending': [{**each, 'oldest': round(each['oldest'], 1)}
                            for each in self._answer],
                'unacknowledged': self._outbox.pending(),
                'outbox_silent': 0.0 if asked_at is None
                else round(now - asked_at, 1)}


def _topics(listened: Iterable[topics.Topic]) -> dict[str, Any]:
    named = [topic for topic in listened
             if not topic.server and not topic.key.startswith(_POOL)]
    is_rpc = any(topic.key.startswith(_RPC) for topic in named)
    return {'kind': 'rpc' if is_rpc else 'notify',
            'topics': [[texts.line(topic.exchange, texts.NAME),
                        texts.line(topic.name, texts.NAME)]
                       for topic in named[:_MOST_TOPICS]]}


def _trips(trips: meters.Trips) -> dict[str, Any]:
    return {'exchange': texts.line(trips.exchange, texts.NAME),
            'topic': texts.line(trips.name, texts.NAME),
            'calls': trips.calls.document(), 'casts': trips.casts.document(),
            'failed': trips.failed}
