# SPDX-License-Identifier: Apache-2.0
"""Keys of CURVE for tests: a directory of them, and of whom is trusted."""

import os
import shutil

from zmq_threaded.security import keys


class KeyRing:
    """Pairs of keys by name, and one directory of trusted keys.

    :param directory: pathlib.Path
    """

    def __init__(self, directory):
        self._pairs = directory / 'pairs'
        self.trusted = directory / 'trusted'
        self._pairs.mkdir()
        self.trusted.mkdir()

    def make(self, name, is_trusted=True):
        """A new pair.

        :returns: the path of its secret file
        """
        public, secret = keys.create(str(self._pairs), name)
        if is_trusted:
            self.trust(name)
        return secret

    def pair(self, name):
        return keys.read_pair(str(self._pairs / f'{name}.key_secret'))

    def trust(self, name):
        # In one step: it is read every second.
        shutil.copy(self._pairs / f'{name}.key', self.trusted / f'.{name}')
        os.rename(self.trusted / f'.{name}', self.trusted / f'{name}.key')

    def revoke(self, name):
        (self.trusted / f'{name}.key').unlink()

    def query(self, name, mode='required'):
        """Options of a process that has the pair of this name."""
        return {'rpc_zmq_encryption': mode,
                'rpc_zmq_key_file': str(self._pairs / f'{name}.key_secret'),
                'rpc_zmq_trusted_keys': str(self.trusted)}
