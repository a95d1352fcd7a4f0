# SPDX-License-Identifier: Apache-2.0
"""A client in a process of its own: a line of JSON in, a line of JSON out.

    {"do": "call" | "cast" | "fanout", "method": ..., "args": {...},
     "timeout": seconds, "server": ... (of a call)}
    {"do": "notify", "payload": ...}
    {"do": "begin"}        numbered calls and casts until; with "callers" and
                           "name" from more threads, and with casts of
                           [name, number]
    {"do": "end"}          which tells what was sent, and how calls failed
    {"do": "counters"}
    {"do": "findings"}     their kinds

Argument: URL. All goes to the topic 'topic', notifications to 'notes'.
"""

import json
import sys
import threading
import time

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402

_CALL_TIMEOUT = 30
_CALL_PAUSE, _CAST_PAUSE = 0.01, 0.01


class Load:
    """Calls from some threads, and casts from one."""

    def __init__(self, client, callers=1, name=None):
        self._name = name
        self._client = client.prepare(timeout=_CALL_TIMEOUT)
        self._ended = threading.Event()
        self.result = {'calls': 0, 'casts': 0, 'failed': [], 'pids': []}
        self._threads = [threading.Thread(target=each)
                         for each in (*[self._call] * callers, self._cast)]
        for thread in self._threads:
            thread.start()

    def _call(self):
        while not self._ended.wait(_CALL_PAUSE):
            outcome = _call(self._client, 'pid', {})
            self.result['calls'] += 1
            if 'error' in outcome:
                self.result['failed'].append(
                    [outcome['error'], outcome['seconds']])
            elif outcome['result'] not in self.result['pids']:
                self.result['pids'].append(outcome['result'])

    def _cast(self):
        while not self._ended.wait(_CAST_PAUSE):
            number = self.result['casts']
            self._client.cast({}, 'note', value=number if self._name is None
                              else [self._name, number])
            self.result['casts'] += 1

    def end(self):
        self._ended.set()
        for thread in self._threads:
            thread.join()
        return self.result


def _call(client, method, arguments):
    began = time.monotonic()
    try:
        result = {'result': client.call({}, method, **arguments)}
    except Exception as error:
        result = {'error': type(error).__name__, 'is_timeout': isinstance(
            error, oslo_messaging.MessagingTimeout)}
    return {**result, 'seconds': time.monotonic() - began}


class Client:
    """What may be asked for."""

    def __init__(self, url):
        self._rpc = oslo_messaging.get_rpc_transport(cfg.CONF, url)
        self._notify = oslo_messaging.get_notification_transport(cfg.CONF, url)
        self._client = oslo_messaging.get_rpc_client(
            self._rpc, oslo_messaging.Target(topic='topic'))
        self._notifier = oslo_messaging.Notifier(
            self._notify, 'publisher', driver='messagingv2', topics=['notes'],
            retry=-1)

    def call(self, method, args, timeout=10, **where):
        return _call(self._client.prepare(timeout=timeout, **where), method,
                     args)

    def cast(self, method, args):
        self._client.cast({}, method, **args)

    def fanout(self, method, args):
        self._client.prepare(fanout=True).cast({}, method, **args)

    def notify(self, payload):
        self._notifier.info({}, 'event', payload)

    def begin(self, callers=1, name=None):
        self._load = Load(self._client, callers, name)

    def end(self):
        return self._load.end()

    def counters(self):
        return self._rpc._driver.counters()

    def findings(self):
        parts = self._rpc._driver._runtimes.current()
        return [each.kind for each in parts.findings.all()]

    def close(self):
        self._rpc.cleanup()
        self._notify.cleanup()


def main(url):
    cfg.CONF([], project='zmq_threaded_tests')
    client = Client(url)
    print('ready', flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        answer = getattr(client, question.pop('do'))(**question)
        print(json.dumps(answer), flush=True)
    client.close()


main(*sys.argv[1:])
