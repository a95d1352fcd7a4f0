# SPDX-License-Identifier: Apache-2.0
"""Why a connection with keys does not come about.

libzmq tells that only to the monitor of a socket, and a monitor that nobody
reads stops all sockets of the context. So a probe is made only when there is
something to explain: a second connection, whose monitor is read until it is
known how its handshake ended.
"""

import time
from typing import Any

from zmq_threaded import counters as counts
from zmq_threaded import logs
from zmq_threaded import sockets
from zmq_threaded.net import descriptors
from zmq_threaded.net import multiparts
from zmq_threaded.security import curve
from zmq_threaded.security import keys

LOG = logs.get(__name__)

# Handshakes take milliseconds; one that takes longer than this is explained.
AFTER = 0.3
_LIMIT = 1.0
# Seconds for which nobody looks again, and for which it is told as the reason
# when there is no time to look.
_KNOWN_FOR, _BELIEVED_FOR = 0.5, 30.0
_KEPT = 1000


class Probe:
    """One attempt to connect.

    :param address: of the TCP port, in numbers
    :param key: public key of the port, as its record names it
    :raises: endpoints.BadEndpoint, descriptors.Short
    :ivar is_over: it is known how the handshake ended
    :ivar why: why it failed, as text; '' if it did not

    Thread: caller, outbox; whichever made it.
    """

    def __init__(self, socket_factory: sockets.Sockets, address: str,
                 key: bytes, counters: counts.Counters | None = None) -> None:
        self._sockets = socket_factory
        self._address, self._key = address, key
        self._counters = counters or counts.Counters()
        self.is_over = False
        self.why = ''
        # The monitor is the last to be closed, whoever does it.
        self._socket: Any
        self._monitor: Any
        self._socket, self._monitor = socket_factory.probe(address, key)

    def wait(self, deadline: float) -> None:
        """Wait until it is over.

        :param deadline: monotonic seconds
        """
        while not self.is_over and time.monotonic() < deadline:
            left = int(1000 * (deadline - time.monotonic())) + 1
            self._monitor.poll(left, multiparts.POLLIN)
            self.look()

    def look(self) -> bool:
        """Whether it is over; waits for nothing."""
        while not self.is_over and (multiparts.events(self._monitor)
                                    & multiparts.POLLIN):
            self._judge(curve.outcome(multiparts.receive(self._monitor)))
        return self.is_over

    def _judge(self, outcome: str) -> None:
        if not outcome:
            return
        self.is_over = True
        if outcome == curve.REFUSED:
            self._counters.add('own_key_refused')
            own = keys.fingerprint(self._sockets.access.pair.public)
            self.why = (f'it refuses the key of this process, {own}. Put the '
                        'file of this public key into the directory of its '
                        'trusted keys (rpc_zmq_trusted_keys there)')
        elif outcome == curve.FAILED:
            self._counters.add('wrong_server_keys')
            self.why = ('it does not have the key that its record names, '
                        f'{keys.fingerprint(self._key)}, or its port is not '
                        'encrypted: its record is old, or somebody else '
                        'listens there')
        if self.why and self._sockets.access.may_tell.allows():
            LOG.warning('No connection to %s: %s (more of them are only '
                        'counted for a while, as own_key_refused and '
                        'wrong_server_keys)', self._address, self.why)

    def close(self) -> None:
        """Close its sockets. Twice is fine."""
        self._sockets.close_probe(self._socket, self._monitor)


class Reasons:
    """Finds out why ports do not shake hands, and remembers it for the next
    caller, who may have no time for it.

    :param socket_factory: sockets.Sockets

    Thread: any.
    """

    def __init__(self, socket_factory: sockets.Sockets,
                 counters: counts.Counters | None = None) -> None:
        self._sockets = socket_factory
        self._counters = counters
        self._known: dict[tuple[str, bytes], tuple[str, float]] = {}

    def find(self, address: str, key: bytes, deadline: float) -> str:
        """Why there is no connection to a port, as text; '' if there might be
        one, or nobody knows. Waits for it.

        :param address: of the TCP port, in numbers
        :param key: public key of the port, as its record names it
        :param deadline: monotonic seconds
        """
        now = time.monotonic()
        why, known_at = self._known.get((address, key), ('', 0.0))
        if now - known_at < _KNOWN_FOR:
            return why
        probe = self._probe(address, key, min(deadline, now + _LIMIT))
        if probe is None or not probe.is_over:
            return why if now - known_at < _BELIEVED_FOR else ''
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[address, key] = probe.why, time.monotonic()
        return probe.why

    def _probe(self, address: str, key: bytes,
               deadline: float) -> Probe | None:
        try:
            probe = Probe(self._sockets, address, key, self._counters)
        except descriptors.Short:
            return None
        try:
            probe.wait(deadline)
            return probe
        finally:
            probe.close()
