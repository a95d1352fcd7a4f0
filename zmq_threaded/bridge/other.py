# SPDX-License-Identifier: Apache-2.0
"""The other driver of a bridge."""

import os
import socket
from typing import Any

import oslo_messaging
from oslo_messaging._drivers import base
from stevedore import driver

from zmq_threaded import errors
from zmq_threaded.bridge import patience

_DRIVERS = 'oslo.messaging.drivers'
# The ports that these drivers take if the URL has none.
_PORTS = {'rabbit': 5672, 'kombu': 5672, 'kafka': 9092}
_CONNECT_LIMIT = 2.0


class Other:
    """The other driver, in each process that uses it.

    The rabbit driver does not bear a fork once it was used. So each process
    makes one of its own. A child keeps that of its parent without using it:
    its end would close the parent's connections.

    :param text: transport URL, perhaps with a password
    :raises: errors.ConfigurationError
    :ivar patience: with it, when it stops

    Thread: any.
    """

    def __init__(self, conf, text: str, default_exchange,
                 allowed_remote_exmods) -> None:
        self.patience = patience.Patience()
        self._url = _parse(conf, text)
        self._class = _class(self._url.transport.partition('+')[0])
        self._arguments = conf, self._url, default_exchange, (
            allowed_remote_exmods or [])
        # Made at once: what its options say wrong is told at the start.
        self._by_pid: dict[int, base.BaseDriver] = {
            os.getpid(): self._make()}

    def __getstate__(self):
        return {**self.__dict__, '_by_pid': {}}

    def __str__(self) -> str:
        """Where it is, without user and password."""
        places = [f'{host.hostname or ""}:{host.port or ""}'.rstrip(':')
                  for host in self._url.hosts]
        return f'{self._url.transport}://{",".join(places)}'

    def current(self) -> base.BaseDriver:
        """The driver of this process."""
        pid = os.getpid()
        found = self._by_pid.get(pid)
        # Of all threads that found none, the first one's.
        return found or self._by_pid.setdefault(pid, self._make())

    def cleanup(self) -> None:
        """Close what this process has; a later use makes another one."""
        made = self._by_pid.pop(os.getpid(), None)
        if made is not None:
            made.cleanup()

    def why_unreachable(self) -> str:
        """Why no server can be reached at all; '' if one can, or if that is
        not known.

        The rabbit driver tries for ever, and nothing can stop it. So this is
        asked first.
        """
        said = ''
        for host, port in self._addresses():
            try:
                socket.create_connection((host, port), _CONNECT_LIMIT).close()
                return ''
            except (OSError, UnicodeError) as error:    # no name at all
                said = f'{host}, port {port}: {error}'
        return said

    def _addresses(self):
        usual = _PORTS.get(self._url.transport.partition('+')[0])
        addresses = [(host.hostname or 'localhost', host.port or usual)
                     for host in self._url.hosts] or [('localhost', usual)]
        return [each for each in addresses if each[1]]

    def _make(self) -> Any:
        conf, url, exchange, allowed = self._arguments
        try:
            return self._class(conf, url, default_exchange=exchange,
                               allowed_remote_exmods=allowed)
        except Exception as error:
            raise errors.ConfigurationError(
                f'rpc_zmq_bridge: the driver of {self} cannot be made: '
                f'{error}') from error


def _parse(conf, text):
    try:
        url = oslo_messaging.TransportURL.parse(conf, text)
    except Exception:
        # What it says has parts of the URL, of which one is a password.
        raise errors.ConfigurationError(
            'rpc_zmq_bridge: this is no transport URL. It has the form '
            'rabbit://user:password@host:port/virtual_host, with other '
            'characters than letters and digits written as %nn. In the query '
            'of another URL all of it is escaped once more.') from None
    if url.transport.partition('+')[0] == 'zmq':
        raise errors.ConfigurationError(
            'rpc_zmq_bridge: a bridge leads to another driver than zmq')
    return url


def _class(name):
    try:
        return driver.DriverManager(_DRIVERS, name).driver
    except Exception as error:
        raise errors.ConfigurationError(
            f'rpc_zmq_bridge: oslo.messaging has no driver {name!r}, or it '
            f'cannot be loaded: {error}') from None
