# SPDX-License-Identifier: Apache-2.0
"""A process finds out, all the time, whether others can reach its services.

A service that is up, says nothing and hears nothing is the worst that an
operator can meet. So the process asks each of its services, by the endpoints
of the record of the service, as a client would; looks whether the threads
turn and the workers finish; and reads who has complained. All services of a
process share one thread, and connections: at one moment one is open.
"""

import collections
import random
import time
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

from zmq_threaded import counters as counting
from zmq_threaded import mailbox
from zmq_threaded import options
from zmq_threaded import threads
from zmq_threaded.health import judgement
from zmq_threaded.health import probe
from zmq_threaded.health import telling
from zmq_threaded.registry import registry as registries
from zmq_threaded.status import findings

# Seconds between two turns; services that are asked in one turn, so that the
# 1,000 services of a process cost it little, and have their turn in two
# minutes.
_TURN, _AT_ONCE = 1.0, 10
# Parts of an update period: until a service is asked first, and again after
# it did not answer. What has lasted for two questions is told.
_FIRST, _AGAIN, _TOLD = 0.25, 0.2, 2
# A turn that is so late: this process stood still, and its threads need a
# moment to go on.
_STOOD_STILL, _MOMENT = 3.0, 5.0
_REGISTRY_TROUBLE = 5.0
_OUTBOX_TURN, _REGISTRY_TURN = 15.0, 30.0

Endpoints = dict[str, tuple[int, probe.Finding]]


class _Asked:
    """What is known of one service by asking.

    :ivar next_at: when it is asked again, in monotonic seconds
    :ivar well_at: when it answered last, at all endpoints
    :ivar failed: of each endpoint at which it did not answer: how often in
        turn, and what came of it last

    Thread: self-check.
    """

    def __init__(self, next_at: float) -> None:
        self.next_at = next_at
        self.well_at = 0.0
        self.failed: Endpoints = {}


class SelfCheck:
    """Finds out whether others can reach the services of one driver.

    :param services: gives the services of this moment
    :param outbox_turned_at: when the outbox thread had its last turn; inf if
        there is none
    :param found: where what is found is kept
    :param local: says what other parts know: (whether the receiver of this
        node is not there, '' or what is wrong with rpc_zmq_host)

    :ivar deaf: how many services others cannot use

    Thread: self-check; any for start(), stop(), join() and deaf.
    """

    def __init__(self, services: Callable[[], Iterable[Any]],
                 socket_factory: Any, registry: registries.Registry,
                 outbox_turned_at: Callable[[], float],
                 found: findings.Findings, settings: options.Settings,
                 counters: counting.Counters,
                 local: Callable[[], tuple[bool, str]]) -> None:
        self._services = services
        self._registry = registry
        self._outbox_turned_at = outbox_turned_at
        self._settings = settings
        self._local = local
        self._telling = telling.Telling(found)
        self._asked: dict[bytes, _Asked] = {}
        # Since when somebody complains, by the endpoints of a service.
        self._complained: dict[tuple[str, ...], float] = {}
        self._turned_at = time.monotonic()
        self._awake_at = 0.0
        self._is_stopping = False
        self.deaf = 0
        self._prober = probe.Prober(socket_factory, lambda: self._is_stopping)
        self._mailbox = mailbox.Mailbox()
        self._loop = threads.Loop(threads.SELF_CHECK, self._turn,
                                  self._mailbox.wake, counters)

    def start(self) -> None:
        """Start the thread, once.

        :raises: descriptors.Short when there is no thread to be had; then it
            may be called again
        """
        self._loop.start()

    def stop(self) -> None:
        """End the thread soon."""
        self._is_stopping = True
        self._loop.stop()

    def join(self, deadline: float) -> bool:
        """Wait for the end of the thread after stop().

        :param deadline: monotonic seconds
        :returns: whether it has ended
        """
        return self._loop.join(deadline)

    def _turn(self):
        self._mailbox.take(_TURN)
        if self._is_stopping:
            return
        self._notice_stall()
        services = {each.instance.id: each for each in self._services()
                    if each.vitals.is_listening()}
        self._keep(services)
        self._ask(services)
        if not self._is_stopping:
            verdicts = self._judge(services)
            self.deaf = judgement.deaf(verdicts)
            self._telling.update(verdicts)
        self._turned_at = time.monotonic()

    def _notice_stall(self):
        now = time.monotonic()
        if now - self._turned_at > _TURN + _STOOD_STILL:
            self._awake_at = now + _MOMENT

    def _keep(self, services):
        for gone in self._asked.keys() - services.keys():
            del self._asked[gone]
        for new in services.keys() - self._asked.keys():
            # Spread, for many may have begun at one time.
            self._asked[new] = _Asked(time.monotonic() + self._part(_FIRST))

    def _part(self, part):
        return self._settings.update * part * random.uniform(0.9, 1.1)

    # Asking

    def _ask(self, services):
        now = time.monotonic()
        due = sorted((asked.next_at, instance_id) for instance_id, asked
                     in self._asked.items() if asked.next_at <= now)
        chosen = [services[each] for _, each in due[:_AT_ONCE]]
        for endpoint, those in _by_endpoint(chosen).items():
            if self._is_stopping:
                return
            found = self._prober.ask(
                endpoint, [each.instance for each in those],
                any(endpoint in self._asked[each.instance.id].failed
                    for each in those))
            for each in those:
                if each.instance.id in found:
                    self._note(each, endpoint, found[each.instance.id])
        for each in chosen:
            self._plan(each)

    def _note(self, service, endpoint, finding):
        failed = self._asked[service.instance.id].failed
        if finding.answer is probe.Answer.UNTRIED:
            return
        if (finding.answer is probe.Answer.HEARD
                or finding.answer is probe.Answer.SILENT
                and service.vitals.is_full()):
            failed.pop(endpoint, None)
            return
        failed[endpoint] = failed.get(endpoint, (0, None))[0] + 1, finding
        if (finding.answer is probe.Answer.UNREACHABLE
                and not service.instance.receiver
                and endpoint.startswith('tcp://')):
            service.port.doubt()

    def _plan(self, service):
        asked, now = self._asked[service.instance.id], time.monotonic()
        asked.next_at = now + self._part(_AGAIN if asked.failed else 1.0)
        if not asked.failed:
            asked.well_at = now

    # Judging

    def _judge(self, services):
        now, settings = time.monotonic(), self._settings
        listening = [each.vitals for each in services.values()]
        verdicts: judgement.Verdicts = {}
        if now >= self._awake_at:
            verdicts.update(judgement.mute_threads(listening, now))
            verdicts.update(judgement.mute_loops(self._loops(), now))
        mute = frozenset().union(*(each.deaf for each in verdicts.values()))
        _, problem = self._local()
        if problem:
            verdicts.update(judgement.wrong_name(settings.host, problem))
        verdicts.update(judgement.unreachable(self._places(services, mute)))
        verdicts.update(judgement.complained_of(
            self._well_though_complained_of(services, now),
            self._registry.hearing.heard))
        verdicts.update(judgement.stuck_workers(listening, now,
                                                settings.stuck_after))
        verdicts.update(self._judge_registry(listening, now))
        return verdicts

    def _well_though_complained_of(self, services, now):
        """Those who have answered since the first complaint about them. Of
        all others another finding says more; they are asked at once.
        """
        heard = self._registry.hearing.heard
        self._complained = {way: self._complained.get(way, now)
                            for way in heard}
        for instance_id, each in services.items():
            since = self._complained.get(each.instance.endpoints)
            asked = self._asked[instance_id]
            if since is None:
                continue
            if since == now:
                asked.next_at = now
            if asked.well_at > since and not asked.failed:
                yield each.vitals

    def _loops(self):
        return [(threads.OUTBOX, self._outbox_turned_at(), _OUTBOX_TURN),
                (threads.REGISTRY, self._registry.turned_at(),
                 _REGISTRY_TURN)]

    def _judge_registry(self, listening, now):
        since, why = self._registry.trouble() or (now, '')
        verdicts = judgement.unlisted(
            listening, self._registry.confirmed_at(), now,
            self._settings.expire, why)
        if now - since > _REGISTRY_TROUBLE:
            verdicts.update(judgement.registry_trouble(
                self._registry.place, since, why, now))
        return verdicts

    def _places(self, services, mute):
        """The endpoints at which services have not answered for long enough;
        of several endpoints of the same services one, for the cause is one.

        :param mute: those of which more is known already
        """
        found: dict[str, list] = collections.defaultdict(list)
        last = {}
        for instance_id, asked in self._asked.items():
            for endpoint, (times, finding) in asked.failed.items():
                silent = finding.answer is probe.Answer.SILENT
                if times >= _TOLD and not (silent and instance_id in mute):
                    found[endpoint].append(services[instance_id].vitals)
                    last[endpoint] = finding
        return {tuple(those): judgement.Place(
            endpoint, last[endpoint], those,
            self._is_told(last[endpoint], those))
            for endpoint, those in found.items()}.values()

    def _is_told(self, finding, those):
        no_receiver, problem = self._local()
        if finding.answer is probe.Answer.UNREACHABLE:
            return no_receiver and those[0].instance.receiver
        return bool(problem) and (
            finding.answer is not probe.Answer.SILENT)


def _by_endpoint(services):
    found = collections.defaultdict(list)
    for each in services:
        for endpoint in each.instance.endpoints:
            # Another part looks at the socket file of the receiver.
            if not each.instance.receiver or endpoint.startswith('tcp://'):
                found[endpoint].append(each)
    return found
