# SPDX-License-Identifier: Apache-2.0
"""A server whose directory of facts gets full, and has room again.

Argument: a directory, on which a small file system is mounted: so run this in
a mount namespace of its own.
"""

import logging
import os
import sys

import native_threads

native_threads.use_native_threads()

from tests.support import cli  # noqa: E402
from tests.support import rpc  # noqa: E402
from tests.support import small_disk  # noqa: E402
from tests.support import waiting  # noqa: E402

LINES = []


class Keeping(logging.Handler):
    def emit(self, record):
        LINES.append(record.getMessage())


def health(node):
    return cli.ask('health', '--transport-url', node.url())


def main(directory):
    small_disk.mount(directory, 'size=400k')
    logging.getLogger('zmq_threaded').addHandler(Keeping())
    with rpc.Node(directory) as node:
        # The records of the registry are files too, and outlive the test.
        node.query = {'zmq_target_update': 1, 'zmq_target_expire': 300}
        node.server()
        waiting.until(lambda: health(node)[0] == 0, 20)
        full = os.path.join(directory, 'full')
        small_disk.fill(full)
        text = waiting.until(lambda: found(node), 60, lambda: health(node))
        assert 'No space left' in text and 'make room in' in text, text
        assert 'stands still' not in text, text
        said = str(cli.ask('status', '--transport-url', node.url()))
        assert 'facts_not_written' in said and "'silent'" not in said, said
        line, = (line for line in LINES if 'facts of this' in line)
        assert 'No space left' in line and directory in line, line
        os.unlink(full)
        waiting.until(lambda: 'cannot be' not in str(health(node)), 20,
                      lambda: health(node))
    print('well', flush=True)


def found(node):
    """What health says once it says that, and calls the process well."""
    code, said = health(node)
    return str(said) if not code and 'cannot be written' in str(said) else ''


if __name__ == '__main__':
    main(sys.argv[1])
