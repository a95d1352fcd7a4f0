# SPDX-License-Identifier: Apache-2.0
"""The keys of both ends of one connection of the outbox."""

import time

from zmq_threaded.security import access as accesses

# Seconds for which a connection with an old key waits until it is idle.
_RENEW_AFTER = 3.0


class PeerKey:
    """Which keys a connection has been made with, and whether they still do.

    :param endpoint: of the connection; over IPC there are no keys
    :ivar key: public key of the port, b'' for an open one

    Thread: outbox.
    """

    def __init__(self, access: accesses.Access, endpoint: str,
                 key: bytes) -> None:
        self._access = access
        self._is_tcp = endpoint.startswith('tcp:')
        self.key = key if self._is_tcp else b''
        self._pair = access.pair
        self._judged_at = access.version
        self._is_revoked = False
        self._outdated_at = time.monotonic()

    def change(self, key: bytes) -> bool:
        """A record names this key of the port.

        :returns: whether it is another one
        """
        if not self._is_tcp or key == self.key:
            return False
        self.key, self._judged_at = key, -1
        return True

    def was_used(self) -> None:
        """A socket was made with the key of this process."""
        self._pair = self._access.pair

    def is_revoked(self) -> bool:
        """Whether the key of the port is not trusted any more."""
        if self._judged_at != self._access.version:
            self._judged_at = self._access.version
            self._is_revoked = (self._is_tcp
                                and bool(self._access.refusal(self.key)))
        return self._is_revoked

    def is_outdated(self) -> bool:
        """Whether this process has another key now."""
        return bool(self.key) and self._pair is not self._access.pair

    def is_renewal_due(self, now: float) -> bool:
        """Whether to shake hands with the new key of this process, though the
        connection is never idle; to be called a few times a second.
        """
        if not self.is_outdated():
            self._outdated_at = now
        return now - self._outdated_at > _RENEW_AFTER
