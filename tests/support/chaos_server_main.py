# SPDX-License-Identifier: Apache-2.0
"""A server of a chaos run: RPC on some topics, and a notification listener.

Arguments: URL, name, pool, file of the journal, topics. It writes down what it
begins and what it has finished, each before it says so. It ends when its stdin
does.
"""

import sys
import time

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402

from tests.support import chaos_journal  # noqa: E402
from tests.support import idle_threads  # noqa: E402, F401


class Endpoint:
    def __init__(self, journal):
        self._journal = journal

    def run(self, ctxt, token, seconds):
        self._journal.write('begin', token=token)
        time.sleep(seconds)
        self._journal.write('finish', token=token)
        return token

    def burn(self, ctxt, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            sum(range(10000))


class Notes:
    def __init__(self, journal, pool):
        self._journal, self._pool = journal, pool

    def info(self, ctxt, publisher, event_type, payload, metadata):
        self._journal.write('begin', token=payload['token'], pool=self._pool)
        time.sleep(payload['seconds'])
        self._journal.write('finish', token=payload['token'], pool=self._pool)


def main(url, name, pool, path, *topics):
    cfg.CONF([], project='zmq_threaded_tests')
    journal = chaos_journal.open_with_log(path)
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    notes = oslo_messaging.get_notification_transport(cfg.CONF, url)
    listening = _start(transport, notes, name, pool, topics, journal)
    journal.write('ready', pool=pool, instances={
        each.listener._service.current.instance.id.hex(): topic
        for topic, each in listening.items()})
    sys.stdin.read()
    _stop(listening, transport, notes, journal)


def _start(transport, notes, name, pool, topics, journal):
    listening = {topic: oslo_messaging.get_rpc_server(
        transport, oslo_messaging.Target(topic=topic, server=name),
        [Endpoint(journal)]) for topic in topics}
    listening['notes'] = oslo_messaging.get_notification_listener(
        notes, [oslo_messaging.Target(topic='notes')],
        [Notes(journal, pool)], pool=pool)
    for each in listening.values():
        each.start(override_pool_size=8)
    return listening


def _stop(listening, transport, notes, journal):
    journal.write('stopping')
    for each in listening.values():
        each.stop()
    for each in listening.values():
        each.wait()
    counters = [each._driver.counters() for each in (transport, notes)]
    transport.cleanup()
    notes.cleanup()
    journal.write('bye', counters=counters)


if __name__ == '__main__':
    main(*sys.argv[1:])
