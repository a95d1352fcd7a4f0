# SPDX-License-Identifier: Apache-2.0
"""A process of a cloud that moves from RabbitMQ to zmq: a server with a
notification listener, or a client that sends everything all the time. SIGTERM
ends it in good order.

Argument: JSON with url, path (of the journal), name; of a server topic and
pools; of a client topics and pace (seconds between two messages of a thread).
"""

import itertools
import json
import random
import signal
import sys
import threading
import time

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_messaging._drivers import amqpdriver  # noqa: E402

# It takes a limit of its own from what is changed below.
from oslo_messaging._drivers import impl_rabbit  # noqa: E402, F401

from tests.support import chaos_journal  # noqa: E402
from tests.support import idle_threads  # noqa: E402, F401

_TIMEOUT = 20
# A listener of rabbit that is stopped looks so often, if nothing comes.
amqpdriver.ACK_REQUEUE_EVERY_SECONDS_MAX = 0.5


class Endpoint:
    def __init__(self, journal):
        self._journal = journal

    def run(self, ctxt, token):
        self._journal.write('begin', token=token)
        return token


class Notes:
    def __init__(self, journal, pool):
        self._journal, self._pool = journal, pool

    def info(self, ctxt, publisher, event_type, payload, metadata):
        self._journal.write('begin', token=payload, pool=self._pool or '')


class Server:
    def __init__(self, settings, rpc, notes, journal):
        self._listening = [
            oslo_messaging.get_rpc_server(
                rpc, oslo_messaging.Target(topic=settings['topic'],
                                           server=settings['name']),
                [Endpoint(journal)])]
        self._listening += [
            oslo_messaging.get_notification_listener(
                notes, [oslo_messaging.Target(topic='notes')],
                [Notes(journal, pool)], pool=pool)
            for pool in settings['pools']]

    def start(self):
        for each in self._listening:
            each.start(override_pool_size=8)

    def stop(self):
        for each in self._listening:
            each.stop()
        for each in self._listening:
            each.wait()


class Client:
    """Its tokens begin with the name of this life."""

    def __init__(self, settings, rpc, notes, journal):
        self._settings, self._rpc, self._journal = settings, rpc, journal
        self._notifier = oslo_messaging.Notifier(
            notes, 'publisher', driver='messagingv2', topics=['notes'],
            retry=-1)
        self._numbers, self._over = itertools.count(), threading.Event()
        self._threads = [threading.Thread(target=self._run, args=each)
                         for each in ((self._call, 1), (self._cast, 1),
                                      (self._fanout, 5), (self._notify, 2))]

    def start(self):
        for each in self._threads:
            each.start()

    def stop(self):
        self._over.set()
        for each in self._threads:
            each.join()

    def _run(self, send, pauses):
        rng = random.Random(f'{self._settings["name"]} {send.__name__}')
        while not self._over.wait(pauses * self._settings['pace']):
            token = f'{self._settings["name"]}-{next(self._numbers)}'
            topic = rng.choice(self._settings['topics'])
            self._journal.write('sending', token=token, topic=topic,
                                kind=send.__name__.strip('_'))
            try:
                send(topic, token)
            except Exception as error:
                self._journal.write('raised', token=token, text=str(error),
                                    error=type(error).__name__)
            else:
                self._journal.write('returned', token=token)

    def _client(self, topic, **target):
        return oslo_messaging.get_rpc_client(
            self._rpc, oslo_messaging.Target(topic=topic, **target),
            timeout=_TIMEOUT)

    def _call(self, topic, token):
        assert self._client(topic).call({}, 'run', token=token) == token

    def _cast(self, topic, token):
        self._client(topic).cast({}, 'run', token=token)

    def _fanout(self, topic, token):
        self._client(topic, fanout=True).cast({}, 'run', token=token)

    def _notify(self, topic, token):
        self._notifier.info({}, 'event', token)


def main(settings):
    ended = []
    signal.signal(signal.SIGTERM, lambda *arguments: ended.append(True))
    cfg.CONF([], project='zmq_threaded_tests')
    journal = chaos_journal.open_with_log(settings['path'])
    rpc = oslo_messaging.get_rpc_transport(cfg.CONF, settings['url'])
    notes = oslo_messaging.get_notification_transport(cfg.CONF,
                                                      settings['url'])
    part = (Server if 'topic' in settings else Client)(settings, rpc, notes,
                                                       journal)
    part.start()
    journal.write('ready')
    while not ended:
        time.sleep(0.02)
    journal.write('stopping')
    part.stop()
    rpc.cleanup()
    notes.cleanup()
    journal.write('bye')


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
