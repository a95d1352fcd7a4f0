# SPDX-License-Identifier: Apache-2.0
"""A server that starts while there is room for no file in its directory.

Argument: a directory, on which a small file system is mounted: so run this in
a mount namespace of its own.
"""

import contextlib
import os
import sys

import native_threads

native_threads.use_native_threads()

from tests.support import rpc  # noqa: E402
from tests.support import small_disk  # noqa: E402
from tests.support import waiting  # noqa: E402


def fill(directory):
    """Paths of empty files that use up all inodes."""
    paths = []
    with contextlib.suppress(OSError):
        while True:
            path = os.path.join(directory, f'fill-{len(paths)}')
            os.mknod(path)
            paths.append(path)
    return paths


def main(directory):
    small_disk.mount(directory, 'nr_inodes=60')
    with rpc.Node(directory) as node:
        node.server(server='first')
        paths = fill(directory)
        node.server(server='second')
        assert node.client(server='first').call({}, 'echo', value=1) == 1
        for path in paths:
            os.unlink(path)
        waiting.until(lambda: _second_answers(node), 15)
    print('well', flush=True)


def _second_answers(node):
    with contextlib.suppress(Exception):
        return node.client(server='second', timeout=2).call(
            {}, 'echo', value=2) == 2


if __name__ == '__main__':
    main(sys.argv[1])
