# SPDX-License-Identifier: Apache-2.0
"""A client of a chaos run: calls, casts, fanouts and notifications at once.

Arguments: URL, name of this life, file of the journal, topics. It writes down
what it is about to send and what became of it: what its caller is told, and
what custody decides (an event of each delivery, in the outbox thread). When
its stdin ends it stops sending, waits for what is under way, and ends.
"""

import functools
import itertools
import random
import sys
import threading
import time

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402

from tests.support import chaos_journal  # noqa: E402
from zmq_threaded import payload  # noqa: E402
from zmq_threaded import wire  # noqa: E402
from zmq_threaded.client import custody  # noqa: E402

_CALLERS = 3
_TIMEOUT = 12
_DRAIN_LIMIT = 25
AT_LEAST_ONCE = oslo_messaging.TransportOptions(at_least_once=True)


class Load:
    """The threads that send.

    :param name: begins all tokens of this life
    """

    def __init__(self, url, name, journal, topics):
        self._name, self._journal, self._topics = name, journal, topics
        self._numbers = itertools.count()
        self._over = threading.Event()
        self.rpc = oslo_messaging.get_rpc_transport(cfg.CONF, url)
        self.notes = oslo_messaging.get_notification_transport(cfg.CONF, url)
        self._notifier = oslo_messaging.Notifier(
            self.notes, 'publisher', driver='messagingv2', topics=['notes'],
            retry=-1)
        kinds = [self._call] * _CALLERS + [self._monitored_call, self._cast,
                                           self._confirmed_cast, self._fanout,
                                           self._notify]
        self._threads = [threading.Thread(target=self._run, args=(send,))
                         for send in kinds]

    def start(self):
        for thread in self._threads:
            thread.start()

    def finish(self):
        """Stop sending; returns the threads that did not end."""
        self._over.set()
        for thread in self._threads:
            thread.join(_TIMEOUT + 25)
        return [str(thread) for thread in self._threads if thread.is_alive()]

    def _run(self, send):
        rng = random.Random(f'{self._name} {send.__name__}')
        while not self._over.is_set():
            self._send(send, rng)

    def _send(self, send, rng):
        token = f'{self._name}-{next(self._numbers)}'
        kind = send.__name__.strip('_')
        topic = 'notes' if kind == 'notify' else rng.choice(self._topics)
        self._journal.write('sending', token=token, kind=kind, topic=topic)
        try:
            send(rng, topic, token)
        except Exception as error:
            self._journal.write('raised', token=token, text=str(error),
                                error=type(error).__name__)
        else:
            self._journal.write('returned', token=token)

    def _client(self, topic, **kwargs):
        return oslo_messaging.get_rpc_client(
            self.rpc, oslo_messaging.Target(topic=topic), timeout=_TIMEOUT,
            **kwargs)

    # The kinds

    def _call(self, rng, topic, token):
        seconds = 2.5 if rng.random() < 0.03 else rng.uniform(0, 0.06)
        assert self._client(topic).call({}, 'run', token=token,
                                        seconds=seconds) == token
        time.sleep(0.02)

    def _monitored_call(self, rng, topic, token):
        seconds = rng.uniform(0, 3.0)
        assert self._client(topic, call_monitor_timeout=4).call(
            {}, 'run', token=token, seconds=seconds) == token

    def _cast(self, rng, topic, token):
        seconds = 1.0 if rng.random() < 0.005 else rng.uniform(0, 0.03)
        self._client(topic).cast({}, 'run', token=token, seconds=seconds)
        # In bursts, so that there is something in every queue when it hits.
        time.sleep(0.001 if time.monotonic() % 3 < 0.4 else 0.04)

    def _confirmed_cast(self, rng, topic, token):
        client = self._client(topic, transport_options=AT_LEAST_ONCE)
        client.cast({}, 'run', token=token, seconds=rng.uniform(0, 0.03))
        time.sleep(0.1)

    def _fanout(self, rng, topic, token):
        self._client(topic).prepare(fanout=True).cast(
            {}, 'run', token=token, seconds=rng.uniform(0, 0.02))
        time.sleep(0.15)

    def _notify(self, rng, topic, token):
        self._notifier.info({}, 'event', {
            'token': token, 'seconds': rng.uniform(0, 0.02)})
        time.sleep(0.05)


def _tap(journal):
    """Write down how custody ends each delivery. It decides as always."""
    end = custody.Custody.end

    @functools.wraps(end)
    def tapped(self, delivery, event, detail=None):
        if delivery.kind != wire.CALL:
            journal.write('ended', token=_token(delivery), event=event,
                          id=delivery.id.hex(), spread=delivery.spread,
                          topic=str(delivery.topic),
                          instance=(delivery.instance.id.hex()
                                    if delivery.instance else ''),
                          reason=detail if isinstance(detail, str) else '')
        end(self, delivery, event, detail)

    custody.Custody.end = tapped


def _token(delivery):
    body = payload.load(delivery.body[1], delivery.flags)
    return (body.get('args') or body.get('payload'))['token']


def _drain(drivers):
    deadline = time.monotonic() + _DRAIN_LIMIT
    while (any(driver.unacknowledged(_DRAIN_LIMIT) for driver in drivers)
           and time.monotonic() < deadline):
        time.sleep(0.05)


def main(url, name, path, *topics):
    cfg.CONF([], project='zmq_threaded_tests')
    journal = chaos_journal.open_with_log(path)
    _tap(journal)
    load = Load(url, name, journal, topics)
    drivers = [load.rpc._driver, load.notes._driver]
    load.start()
    journal.write('ready')
    threading.Timer(8, lambda: journal.write(
        'memory', resident=chaos_journal.resident())).start()
    sys.stdin.read()
    stuck = load.finish()
    _drain(drivers)
    journal.write('drained', resident=chaos_journal.resident(), stuck=stuck,
                  counters=[driver.counters() for driver in drivers],
                  left=[driver.unacknowledged(_DRAIN_LIMIT)
                        for driver in drivers])
    load.rpc.cleanup()
    load.notes.cleanup()
    journal.write('bye')


if __name__ == '__main__':
    main(*sys.argv[1:])
