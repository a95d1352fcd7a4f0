# SPDX-License-Identifier: Apache-2.0
"""A process that stops its server inside a signal handler, while its main
thread is calling and casting.
"""

import os
import signal
import sys

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402


class Endpoint:
    def echo(self, ctxt, value):
        return value


def main(url):
    cfg.CONF([], project='zmq_threaded_tests')
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    target = oslo_messaging.Target(topic='topic', server='server')
    server = oslo_messaging.get_rpc_server(transport, target, [Endpoint()])

    def stop(signum, frame):
        server.stop()
        server.wait()
        transport.cleanup()
        print('stopped', flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    server.start()
    client = oslo_messaging.get_rpc_client(transport, target, timeout=20)
    print('ready', flush=True)
    while True:
        client.call({}, 'echo', value=1)
        client.cast({}, 'echo', value=2)


main(sys.argv[1])
