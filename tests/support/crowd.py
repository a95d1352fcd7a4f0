# SPDX-License-Identifier: Apache-2.0
"""Many threads that do one thing after another."""

import threading
from concurrent import futures


def share_out(items, act, threads):
    """Call act(item) for each item, from so many threads; returns when all is
    done. Items are taken one by one: there may be a million.
    """
    items, lock = iter(items), threading.Lock()

    def take():
        with lock:
            return next(items, lock)

    def run():
        item = take()
        while item is not lock:
            act(item)
            item = take()
    with futures.ThreadPoolExecutor(threads) as pool:
        for crowd in [pool.submit(run) for _ in range(threads)]:
            crowd.result()
