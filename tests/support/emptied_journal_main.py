# SPDX-License-Identifier: Apache-2.0
"""Fills a disk with a journal, and empties it: a server drains it, or an
operator drops what is in it.

Arguments: a directory, below which a small file system is mounted: so run
this in a mount namespace of its own; and 'drain' or 'drop'.
"""

import itertools
import os
import subprocess
import sys

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402

from tests.support import rpc  # noqa: E402
from tests.support import small_disk  # noqa: E402
from tests.support import waiting  # noqa: E402
from zmq_threaded.journal import survey  # noqa: E402


def main(directory, way):
    journals = os.path.join(directory, 'small')
    os.mkdir(journals)
    small_disk.mount(journals, 'size=6m')
    with rpc.Node(directory) as node:
        node.query = {'rpc_zmq_custody': 'process',
                      'rpc_zmq_custody_dir': journals}
        client = node.client()
        count, why = small_disk.cast_until_it_fails(
            client, itertools.repeat('x' * 5000, 10_000))
        print(count, 'casts', why)
        assert count > 50
        # And all the rest of the disk
        filled = os.path.join(journals, 'fill')
        small_disk.fill(filled)
        if way == 'drain':
            server = node.server()
            waiting.until(lambda: len(server.endpoint.seen) == count, 30)
        else:
            subprocess.run([
                sys.executable, '-m', 'zmq_threaded.cli.main', 'custody',
                'drop', 'topic', '--directory', journals], check=True)
        waiting.until(lambda: not sum(
            each.count for each in survey.survey(journals)), 30)
        # There is room again, for the next ones
        os.unlink(filled)
        waiting.until(lambda: is_taken(client), 30)


def is_taken(client):
    try:
        client.cast({}, 'note', value='x' * 5000)
    except oslo_messaging.MessageDeliveryFailure:
        return False
    return True


main(*sys.argv[1:])
