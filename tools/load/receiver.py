# SPDX-License-Identifier: Apache-2.0
"""What a server process keeps of its messages, whatever brought them."""

import threading
import time

from load import ledger
from load import payload as payloads


class Receiver:
    """Checks and records incoming operations; safe to call from any thread."""

    def __init__(self, token, size):
        self.ledger = ledger.DeliveryLedger()
        self.wrong = 0
        self.probes = 0
        self.last_delivery = None
        self._token = token
        self._pool = payloads.make_pool(size)
        self._lock = threading.Lock()

    def accept(self, ident, token, payload):
        """Record a delivery; it is wrong if it is not what was sent."""
        thread, sequence = ledger.split_ident(ident)
        pool = self._pool
        expected = pool[payloads.pool_index(thread, sequence, len(pool))]
        if token != self._token or payload != expected:
            with self._lock:
                self.wrong += 1
        else:
            self.ledger.record(ident)
            self.last_delivery = time.monotonic()

    def probed(self):
        """Note that the client's way to this server works."""
        with self._lock:
            self.probes += 1

    def status(self):
        """Return the counts so far.

        last_delivery is in seconds of the monotonic clock.
        """
        delivered, duplicated = self.ledger.counts()
        return {
            'delivered': delivered,
            'duplicated': duplicated,
            'wrong': self.wrong,
            'probes': self.probes,
            'last_delivery': self.last_delivery,
        }
