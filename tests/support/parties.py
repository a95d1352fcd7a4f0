# SPDX-License-Identifier: Apache-2.0
"""Registries, each as in a process of its own."""

import contextlib
import os
import time

from tests.support import waiting
from zmq_threaded import counters
from zmq_threaded.registry import record
from zmq_threaded.registry import registry as registries


@contextlib.contextmanager
def opened(make_store, update, expire):
    """Yields make(*args): a Registry with the store of make_store(*args)."""
    with contextlib.ExitStack() as stack:
        def make(*args):
            made = registries.Registry(make_store(*args), update, expire,
                                       counters.Counters(), 'zmq-registry')
            stack.callback(lambda: made.join(time.monotonic() + 10))
            stack.callback(made.stop)
            return made
        yield make


def instance():
    """One that nobody has seen before."""
    return record.Instance(os.urandom(16), ('tcp://node-1:1',),
                           host='node-1', server='one')


def listed(client, topic):
    """The ids that a fresh look-up finds."""
    looked = []
    client.ask(topic, looked.append)
    waiting.until(lambda: looked, 15)
    return {each.id for each in client.cache.listed(topic)}
