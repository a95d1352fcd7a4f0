# SPDX-License-Identifier: Apache-2.0
"""A process that uses the driver while it has few file descriptors.

Arguments: URL, role, how many descriptors are free, and the limit. It tries
while it has so few and again when there are more, and prints a list of JSON:
the outcome of each attempt, a value or the names of the classes of the
exception and its text.

Roles: call, cast, notify, listen, counters; 'late-' before a role uses the
driver once before the descriptors are short.
"""

import json
import os
import resource
import sys

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402

from zmq_threaded import logs  # noqa: E402


class Starving:
    def __init__(self, url):
        self._rpc = oslo_messaging.get_rpc_transport(cfg.CONF, url)
        self._notify = oslo_messaging.get_notification_transport(cfg.CONF,
                                                                 url)
        self._client = oslo_messaging.get_rpc_client(
            self._rpc, oslo_messaging.Target(topic='topic'), timeout=3)

    def call(self):
        return self._client.call({}, 'echo', value=1)

    def cast(self):
        self._client.cast({}, 'note', value=1)

    def notify(self):
        # A Notifier only logs what fails.
        self._notify._send_notification(
            oslo_messaging.Target(topic='notes.info'), {}, {}, '2.0')

    def listen(self):
        server = oslo_messaging.get_rpc_server(
            self._rpc, oslo_messaging.Target(topic='other', server='other'),
            [self])
        server.start()
        server.stop()
        server.wait()

    def counters(self):
        return self._rpc._driver.counters()['descriptors_left']

    def close(self):
        self._rpc.cleanup()
        self._notify.cleanup()


def attempt(action):
    try:
        return {'value': action()}
    except Exception as error:
        return {'kinds': [each.__module__ + '.' + each.__name__
                          for each in type(error).__mro__],
                'text': str(error)}


def starve(free, limit):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    held = []
    try:
        while True:
            held.append(os.open('/dev/null', os.O_RDONLY))
    except OSError:
        pass
    for _ in range(free):
        os.close(held.pop())
    return held


def main(url, role, free, limit):
    cfg.CONF([], project='zmq_threaded_tests')
    starving = Starving(url)
    action = getattr(starving, role.removeprefix('late-'))
    outcomes = [attempt(action)] if role.startswith('late-') else []
    held = starve(int(free), int(limit))
    outcomes.append(attempt(action))
    for descriptor in held:
        os.close(descriptor)
    outcomes.append(attempt(action))
    starving.close()
    logs.flush()
    print(json.dumps(outcomes), flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
