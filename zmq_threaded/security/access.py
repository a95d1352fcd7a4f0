# SPDX-License-Identifier: Apache-2.0
"""To whom this process talks over TCP, and with which keys."""

import threading
from typing import Any

from zmq_threaded import counters
from zmq_threaded import endpoints
from zmq_threaded import logs
from zmq_threaded import options
from zmq_threaded.registry import record
from zmq_threaded.security import keys
from zmq_threaded.security import trust

LOG = logs.get(__name__)

# Seconds between two warnings that tell why a handshake failed.
_TELL_EVERY = 60.0


def is_serving(settings: options.Settings) -> bool:
    """Whether the TCP ports of a process with these settings are encrypted.
    """
    return settings.encryption in (options.SERVE, options.REQUIRED)


class Access:
    """Decides to which ports this process connects, and whose keys may
    connect to its own.

    :param settings: options.Settings
    :raises: options.InvalidOption when a file cannot be used
    :ivar is_on: whether there are keys
    :ivar pair: keys.Pair of this process, None without keys
    :ivar version: grows whenever the pair, or a trusted key, comes or goes
    :ivar removals: grows whenever a trusted key goes
    :ivar may_tell: whether to warn of a handshake that failed

    Thread: any; refresh() by one at a time.
    """

    def __init__(self, settings: options.Settings) -> None:
        self._mode = settings.encryption
        self._is_serving = is_serving(settings)
        self._key_file = settings.key_file
        self._directory = settings.trusted_keys
        self.is_on = self._mode != options.DISABLED
        self.pair: Any = None
        self._trusted: trust.TrustedKeys | None = None
        self.version = self.removals = 0
        self._complaint = ''
        self.may_tell = counters.Seldom(_TELL_EVERY)
        self._lock = threading.RLock()
        if self.is_on:
            self._open()

    def _open(self) -> None:
        try:
            self._stamp = keys.file_stamp(self._key_file)
            self.pair = keys.read_pair(self._key_file)
        except keys.BadKey as error:
            raise options.InvalidOption(
                f'rpc_zmq_key_file: {error}') from None
        try:
            self._trusted = trust.TrustedKeys(self._directory)
        except keys.BadKey as error:
            raise options.InvalidOption(
                f'rpc_zmq_trusted_keys: {error}') from None

    def pair_to_bind(self) -> keys.Pair | None:
        """With which a TCP port is to be encrypted; None for an open one."""
        return self.pair if self._is_serving else None

    def is_trusted(self, public: bytes) -> bool:
        """Whether who has this key (Z85 text) may connect."""
        return self._trusted is not None and self._trusted.is_trusted(public)

    def refresh(self) -> bool:
        """Read the keys again, if their files have changed.

        :returns: whether a key came or went
        """
        if self._trusted is None:
            return False
        with self._lock:
            before = self.version
            if self._trusted.refresh():
                self.removals = self._trusted.removals
                self.version += 1
            self._refresh_pair()
            return self.version != before

    def _refresh_pair(self) -> None:
        stamp = keys.file_stamp(self._key_file)
        if stamp == self._stamp:
            return
        try:
            pair = keys.read_pair(self._key_file)
        except keys.BadKey as error:
            # Again the next time: it may be half written.
            if str(error) != self._complaint:
                LOG.error('rpc_zmq_key_file: %s. The key that was there '
                          'before stays in use', error)
            self._complaint = str(error)
            return
        self._stamp, self._complaint = stamp, ''
        if pair != self.pair:
            self.pair = pair
            self.version += 1
            LOG.info('zmq: the key in %s is a new one, %s', self._key_file,
                     keys.fingerprint(pair.public))

    def refusal(self, key: bytes) -> str:
        """Why this process does not connect to a TCP port.

        :param key: public key of the port as its record names it, b'' for
            an open port
        :returns: text, '' if it does connect
        """
        if not key:
            return ('its port is open, and rpc_zmq_encryption is required '
                    'here' if self._mode == options.REQUIRED else '')
        if not self.is_on:
            return ('its port is encrypted, and this process has no key. Set '
                    'rpc_zmq_key_file and rpc_zmq_trusted_keys')
        if self.is_trusted(key):
            return ''
        return (f'its key {_shown(key)} is not among the trusted keys in '
                f'{self._directory}. If it is the right one, put the file of '
                'its public key there')

    def problem(self, instance: record.Instance) -> str:
        """Why an instance counts as not there; '' if it counts."""
        refusal = self.refusal(instance.key)
        if not refusal:
            return ''
        usable = endpoints.reachable(instance.endpoints)
        return '' if usable is None or usable.startswith('ipc:') else refusal


def _shown(key):
    # A record may name anything.
    return (keys.fingerprint(key) if keys.is_public_key(key)
            else '(which is no key)')
