# SPDX-License-Identifier: Apache-2.0
"""Threads that send while something else happens."""

import collections
import itertools
import random
import threading
import time

import oslo_messaging


class Senders:
    """Threads that send all the time, each message with a token of its own.

    :ivar sent: the tokens that were sent, by the kind with which they begin
    :ivar failed: by token: the seconds that it took, and the error
    :ivar longest: seconds that a message took
    """

    def __init__(self):
        self._over = threading.Event()
        self._numbers = itertools.count()
        self.sent = collections.defaultdict(list)
        self.failed, self.transports = {}, []
        self.longest = 0.0
        self._threads = []

    def add(self, kind, send, pause=0.0):
        """:param send: called with a token"""
        self._threads.append(threading.Thread(
            target=self._run, args=(kind, send, pause)))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads)

    def _run(self, kind, send, pause):
        while not self._over.is_set():
            token = f'{kind}{next(self._numbers)}'
            began = time.monotonic()
            try:
                send(token)
                self.sent[kind].append(token)
            except oslo_messaging.MessagingException as error:
                self.failed[token] = (time.monotonic() - began, error)
            self.longest = max(self.longest, time.monotonic() - began)
            if pause:
                self._over.wait(pause * random.uniform(0.5, 1.5))


def call(client, seconds):
    """What sends a call that takes so many seconds."""
    def send(token):
        assert client.call({}, 'run', token=token, seconds=seconds) == token
    return send
