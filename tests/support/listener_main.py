# SPDX-License-Identifier: Apache-2.0
"""A notification listener that writes down what it handled, before it is
acknowledged and so that a kill -9 loses nothing of it.

Arguments: URL, topic, pool, file.
"""

import os
import sys

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402

from tests.support import idle_threads  # noqa: E402, F401


class Endpoint:
    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def info(self, ctxt, publisher, event_type, payload, metadata):
        os.write(self._file, f'{payload}\n'.encode())


def main(url, topic, pool, path):
    cfg.CONF([], project='zmq_threaded_tests')
    transport = oslo_messaging.get_notification_transport(cfg.CONF, url)
    listener = oslo_messaging.get_notification_listener(
        transport, [oslo_messaging.Target(topic=topic)], [Endpoint(path)],
        pool=pool)
    listener.start(override_pool_size=8)
    print('ready', flush=True)
    sys.stdin.read()
    listener.stop()
    listener.wait()
    transport.cleanup()


main(*sys.argv[1:])
