# SPDX-License-Identifier: Apache-2.0
"""Casts until there is no room on the disk, makes room, and casts again.

Argument: a directory, on which a small file system is mounted: so run this in
a mount namespace of its own.
"""

import os
import sys

import native_threads

native_threads.use_native_threads()

from tests.support import rpc  # noqa: E402
from tests.support import small_disk  # noqa: E402
from tests.support import waiting  # noqa: E402


def main(directory):
    small_disk.mount(directory, 'size=8m')
    with rpc.Node(directory) as node:
        server = node.server()
        node.query = {'rpc_zmq_custody': 'process'}
        client = node.client()
        client.cast({}, 'note', value=-1)
        waiting.until(lambda: server.endpoint.seen == [-1])
        fill = os.path.join(directory, 'fill')
        small_disk.fill(fill)
        _, why = small_disk.cast_until_it_fails(client, range(1000))
        print(why, flush=True)
        # Calls go on.
        assert node.client().call({}, 'echo', value=1) == 1
        os.unlink(fill)
        client.cast({}, 'note', value=-2)
        waiting.until(lambda: -2 in server.endpoint.seen)


main(*sys.argv[1:])
