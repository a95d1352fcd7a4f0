# SPDX-License-Identifier: Apache-2.0
"""Casts until there is no room on the disk, makes room, and casts again.

Argument: a directory, on which a small file system is mounted: so run this in
a mount namespace of its own.
"""

import os
import subprocess
import sys

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402

from tests.support import rpc  # noqa: E402
from tests.support import waiting  # noqa: E402


def main(directory):
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs',
                    directory], check=True)
    with rpc.Node(directory) as node:
        server = node.server()
        node.query = {'rpc_zmq_custody': 'process'}
        client = node.client()
        client.cast({}, 'note', value=-1)
        waiting.until(lambda: server.endpoint.seen == [-1])
        fill = os.path.join(directory, 'fill')
        with open(fill, 'wb', buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        failed = cast_until_it_fails(client)
        print(failed, flush=True)
        # Calls go on.
        assert node.client().call({}, 'echo', value=1) == 1
        os.unlink(fill)
        client.cast({}, 'note', value=-2)
        waiting.until(lambda: -2 in server.endpoint.seen)


def cast_until_it_fails(client):
    for number in range(1000):
        try:
            client.cast({}, 'note', value=number)
        except oslo_messaging.MessageDeliveryFailure as error:
            return str(error)
    raise AssertionError('there was room for all')


main(*sys.argv[1:])
