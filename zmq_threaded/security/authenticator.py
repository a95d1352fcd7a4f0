# SPDX-License-Identifier: Apache-2.0
"""Tells libzmq who may connect to an encrypted port (ZAP, ZeroMQ RFC 27).

pyzmq's ThreadAuthenticator would do the same with a loop of asyncio, in a
thread without a name that is joined without a limit, and it does not tell
from which address a key came that it refuses.
"""

import time
from typing import Any

from zmq_threaded import counters as counts
from zmq_threaded import logs
from zmq_threaded import mailbox
from zmq_threaded import sockets
from zmq_threaded import threads
from zmq_threaded.net import multiparts
from zmq_threaded.security import access as accesses
from zmq_threaded.security import curve
from zmq_threaded.security import keys

LOG = logs.get(__name__)

_VERSION = b'1.0'
_ACCEPTED, _REFUSED, _FAULT = b'200', b'400', b'500'
# Seconds between two looks at the files; also as a multiple of what a look
# takes, but not so long that a key that was taken away is trusted for 5 s.
_LOOK_EVERY, _REST, _LONGEST = 1.0, 100, 3.0
# So soon a key that was just put there is found, when it is asked for.
_LOOK_SOON = 0.2
_JOIN_LIMIT = 5.0


class Authenticator:
    """Answers the questions of libzmq, and looks after the files of the keys.

    While it does not run, nobody gets in to an encrypted port. Without keys
    it does nothing.

    :param socket_factory: sockets.Sockets of the context
    :raises: descriptors.Short

    Thread: any for the public methods, keys for the rest.
    """

    def __init__(self, socket_factory: sockets.Sockets,
                 counters: counts.Counters) -> None:
        self._sockets = socket_factory
        self._access: accesses.Access = socket_factory.access
        self._counters = counters
        self._may_warn = counts.Seldom()
        self._may_warn_of_look = counts.Seldom()
        self._looked_at = time.monotonic()
        self._interval = _LOOK_EVERY
        self._loop: threads.Loop | None = None
        if self._access.is_on:
            self._open()

    def _open(self) -> None:
        # Bound at once: who binds a port afterwards is protected by it.
        self._socket: Any = self._sockets.authenticator()
        try:
            self._mailbox = mailbox.PolledMailbox()
            try:
                self._mailbox.watch(int(self._socket.fd))
                self._loop = threads.Loop(
                    'zmq-keys', self._turn, self._mailbox.wake,
                    self._counters, finish=self._finish)
            except BaseException:
                self._mailbox.close()
                raise
        except BaseException:
            self._sockets.close(self._socket, linger=0)
            raise

    def start(self) -> None:
        """Begin to answer; before a port is bound.

        :raises: descriptors.Short
        """
        if self._loop is not None:
            self._loop.start()

    def end(self) -> None:
        """End the thread, within a few seconds. Twice is fine."""
        if self._loop is not None:
            self._loop.stop()
            self._loop.join(time.monotonic() + _JOIN_LIMIT)

    def look_again(self) -> None:
        """Look at the files of the keys now. In any thread."""
        if self._loop is not None:
            self._mailbox.put(self._look)

    def _finish(self) -> None:
        self._sockets.close(self._socket, linger=0)
        self._mailbox.close()

    def _turn(self) -> None:
        due = self._looked_at + self._interval
        self._mailbox.wait(max(0.0, due - time.monotonic()))
        self._answer_all()
        while self._mailbox.items:
            self._mailbox.items.popleft()()
        if time.monotonic() >= due:
            self._look()

    def _look(self) -> None:
        began = time.monotonic()
        try:
            self._access.refresh()
        except Exception:
            self._counters.add('loop_errors')
            if self._may_warn_of_look.allows():
                LOG.exception('The files of the keys cannot be looked at, for '
                              'an unexpected error; it is tried again')
        self._looked_at = time.monotonic()
        self._interval = min(max(
            _LOOK_EVERY, _REST * (self._looked_at - began)), _LONGEST)

    def _answer_all(self) -> None:
        while multiparts.events(self._socket) & multiparts.POLLIN:
            question = multiparts.receive(self._socket)
            multiparts.send(self._socket, self._answer(question))

    def _answer(self, question: list[bytes]) -> list[bytes]:
        """:param question: the frames of RFC 27, of which libzmq sends all"""
        # A REP that does not answer is of no more use.
        try:
            user = self._user(*question[2:])
            code = _REFUSED if user is None else _ACCEPTED
        except Exception:
            self._counters.add('loop_errors')
            LOG.exception('A peer is refused for an unexpected error')
            user, code = None, _FAULT
        return [_VERSION, question[1], code, b'', user or b'', b'']

    def _user(self, domain: bytes, address: bytes, _identity: bytes,
              mechanism: bytes, *credentials: Any) -> bytes | None:
        """Who it is that wants to connect; None if he may not."""
        if (domain, mechanism) == (curve.IPC_DOMAIN, b'NULL'):
            return b''
        if ((domain, mechanism) != (curve.TCP_DOMAIN, b'CURVE')
                or len(credentials) != 1):
            return None
        public = keys.text_of(credentials[0])
        if self._is_trusted(public):
            return public
        self._counters.add('keys_refused')
        if self._may_warn.allows():
            LOG.warning(
                'A peer at %s was refused, for its key %s is not among the '
                'trusted keys (rpc_zmq_trusted_keys). If it is to be let in, '
                'put the file of its public key there (more of them are only '
                'counted for a while, as keys_refused)',
                address.decode(errors='replace'), keys.fingerprint(public))
        return None

    def _is_trusted(self, public: bytes) -> bool:
        if self._access.is_trusted(public):
            return True
        if time.monotonic() - self._looked_at < _LOOK_SOON:
            return False
        self._look()
        return self._access.is_trusted(public)
