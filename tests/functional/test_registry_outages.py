# SPDX-License-Identifier: Apache-2.0
"""What parties that know each other notice of a registry that fails: nothing.

Each engine has its real server. With ZMQ_LONG_OUTAGES=1 the outages last for
30 seconds, with the default settings; else all is ten times as quick.
"""

import contextlib
import gc
import itertools
import logging
import os
import threading
import time

import pytest

from tests.support import forks
from tests.support import leaks
from tests.support import servers
from tests.support import soaks
from tests.support import waiting
from zmq_threaded import counters
from zmq_threaded import errors
from zmq_threaded import topic as topics
from zmq_threaded.registry import record
from zmq_threaded.registry import registry as registries

LONG = bool(os.environ.get('ZMQ_LONG_OUTAGES'))
OUTAGE, EXPIRE, UPDATE = (30, 30, 10) if LONG else (4, 3, 1)
# Seconds by which what these settings say may be late: the clients of the
# engines have pauses of their own, and the machine has other things to do.
LATE = 20
HOWS = ['pause', 'kill', 'empty']
_numbers = itertools.count()


@pytest.fixture(scope='module', params=servers.parallel(servers.DISTRIBUTED))
def engine(request):
    with servers.open_engine(request.param) as opened:
        yield opened


@pytest.fixture
def topic():
    """One that no other test has."""
    return topics.rpc('exchange', f'topic{next(_numbers)}')


class World:
    """Services and clients, each as in a process of its own."""

    def __init__(self, engine):
        self._engine = engine
        self._opened = []

    def client(self, expire=EXPIRE):
        made = registries.Registry(
            self._engine.store(expire), UPDATE, expire,
            counters.Counters(), f'zmq-registry-{next(_numbers)}')
        self._opened.append(made)
        return made

    def service(self, *listened, expire=EXPIRE):
        """A Registry that lists an instance, its .instance."""
        made = self.client(expire)
        made.instance = record.Instance(
            os.urandom(16), (f'tcp://node-{next(_numbers)}:1',))
        made.register(made.instance, listened)
        return made

    def close(self, *those):
        for each in those or self._opened:
            each.stop()
        for each in those or self._opened:
            assert each.join(time.monotonic() + 30)


@pytest.fixture
def world(engine):
    with contextlib.ExitStack() as stack:
        stack.callback(engine.ensure_running)
        stack.enter_context(servers.no_client_left())
        made = World(engine)
        stack.callback(made.close)
        yield made


def knowing(world, topic, *instances):
    """A client that knows these instances of the topic."""
    client = world.client()
    client.resolve(topic, time.monotonic() + 30)
    look(client, topic)
    assert ids(client.cache.listed(topic)) == ids(instances)
    return client


def look(client, topic):
    """A fresh look-up; whether the registry answered."""
    answers = []
    client.ask(topic, answers.append)
    waiting.until(lambda: answers, 20)
    return answers[0]


def listed_now(client, topic):
    """What the registry says, to a client that knew nothing."""
    assert look(client, topic)
    return client.cache.listed(topic)


def ids(instances):
    return {each.id for each in instances}


def out_of_order(engine, how):
    return servers.out_of_order(engine, how, OUTAGE)


class Caller:
    """A thread that chooses all the time, as senders do."""

    def __init__(self, client, topic, known):
        self._client, self._topic, self._known = client, topic, ids(known)
        self._ended = threading.Event()
        self.troubles = []
        self._pulse = 0
        self._threads = [threading.Thread(target=each)
                         for each in (self._run, self._live)]
        for thread in self._threads:
            thread.start()

    def _live(self):
        while not self._ended.wait(0.01):
            self._pulse += 1

    def _run(self):
        while not self._ended.wait(0.01):
            began, pulse = time.monotonic(), self._pulse
            chosen = self._client.cache.choose(self._topic)
            listed = ids(self._client.cache.listed(self._topic))
            seconds = time.monotonic() - began
            # A process that stood still had no pulse.
            is_late = seconds > 0.5 and self._pulse > pulse + 10
            if chosen is None or is_late:
                self.troubles.append((chosen, seconds))
            if not self._known <= listed:
                self.troubles.append(self._known - listed)

    def end(self):
        self._ended.set()
        for thread in self._threads:
            thread.join()
        assert not self.troubles, self.troubles[:5]


@pytest.mark.parametrize('engine, how', soaks.pairs(
    servers.parallel(servers.DISTRIBUTED), HOWS), indirect=['engine'])
def test_outage(engine, world, topic, how):
    _outage(engine, world, topic, how)


@pytest.mark.parametrize('engine', servers.parallel(servers.WITH_FAIL_OVER),
                         indirect=True)
def test_fail_over(engine, world, topic):
    _outage(engine, world, topic, 'fail_over')
    engine.restore()


def _outage(engine, world, topic, how):
    services = [world.service(topic) for _ in range(2)]
    with servers.service_process(engine, topic.key, EXPIRE) as doomed:
        known = [service.instance for service in services]
        client = knowing(world, topic, *known,
                         record.Instance(doomed.instance_id, ('x',)))
        caller = Caller(client, topic, known)
        with out_of_order(engine, how):
            doomed.kill()
            client.cache.unreachable(record.Instance(doomed.instance_id,
                                                   ('x',)))
            late = world.service(topic)
        back = time.monotonic()
        waiting.until(lambda: late.instance in client.cache.live(topic),
                      UPDATE + LATE)
        found = time.monotonic() - back
        waiting.until(lambda: doomed.instance_id not in
                      ids(client.cache.listed(topic)), 2 * EXPIRE + LATE)
        gone = time.monotonic() - back
    # And all stay, now that nothing is doubted any more.
    time.sleep(EXPIRE + UPDATE if not LONG else 0)
    caller.end()
    assert ids(listed_now(world.client(), topic)) == ids(
        [*known, late.instance])
    print(f'{engine.name}, {how}: new one found after {found:.1f} s, killed '
          f'one gone after {gone:.1f} s')


def test_nothing_but_the_registry_thread_waits_for_an_engine_that_hangs(
        engine, world, topic):
    service = world.service(topic)
    client = knowing(world, topic, service.instance)
    with out_of_order(engine, 'pause'):
        look(client, topic)
        assert client.cache.choose(topic) == service.instance
        unknown = topics.rpc('exchange', 'nobody')
        assert took(resolving(client, unknown, 0.5)) < 15
        assert took(resolving(client, unknown, 2, attempts=3)) < 15
        child = forks.Forked(lambda: 'forked')
        assert child.result(30) == 'forked'
        assert took(lambda: service.unregister(service.instance)) < 15
        assert took(lambda: world.close(service)) < 20


def resolving(client, topic, seconds, attempts=None, used_up=False):
    def resolve():
        with pytest.raises(errors.Nobody) as nobody:
            client.resolve(topic, time.monotonic() + seconds, attempts)
        assert nobody.value.attempts_used_up == used_up
    return resolve


def took(operation):
    began = time.monotonic()
    operation()
    return time.monotonic() - began


def test_service_that_stopped_while_the_engine_hung_is_taken_off_later(
        engine, world, topic):
    service = world.service(topic)
    with out_of_order(engine, 'pause'):
        service.unregister(service.instance)
    # Its process lives, and so does its connection.
    client = world.client()
    waiting.until(lambda: not listed_now(client, topic), EXPIRE + LATE)


def test_services_and_clients_start_while_the_engine_is_down(
        engine, world, topic):
    engine.kill()
    service, client = world.service(topic), world.client()
    with pytest.raises(errors.Nobody):
        client.resolve(topic, time.monotonic() + 1)
    engine.start()
    assert client.resolve(topic, time.monotonic() + UPDATE + LATE) == (
        service.instance)


def test_all_stopped_and_started_again(engine, world, topic):
    service = world.service(topic)
    client = knowing(world, topic, service.instance)
    for _ in range(2):
        old = service.instance
        service.unregister(old)
        client.cache.avoid(old, for_ever=True)     # as its NACK says
        look(client, topic)
        assert client.cache.choose(topic) is None
        assert client.cache.listed(topic) == ()
        resolving(client, topic, 60, attempts=1, used_up=True)()
        service = world.service(topic)
        assert client.resolve(topic,
                              time.monotonic() + 20) == service.instance


def test_service_that_stopped_in_peace_is_gone_at_once(engine, world, topic):
    stays, goes = world.service(topic), world.service(topic)
    client = knowing(world, topic, stays.instance, goes.instance)
    goes.unregister(goes.instance)
    look(client, topic)
    assert client.cache.listed(topic) == (stays.instance,)
    stays.unregister(stays.instance)
    look(client, topic)
    assert client.cache.listed(topic) == ()


def test_rolling_restart_leaves_exactly_the_live_ones(engine, world, topic):
    services = [world.service(topic) for _ in range(5)]
    client = knowing(world, topic, *(each.instance for each in services))
    gc.collect()
    descriptors, threads = leaks.descriptors(), threading.active_count()
    for _ in range(20):
        for number, service in enumerate(services):
            service.unregister(service.instance)
            world.close(service)
            services[number] = world.service(topic)
            assert client.cache.choose(topic)
    live = ids(service.instance for service in services)
    fresh = world.client()
    assert ids(listed_now(fresh, topic)) == live
    world.close(fresh)
    waiting.until(lambda: ids(client.cache.listed(topic)) == live,
                  2 * EXPIRE + LATE)
    gc.collect()
    waiting.until(lambda: leaks.descriptors() <= descriptors
                  and threading.active_count() <= threads)


def test_records_are_renewed_though_dozens_of_topics_are_waited_for(
        engine, world, topic):
    service = world.service(topic)
    others = [topics.rpc('exchange', f'nobody{number}')
              for number in range(60)]
    waiters = [threading.Thread(target=resolving(service, other, OUTAGE + 3))
               for other in others]
    with out_of_order(engine, 'pause'):
        for waiter in waiters:
            waiter.start()
    waiting.until(lambda: world_sees(world, topic, service), UPDATE + LATE)
    for waiter in waiters:
        waiter.join()


def world_sees(world, topic, service):
    client = world.client()
    try:
        return service.instance in listed_now(client, topic)
    finally:
        client.stop()


def test_an_outage_does_not_flood_the_log(engine, world, topic, caplog):
    service = world.service(topic)
    client = knowing(world, topic, service.instance)
    caplog.clear()
    caplog.set_level(logging.INFO)
    with out_of_order(engine, 'kill'):
        until = time.monotonic() + OUTAGE
        while time.monotonic() < until:
            look(client, topic)
    waiting.until(lambda: look(client, topic), UPDATE + LATE)
    lines = [record for record in caplog.records
             if record.levelno >= logging.WARNING]
    assert 1 <= len(lines) <= 10, [line.getMessage() for line in lines]
    waiting.until(lambda: 'The registry answers again' in caplog.text)


def test_topic_that_lay_idle_is_looked_at_when_it_is_used_again(
        engine, world, topic):
    service = world.service(topic)
    client = knowing(world, topic, service.instance)
    entry, = client.cache.entries()
    entry.idle_refreshes = 10
    another = world.service(topic)
    time.sleep(2 * UPDATE)
    assert client.cache.entries() == [entry]
    assert entry.listed == (service.instance,)
    client.cache.choose(topic)
    waiting.until(lambda: another.instance in entry.live, LATE)
