# SPDX-License-Identifier: Apache-2.0
"""What the owner of services should know of its node."""

from collections.abc import Iterable
from typing import Any

from zmq_threaded import logs
from zmq_threaded import options
from zmq_threaded.receiver import address
from zmq_threaded.receiver import published
from zmq_threaded.security import access as accesses
from zmq_threaded.status import findings

LOG = logs.get(__name__)

_OPEN = ('The zmq receiver of this node has an open port, and '
         'rpc_zmq_encryption is required here, so other nodes cannot reach '
         'the services of this process')
_REMEDY = ('start the receiver with rpc_zmq_key_file, rpc_zmq_trusted_keys '
           'and rpc_zmq_encryption = required')


class Surroundings:
    """Looks at the receiver of the node, and at the name under which the node
    is published.

    :param settings: options.Settings
    :param ipc_dir: directory of the Unix sockets
    :param found: what is wrong with this process

    :ivar presence: address.Presence
    :ivar published: published.Published

    Thread: any, one at a time.
    """

    def __init__(self, settings: options.Settings, ipc_dir: str,
                 found: findings.Findings) -> None:
        self._settings = settings
        self._ipc_dir = ipc_dir
        self._findings = found
        self._is_open = False
        self.presence = address.Presence(settings, ipc_dir)
        self.published = published.Published(settings)

    def look(self, services: Iterable[Any]) -> None:
        """To be called now and then.

        :param services: of service.service.Service; nothing is done for none,
            and for those that stop
        """
        services = [each for each in services if not each.is_stopping]
        if not services:
            self._complain_if_open(None)
            return
        if self._settings.topology == 'receiver':
            key = (address.receiver_key(self._settings, self._ipc_dir)
                   if self.presence.check() else None)
            self._complain_if_open(key)
            for listening in services if key is not None else ():
                listening.receiver_has_key(key)
        self.published.check()

    def _complain_if_open(self, key: bytes | None) -> None:
        """:param key: None when there is no receiver, or nobody needs it"""
        is_open = (key == b''
                   and self._settings.encryption == options.REQUIRED)
        if is_open:
            self._findings.note('open_receiver', self._settings.host,
                                _OPEN, _REMEDY)
        elif self._is_open:
            self._findings.clear('open_receiver', self._settings.host)
        if is_open and not self._is_open:
            LOG.error('%s. What to do: %s.', _OPEN, _REMEDY)
        self._is_open = is_open

    def problems(self) -> tuple[bool, str]:
        """Whether the receiver of this node is not there, and '' or what is
        wrong with rpc_zmq_host.
        """
        return self.presence.is_there is False, self.published.problem

    def warn_of_open_port(self) -> None:
        """Tell the log that ports are about to be open to everybody."""
        settings = self._settings
        if (settings.topology == 'direct' and settings.transport == 'tcp'
                and not accesses.is_serving(settings)):
            LOG.warning('zmq: TCP ports on %s are open without encryption; '
                        'whoever reaches them may call the services',
                        settings.bind_address)
