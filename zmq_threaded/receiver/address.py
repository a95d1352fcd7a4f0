# SPDX-License-Identifier: Apache-2.0
"""Where the receiver of a node and the services behind it are found."""

import contextlib
import hashlib
import os

from zmq_threaded import logs
from zmq_threaded import sockets

LOG = logs.get(__name__)

COMMAND = 'oslo-messaging-zmq-receiver'


def service_path(ipc_dir, instance_id):
    """The Unix socket of a service.

    :param instance_id: 16 bytes from anywhere; their hexadecimal digits
        cannot lead out of the directory
    """
    return os.path.join(ipc_dir, f'{instance_id.hex()}.sock')


def listed(ipc_dir):
    """Set of the ids of all services that have a Unix socket here."""
    found = set()
    for name in os.listdir(ipc_dir):
        stem, extension = os.path.splitext(name)
        if extension == '.sock':
            with contextlib.suppress(ValueError):
                found.add(bytes.fromhex(stem))
    return found


def receiver_path(settings, ipc_dir):
    """The Unix socket of the receiver, for clients of the same node.

    Its name is of the node: a record with it is read on other nodes too,
    where the same path must not lead to their own receiver.
    """
    node = f'{settings.host}:{settings.receiver_port}'
    digest = hashlib.sha256(node.encode()).hexdigest()[:16]
    return os.path.join(ipc_dir, f'receiver-{digest}.sock')


def receiver_endpoints(settings, ipc_dir):
    """The endpoints of the receiver, as a record has them."""
    return (f'ipc://{receiver_path(settings, ipc_dir)}',
            sockets.tcp_endpoint(settings, settings.receiver_port))


class Presence:
    """Tells the log when the receiver of this node is not there.

    Thread: any, one at a time.
    """

    def __init__(self, settings, ipc_dir):
        self._settings = settings
        self._ipc_dir = ipc_dir
        self._was_there = True

    def check(self):
        """:returns: whether the receiver listens"""
        endpoint, _ = receiver_endpoints(self._settings, self._ipc_dir)
        is_there = not sockets.is_dead(endpoint)
        if is_there != self._was_there:
            self._was_there = is_there
            self._tell(is_there)
        return is_there

    def _tell(self, is_there):
        where = (f'{self._settings.host}, rpc_zmq_port '
                 f'{self._settings.receiver_port}, rpc_zmq_ipc_dir '
                 f'{self._ipc_dir}')
        if is_there:
            LOG.info('The zmq receiver of this node is there (%s)', where)
        else:
            LOG.warning(
                'No zmq receiver runs on this node (%s), so nobody can reach '
                'its services; start it with: %s --config-file <the file of '
                'this service>. It will be used as soon as it is there.',
                where, COMMAND)
