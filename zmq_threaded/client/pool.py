# SPDX-License-Identifier: Apache-2.0
"""Idle connections for calls."""

import math
import threading
import time

# While this process is short of descriptors or sockets none lies idle.
_SHED_FOR = 5.0


class Pool:
    """Idle connections by instance, the last used first out.

    Thread: any; the lock is reentrant for the sake of signal handlers.
    """

    def __init__(self, limit, ttl):
        self._limit = limit
        self._ttl = ttl
        self._lock = threading.RLock()
        self._idle = {}
        self._size = 0
        self._closed = False
        self._keeps_from = 0.0

    def take(self, instance):
        with self._lock:
            # By endpoints: a receiver's are those of many instances.
            stack = self._idle.get((instance.endpoints, instance.key))
            if not stack:
                return None
            self._size -= 1
            return stack.pop()

    def give(self, connection):
        connection.idle_since = time.monotonic()
        with self._lock:
            if (not self._closed
                    and connection.idle_since >= self._keeps_from):
                self._idle.setdefault(
                    (connection.endpoints, connection.key),
                    []).append(connection)
                self._size += 1
                connection = (self._pop_longest_idle()
                              if self._size > self._limit else None)
        if connection:
            connection.close()

    def shed(self):
        """Close what nobody uses, and for a while what is given back."""
        self._keeps_from = time.monotonic() + _SHED_FOR
        self._close_idle_since(math.inf)

    def close_idle(self):
        """Close what nobody used for the time to live."""
        self._close_idle_since(time.monotonic() - self._ttl)

    def _close_idle_since(self, oldest):
        with self._lock:
            expired = []
            for way, stack in list(self._idle.items()):
                while stack and stack[0].idle_since < oldest:
                    expired.append(stack.pop(0))
                if not stack:
                    del self._idle[way]
            self._size -= len(expired)
        for connection in expired:
            connection.close()

    def close(self):
        with self._lock:
            self._closed = True
            # Each is closed before it is let go of: an exception at any line
            # leaves it to the next call.
            for way, stack in list(self._idle.items()):
                while stack:
                    stack[-1].close()
                    stack.pop()
                del self._idle[way]
            self._size = 0

    def _pop_longest_idle(self):
        stack = min((stack for stack in self._idle.values() if stack),
                    key=lambda stack: stack[0].idle_since)
        self._size -= 1
        return stack.pop(0)
