# SPDX-License-Identifier: Apache-2.0
"""Who comes to the embedded registry is found at once, and so is who goes."""

import contextlib
import os
import shutil
import statistics
import time

import pytest

from tests.support import waiting
from zmq_threaded import counters
from zmq_threaded import topic as topics
from zmq_threaded.registry import engines
from zmq_threaded.registry import look_ups
from zmq_threaded.registry import record
from zmq_threaded.registry import registry as registries

TOPIC = topics.rpc('exchange', 'topic')
EXPIRE, UPDATE = 30, 10
TIMES = 20


@pytest.fixture
def party(ipc_dir, no_leaks):
    """party(): a Registry of its own, as of another process."""
    with contextlib.ExitStack() as stack:
        def make():
            made = registries.Registry(
                engines.embedded(ipc_dir, EXPIRE), UPDATE, EXPIRE,
                counters.Counters(), 'zmq-registry')
            stack.callback(lambda: made.join(time.monotonic() + 10))
            stack.callback(made.stop)
            return made
        yield make


def instance():
    return record.Instance(os.urandom(16), ('tcp://node-1:1',))


@pytest.fixture(autouse=True)
def rare_look_ups(monkeypatch):
    """Without a notice a topic is looked up only after many seconds."""
    monkeypatch.setattr(look_ups, '_FIRST_SPACING', UPDATE)


def patient(client):
    """Have a topic looked up, and wait for the next look-up."""
    looked = []
    client.ask(TOPIC, looked.append)
    waiting.until(lambda: looked)
    client.ask(TOPIC, looked.append, registries.AT_LEISURE)
    return looked


def test_who_comes_is_found_at_once(party):
    client, service = party(), party()
    took = []
    for _ in range(TIMES):
        looked, one = patient(client), instance()
        service.register(one, [TOPIC])
        began = time.monotonic()
        waiting.until(lambda: len(looked) == 2 and one in
                      client.cache.live(TOPIC), 5)
        took.append(time.monotonic() - began)
        service.unregister(one)
        began = time.monotonic()
        waiting.until(lambda: not client.cache.listed(TOPIC), 5)
        took.append(time.monotonic() - began)
    assert statistics.median(took) < 0.3 and max(took) < 1


def test_one_more_of_a_topic_and_one_less(party):
    client, services = party(), [party(), party()]
    first, second = instance(), instance()
    services[0].register(first, [TOPIC])
    waiting.until(lambda: patient(client) and client.cache.live(TOPIC))
    services[1].register(second, [TOPIC])
    waiting.until(lambda: len(client.cache.live(TOPIC)) == 2, 2)
    services[0].unregister(first)
    waiting.until(lambda: client.cache.listed(TOPIC) == (second,), 2)


def test_a_registry_that_was_made_anew_is_watched_again(party, ipc_dir):
    client, service = party(), party()
    patient(client)
    shutil.rmtree(os.path.join(ipc_dir, 'registry'))
    os.makedirs(os.path.join(ipc_dir, 'registry', 'groups'))
    time.sleep(0.3)     # it looks at once, and watches what is there now
    looked, one = patient(client), instance()
    service.register(one, [TOPIC])
    waiting.until(lambda: len(looked) == 2 and one in
                  client.cache.live(TOPIC), 2)


def test_without_notices_it_is_found_as_before(party, monkeypatch):
    from zmq_threaded.net import inotify

    def fails(self):
        raise OSError(24, 'Too many open files')
    monkeypatch.setattr(inotify.Inotify, '__init__', fails)
    client, service, one = party(), party(), instance()
    patient(client)
    service.register(one, [TOPIC])
    assert client.resolve(TOPIC, time.monotonic() + 5) == one
