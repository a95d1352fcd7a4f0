# SPDX-License-Identifier: Apache-2.0
"""An RPC server that writes down what a worker has taken up, before its sender
is told.

Arguments: URL, server, file. It ends when its stdin does.
"""

import os
import sys

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402

from tests.support import idle_threads  # noqa: E402, F401
from zmq_threaded.service import incoming  # noqa: E402


class Endpoint:
    def note(self, ctxt, value):
        pass


def write_down(path):
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    acknowledge = incoming.Incoming.acknowledge

    def written(self):
        os.write(file, f'{self.message["args"]["value"]}\n'.encode())
        acknowledge(self)
    incoming.Incoming.acknowledge = written


def main(url, server, path):
    cfg.CONF([], project='zmq_threaded_tests')
    write_down(path)
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    listening = oslo_messaging.get_rpc_server(
        transport, oslo_messaging.Target(topic='topic', server=server),
        [Endpoint()])
    listening.start(override_pool_size=8)
    print('ready', flush=True)
    sys.stdin.read()
    listening.stop()
    listening.wait()
    transport.cleanup()


main(*sys.argv[1:])
