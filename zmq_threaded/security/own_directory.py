# SPDX-License-Identifier: Apache-2.0
"""Which Unix sockets a record may lead this process to.

Whoever may write to the registry may name any path in a record. IPC goes
without keys, for the permissions of the ipc directory guard it. So only
sockets in the ipc directory of this process are used.
"""

import dataclasses
import functools
import os

from zmq_threaded.client import reasons
from zmq_threaded.registry import record

_IPC = 'ipc://'
# Why a record may have no TCP endpoint, and what to do.
_BEHIND = ('it has rpc_zmq_encryption = required, and its receiver has no '
           'encrypted port. Start that receiver with rpc_zmq_key_file, '
           'rpc_zmq_trusted_keys and rpc_zmq_encryption = required')
_DIRECT = 'it has no rpc_zmq_transport = tcp'


class OwnDirectory:
    """The ipc directory of this process.

    :param path: str

    Thread: any.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._real = os.path.realpath(path)

    def only(self, instance: record.Instance) -> record.Instance:
        """The instance without sockets in other directories; as it is, if
        nothing would be left.
        """
        found = tuple(filter(None, map(self._own, instance.endpoints)))
        if not found or found == instance.endpoints:
            return instance
        return dataclasses.replace(instance, endpoints=found)

    def problem(self, instance: record.Instance) -> str:
        """Why nobody may connect to an instance; '' if one may."""
        if all(map(self._own, instance.endpoints)):
            return ''
        why = (f'its socket is not in {self._path}, the rpc_zmq_ipc_dir of '
               'this process, and its record has no TCP endpoint: '
               f'{_BEHIND if instance.receiver else _DIRECT}. If both are on '
               'one machine, give both the same rpc_zmq_ipc_dir')
        more = reasons.unusable(instance.endpoints)
        return f'{why}; {more}' if more else why

    def _own(self, endpoint: str) -> str:
        """The endpoint as this process names it; '' for one of another
        directory.
        """
        if not endpoint.startswith(_IPC):
            return endpoint
        folder, _, name = endpoint.removeprefix(_IPC).rpartition('/')
        if name in ('', '.', '..'):
            return ''
        if folder == self._path:
            return endpoint
        # By its own name: what the other one leads to may change.
        return (f'{_IPC}{self._path}/{name}' if _real(folder) == self._real
                else '')


@functools.lru_cache(1000)
def _real(folder: str) -> str:
    return os.path.realpath(folder)
