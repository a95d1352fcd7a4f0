# SPDX-License-Identifier: Apache-2.0
"""What an engine tells of its groups when they change.

Nothing depends on a notice: who misses one looks the topic up later. So what
fails here is told at the level of debugging alone, and tried again later. Only
of what is forbidden there is a warning, once, for that does not end by itself.
"""

import contextlib
import socket
import time
from collections.abc import Callable
from collections.abc import Collection
from typing import Any
from typing import Protocol

from zmq_threaded import backoff
from zmq_threaded import logs
from zmq_threaded import mailbox
from zmq_threaded.registry import troubles

LOG = logs.get(__name__)

# Seconds between two attempts at what has failed. An engine may never allow
# it, and a look-up waits for an attempt.
_FIRST_WAIT, _LAST_WAIT = 1.0, 60.0
# Seconds that a failure may take before other topics wait for it too.
_LONG = 0.1
# Seconds of silence after which the kernel asks whether the other end is
# there, seconds between two questions, and how many go unanswered.
_KEEPALIVE = ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
              (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
              (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
              (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3))
# An error of the client of redis, which need not be installed.
_REFUSAL = 'NoPermissionError'

# Tells that the topic of a key may have changed, and how many processes are
# told the same, 0 if nobody knows. In any thread.
Tell = Callable[[str, int], None]


class Notices(Protocol):
    """What each engine has for it. The methods may raise any Exception.

    Thread: registry's engine; registry for bind() and forget(), and for
    close() if the engine has no thread.
    """

    @property
    def fd(self) -> int | None:
        """Readable when read() has something to do, if there is one."""

    def bind(self, polled: mailbox.PolledMailbox, tell: Tell) -> None:
        """Once, before all else.

        :param polled: waits for descriptors; it waits for fd no longer when
            it was readable, until read() or watch() has it wait again
        """

    def watch(self, coordinator: Any, key: str) -> bool:
        """Tell of this topic from now on. To be called after each look-up of
        it; most often there is nothing to do.

        :returns: whether it was not told of, so that what has happened since
            the look-up may have been missed
        """

    def read(self) -> None:
        """Tell what has come."""

    def announce(self, coordinator: Any, keys: Collection[str]) -> None:
        """We have changed these topics: tell the others, where the engine
        does not.
        """

    def forget(self, key: str) -> None:
        """Tell nothing of this topic any more."""

    def close(self) -> None:
        """Give back all that is open."""


class NoNotices:
    """Those of an engine that needs nothing to be done for them, or has none.

    Thread: any.
    """

    fd: int | None = None

    def bind(self, polled: mailbox.PolledMailbox, tell: Tell) -> None:
        """As Notices says."""

    def watch(self, coordinator: Any, key: str) -> bool:
        """As Notices says."""
        return False

    def read(self) -> None:
        """As Notices says."""

    def announce(self, coordinator: Any, keys: Collection[str]) -> None:
        """As Notices says."""

    def forget(self, key: str) -> None:
        """As Notices says."""

    def close(self) -> None:
        """As Notices says."""


class Readable:
    """That part of Notices which is the same for all that are read from a
    descriptor.

    :ivar fd: as Notices says; set by who opens it

    Thread: as Notices says.
    """

    fd: int | None = None

    def bind(self, polled: mailbox.PolledMailbox, tell: Tell) -> None:
        """As Notices says."""
        self._polled, self._tell = polled, tell

    def _listen(self) -> None:
        if self.fd is not None:
            with contextlib.suppress(FileExistsError):
                self._polled.watch(self.fd)

    def _listen_no_more(self) -> None:
        """Before it is closed: a child may have hold of it."""
        fd, self.fd = self.fd, None
        if fd is not None:
            with contextlib.suppress(OSError, ValueError):
                self._polled.unwatch(fd)


def keep_alive(stream: socket.socket) -> None:
    """Have the kernel ask whether the other end is there."""
    for option in _KEEPALIVE:
        with contextlib.suppress(OSError):      # of a Unix socket
            stream.setsockopt(*option)


class Tolerant:
    """Notices whose failures hold up nobody.

    :param notices: of the engine
    :param hide: takes secrets out of a text

    Thread: as Notices says.
    """

    def __init__(self, notices: Notices, hide: Callable[[str], str]) -> None:
        self._notices = notices
        self._hide = hide
        self._polled: mailbox.PolledMailbox | None = None
        # By the key of a topic that failed; and of failures that took long.
        self._watching: dict[str, backoff.Backoff] = {}
        self._hanging = backoff.Backoff(_FIRST_WAIT, _LAST_WAIT)
        self._announcing = backoff.Backoff(_FIRST_WAIT, _LAST_WAIT)
        self._has_warned = False

    def bind(self, polled: mailbox.PolledMailbox, tell: Tell) -> None:
        """As Notices says."""
        self._polled = polled
        self._notices.bind(polled, tell)

    def is_due(self, ready: Collection[tuple[int, int]]) -> bool:
        """Whether read() is to be called; the registry thread asks.

        :param ready: what the mailbox has returned
        """
        fd = self._notices.fd
        if fd is None or self._polled is None or not any(
                fd == each for each, _ in ready):
            return False
        # Or an engine that hangs would let the thread spin.
        try:
            self._polled.unwatch(fd)
        except OSError:
            pass        # it is another one by now
        return True

    def watch(self, coordinator: Any, key: str) -> bool:
        """As Notices says, but for errors."""
        began = time.monotonic()
        if self._hanging.is_waiting(began):
            return False
        wait = self._watching.get(key) or backoff.Backoff(_FIRST_WAIT,
                                                          _LAST_WAIT)
        is_new = bool(self._try(wait, self._notices.watch, coordinator, key))
        if not wait.seconds:
            self._watching.pop(key, None)
            self._hanging.succeeded()
            return is_new
        self._watching[key] = wait
        now = time.monotonic()
        if now - began > _LONG:
            self._hanging.failed(now)
        return False

    def forget(self, key: str) -> None:
        """As Notices says."""
        self._watching.pop(key, None)
        self._notices.forget(key)

    def read(self) -> None:
        """As Notices says, but for errors."""
        self._try(backoff.Backoff(0, 0), self._notices.read)

    def announce(self, coordinator: Any, keys: Collection[str]) -> None:
        """As Notices says, but for errors."""
        self._try(self._announcing, self._notices.announce, coordinator,
                  keys)

    def close(self) -> None:
        """As Notices says, but for errors."""
        self._try(backoff.Backoff(0, 0), self._notices.close)

    def _try(self, wait: backoff.Backoff, step: Callable[..., Any],
             *args: Any) -> Any:
        if wait.is_waiting(time.monotonic()):
            return None
        try:
            result = step(*args)
        except Exception as error:
            seconds = wait.failed(time.monotonic())
            self._warn_of_refusal(error)
            LOG.debug('zmq: services that come and go are found later, for '
                      'the registry gives no notice of them; the next try is '
                      'in %.0f s: %s', seconds,
                      self._hide(troubles.text(error)))
            return None
        wait.succeeded()
        return result

    def _warn_of_refusal(self, error: Exception) -> None:
        if self._has_warned or type(error).__name__ != _REFUSAL:
            return
        self._has_warned = True
        LOG.warning(
            'zmq: the redis of the registry does not let this user publish '
            'or subscribe, so services that come and go are found later. All '
            'else works. What to do: give the user these rights: '
            '+@pubsub &zmq_threaded:* (ACL SETUSER). The redis says: %s',
            self._hide(troubles.text(error)))
