# SPDX-License-Identifier: Apache-2.0
"""The child process of processes.ServerProcess."""

import json
import logging
import os
import sys
import time

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402

from tests.support import idle_threads  # noqa: E402, F401


class Endpoint:
    def __init__(self):
        self.seen = []
        self.slept = 0

    def echo(self, ctxt, value):
        return value

    def pid(self, ctxt):
        return os.getpid()

    def note(self, ctxt, value):
        self.seen.append(value)

    def sleep(self, ctxt, seconds):
        self.slept += 1
        time.sleep(seconds)
        return os.getpid()


class Warned(logging.Handler):
    """Keeps warnings, with when they came in monotonic seconds."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []
        logging.getLogger('zmq_threaded').addHandler(self)

    def emit(self, record):
        self.lines.append((time.monotonic(), record.getMessage()))


def main(url, topic, server):
    warned = Warned()
    cfg.CONF([], project='zmq_threaded_tests')
    endpoint = Endpoint()
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    listening = oslo_messaging.get_rpc_server(
        transport, oslo_messaging.Target(topic=topic, server=server),
        [endpoint])
    listening.start()
    print('ready', flush=True)
    for question in sys.stdin:
        print(json.dumps(_answer(question.strip(), endpoint, transport,
                                 listening, warned)), flush=True)
    listening.stop()
    listening.wait()
    transport.cleanup()


def _answer(question, endpoint, transport, listening, warned):
    if question == 'warned':
        return warned.lines
    if question == 'seen':
        return endpoint.seen
    if question == 'counters':
        return transport._driver.counters()
    if question == 'findings':
        return [each.kind for each
                in transport._driver._runtimes.current().findings.all()]
    if question == 'slept':
        return endpoint.slept
    if question == 'stop':
        listening.stop()
        listening.wait()
        return 'stopped'
    raise ValueError(question)


main(*sys.argv[1:])
