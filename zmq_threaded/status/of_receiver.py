# SPDX-License-Identifier: Apache-2.0
"""The facts of the receiver of a node: a file, for it needs no registry. The
services behind it say in their own facts whether it is there.
"""

import time

from zmq_threaded import counters as counting
from zmq_threaded import options
from zmq_threaded.net import descriptors
from zmq_threaded.receiver import address
from zmq_threaded.status import processes
from zmq_threaded.status import publisher as publishers
from zmq_threaded.status import recent


def made(settings: options.Settings, ipc_dir: str,
         counters: counting.Counters) -> publishers.Publisher:
    """What publishes the facts of a receiver."""
    growth = recent.Recent()

    def collect():
        counts = counters.snapshot()
        return {
            'kind': 'receiver',
            'process': processes.configured(settings, ipc_dir,
                                            descriptors.left()),
            'counts': counts,
            'minute': growth.growth(time.monotonic(), counts),
            'receiver': {
                'expected': True, 'there': True,
                'endpoint': address.receiver_endpoints(
                    settings, ipc_dir)[-1]}}
    return publishers.Publisher(ipc_dir, settings.update, collect)
