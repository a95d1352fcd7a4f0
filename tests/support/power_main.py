# SPDX-License-Identifier: Apache-2.0
"""Casts to nobody from several threads, and writes down what was accepted and
how long the WAL of the journal was then.

Arguments: URL, file. It ends when its stdin does.
"""

import glob
import itertools
import os
import sys
import threading

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402

_THREADS = 4


def main(url, path):
    cfg.CONF([], project='zmq_threaded_tests')
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    client = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic='topic'))
    numbers, ended = itertools.count(), threading.Event()
    folder = transport._driver._runtimes.current().outbox.journals._place.path

    def cast():
        while not ended.is_set():
            number = next(numbers)
            client.cast({}, 'note', value=number)
            wal, = glob.glob(os.path.join(folder, '*-wal'))
            os.write(file, f'{number} {os.path.getsize(wal)}\n'.encode())
    threads = [threading.Thread(target=cast) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    print('ready', flush=True)
    sys.stdin.read()
    ended.set()
    for thread in threads:
        thread.join()
    transport.cleanup()


main(*sys.argv[1:])
