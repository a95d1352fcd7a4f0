# SPDX-License-Identifier: Apache-2.0
"""The address to which a connection connects, found without waiting."""

import contextlib
import time
from typing import Any

from zmq_threaded import endpoints
from zmq_threaded import timings
from zmq_threaded.net import addresses
from zmq_threaded.net import descriptors
from zmq_threaded.net import happy_eyeballs
from zmq_threaded.net import resolver
from zmq_threaded.security import probe as probes

# Between processes that run a handshake takes less than _TRY_AFTER; after that
# time happy eyeballs tries the addresses, for at most _TRY_LIMIT, and again
# after _TRY_AGAIN.
_TRY_AFTER = timings.ADDRESSES_AFTER
_TRY_LIMIT = timings.ADDRESSES_LIMIT
_TRY_AGAIN = timings.ADDRESSES_AGAIN
_LOOK_AGAIN = 0.5


class Dialer:
    """Which address of an endpoint to connect to, and why none answers.

    :param endpoint: of a record
    :param socket_factory: sockets.Sockets, for probes
    :param key: public key of the endpoint, b'' for an open port
    :param done: called without arguments by any thread, when an address may
        be known that was not when it was asked for
    :ivar address: the endpoint in numbers, None while there is none
    :ivar is_hopeless: it is certain that nobody answers for now
    :ivar why: what was tried, and what came of it

    Thread: outbox.
    """

    def __init__(self, endpoint, done, socket_factory=None, key=b'',
                 counters=None):
        self._endpoint = endpoint
        self._sockets, self._key = socket_factory, key
        self._counters = counters
        self._probe: probes.Probe | None = None
        self._done = done
        self._is_tcp = not endpoint.startswith('ipc://')
        self._addresses = addresses.of_process()
        self._happy_eyeballs: happy_eyeballs.HappyEyeballs | None = None
        self._try_at = time.monotonic() + _TRY_AFTER
        self._try_until = 0.0
        self._tried: tuple[tuple[str, int], ...] = ()
        self.address: Any = None if self._is_tcp else endpoint
        self.is_hopeless = False
        self.why = ''

    def use_key(self, key):
        """The port is said to have another key."""
        self._end()
        self._key, self._try_at = key, time.monotonic() + _TRY_AFTER

    def look(self):
        """Find an address, if there is none yet.

        :raises: endpoints.BadEndpoint
        :returns: the address, or None
        """
        if self.address is None:
            found = self._found()
            if found:
                self._try_at = time.monotonic() + _TRY_AFTER
                self.address = addresses.as_endpoint(found[0])
        return self.address

    def _found(self):
        """The addresses, the best first; () while there are none."""
        try:
            found = self._addresses.look(self._endpoint, self._done)
        except resolver.Unresolved as problem:
            self.is_hopeless, self.why = True, f'{self._endpoint}: {problem}'
            return ()
        if found is None:
            self.why = f'{self._endpoint}: its name is being resolved'
            self._try_at = time.monotonic() + _LOOK_AGAIN
            return ()
        self.is_hopeless, self.why = False, ''
        return found

    def check(self, now, lost_at):
        """To be called now and then while there is no connection.

        :param lost_at: since when, in monotonic seconds
        :returns: an address to connect to in place of the last one, or None
        """
        if not self._is_tcp:
            return None
        if self._probe is not None:
            return self._judge_probe(self._probe, now)
        if self._happy_eyeballs is None:
            if now < max(self._try_at, lost_at + _TRY_AFTER):
                return None
            self._begin(now)
        return self._happy_eyeballs and self._judge(self._happy_eyeballs, now)

    def connected(self):
        """There is a connection: no need to look for another address."""
        self._end()
        self.is_hopeless, self.why = False, ''

    def _begin(self, now):
        self._try_at = now + _TRY_AGAIN
        self._tried = self._found()
        if self._tried:
            self.why = (addresses.describe(self._endpoint, self._tried[0])
                        + ': no answer yet')
            self._happy_eyeballs = happy_eyeballs.HappyEyeballs(self._tried)
            self._try_until = now + _TRY_LIMIT

    def _judge(self, tried, now):
        if not tried.advance() and now < self._try_until:
            return None
        self._end()
        self._try_at = now + _TRY_AGAIN
        if tried.winner is None:
            self.is_hopeless = not tried.is_blind
            self.why = addresses.problems(self._endpoint, tried)
            self._addresses.failed(self._endpoint)
            return None
        self.why = addresses.mute(self._endpoint, tried.winner)
        if tried.winner != self._tried[0]:
            self._addresses.worked(self._endpoint, tried.winner)
        moved = self._moved(addresses.as_endpoint(tried.winner))
        if moved is None and self._key:
            self._begin_probe(now)
        return moved

    def _begin_probe(self, now):
        """Its port takes connections, and does not shake hands."""
        with contextlib.suppress(descriptors.Short, endpoints.BadEndpoint):
            self._probe = probes.Probe(self._sockets, self.address, self._key,
                                       self._counters)
            self._try_until = now + _TRY_LIMIT

    def _judge_probe(self, probe, now):
        """:returns: the address, if a new socket is likely to be let in where
            an earlier one was refused, which for libzmq is for ever
        """
        if not probe.look() and now < self._try_until:
            return None
        self._end()
        self._try_at = now + _TRY_AGAIN
        if probe.why:
            self.is_hopeless = True
            self.why = f'{self._endpoint}: {probe.why}'
        return self.address if probe.is_over and not probe.why else None

    def _moved(self, address):
        if address == self.address:
            return None
        self.address = address
        return address

    def _end(self):
        if self._happy_eyeballs is not None:
            self._happy_eyeballs.close()
            self._happy_eyeballs = None
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def failed(self, why):
        """The address could not even be tried.

        :param why: as text
        """
        self.is_hopeless, self.why = True, why

    def close(self):
        self._end()
        self._done = lambda: None
