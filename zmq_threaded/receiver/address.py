# SPDX-License-Identifier: Apache-2.0
"""Where the receiver of a node and the services behind it are found."""

import contextlib
import glob
import hashlib
import os
import re
import stat
import time

from zmq_threaded import endpoints
from zmq_threaded import logs
from zmq_threaded import options
from zmq_threaded.net import paths

LOG = logs.get(__name__)

COMMAND = 'oslo-messaging-zmq-receiver'

# The path as it was bound: the socket file gets its name afterwards
# (net/accept_gate.py). Earlier releases bound the name itself.
_SOCKET = re.compile(r'(.*/receiver-[0-9a-f]{16})\.(next|sock)')
# The flags of a Unix socket that takes connections, in /proc/net/unix.
_ACCEPTS = '00010000'
_LONGEST_NOTE, _NAMED = 1000, 3
_LOOK_EVERY = 10.0


def service_path(ipc_dir, instance_id):
    """The Unix socket of a service.

    :param instance_id: 16 bytes from anywhere; their hexadecimal digits
        cannot lead out of the directory
    """
    return os.path.join(ipc_dir, f'{instance_id.hex()}.sock')


def listed(ipc_dir):
    """Set of the ids of all services that have a Unix socket here. The
    directory may be gone for a moment, and the sockets with it.

    :raises: OSError when nobody knows
    """
    try:
        names = os.listdir(ipc_dir)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    found = set()
    for name in names:
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
    return os.path.join(ipc_dir, _socket_name(_node(settings)))


def _node(settings):
    return f'{settings.host}:{settings.receiver_port}'


def _socket_name(node):
    digest = hashlib.sha256(node.encode(errors='replace')).hexdigest()[:16]
    return f'receiver-{digest}.sock'


def receiver_endpoints(settings, ipc_dir):
    """The endpoints of the receiver, as a record has them."""
    return (f'ipc://{receiver_path(settings, ipc_dir)}',
            endpoints.tcp_endpoint(settings, settings.receiver_port))


def endpoints_behind(settings, ipc_dir, key):
    """The endpoints of a service behind the receiver. Its open port is not
    among them where encryption is required.

    :param key: public key of the port of the receiver, b'' for an open one
    """
    ipc, tcp = receiver_endpoints(settings, ipc_dir)
    is_open = not key and settings.encryption == options.REQUIRED
    return (ipc,) if is_open else (ipc, tcp)


def leave_note(settings, ipc_dir, key=b''):
    """Say beside the socket of a receiver for which host and port it is, and
    in a second line which public key its port has, if it is encrypted.

    It may stay behind when the receiver is killed: it is believed only
    beside a socket on which somebody listens, and if it fits its name.
    """
    path = _note_path(receiver_path(settings, ipc_dir))
    remove_note(settings, ipc_dir)
    with contextlib.suppress(OSError):
        # Never through a link that somebody has put there.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, 'w', encoding='utf-8', errors='replace') as note:
            os.fchmod(fd, 0o644)    # the directory has the permissions
            note.write(_node(settings) + (f'\n{key.decode()}' if key else ''))


def receiver_key(settings, ipc_dir):
    """The public key of the port of this node's receiver, b'' for an open
    port; None when there is no receiver that says so.
    """
    node, _, key = _note(receiver_path(settings, ipc_dir)).partition('\n')
    return key.encode() if node == _node(settings) else None


def remove_note(settings, ipc_dir):
    paths.remove(_note_path(receiver_path(settings, ipc_dir)))


def _note_path(path):
    return path.removesuffix('.sock') + '.txt'


def other_receivers(settings, ipc_dir):
    """The receivers that run here, in words, for whatever node they are.

    :returns: list of str: those of the same host and port first, then those
        of the same directory
    """
    expected = os.path.basename(receiver_path(settings, ipc_dir))
    paths = glob.glob(os.path.join(glob.escape(ipc_dir), 'receiver-*.sock'))
    living = {path for path in paths if not endpoints.is_dead(f'ipc://{path}')}
    there = living | set(_listening())
    return [_describe(path) for path in sorted(there, key=lambda path: (
        os.path.basename(path) != expected,
        os.path.dirname(path) != ipc_dir, path))]


def _listening():
    """Paths of all receivers of this machine (of its network namespace)."""
    try:
        with open('/proc/net/unix', errors='replace') as listed:
            lines = [line.rstrip('\n').split(maxsplit=7) for line in listed]
    except OSError:
        return []
    bound = [_SOCKET.fullmatch(line[7]) for line in lines
             if len(line) == 8 and line[3] == _ACCEPTS]
    return [f'{each[1]}.sock' for each in bound if each]


def _describe(path):
    node = _note(path).partition('\n')[0]
    if not node.isprintable() or _socket_name(node) != os.path.basename(path):
        who = 'another rpc_zmq_host or rpc_zmq_port'
    else:
        host, _, port = node.rpartition(':')
        who = f'rpc_zmq_host {host}, rpc_zmq_port {port}'
    return f'{who}, rpc_zmq_ipc_dir {os.path.dirname(path)!r}'


def _note(path):
    """What is beside a socket; '' for what is no file, or not readable."""
    with contextlib.suppress(OSError, ValueError):
        fd = os.open(_note_path(path), os.O_RDONLY | os.O_NONBLOCK)
        with open(fd, encoding='utf-8') as note:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return note.read(_LONGEST_NOTE)
    return ''


class Presence:
    """Tells the log when the receiver of this node is not there.

    :ivar is_there: whether it listened at the last look; None before that

    Thread: any, one at a time.
    """

    def __init__(self, settings, ipc_dir):
        self._settings = settings
        self._ipc_dir = ipc_dir
        # None: it is there; else those that are there in its place.
        self._others = None
        self._next_look = 0.0
        self.is_there = None

    def check(self):
        """:returns: whether the receiver listens"""
        endpoint, _ = receiver_endpoints(self._settings, self._ipc_dir)
        is_there = self.is_there = not endpoints.is_dead(endpoint)
        now = time.monotonic()
        if is_there and self._others is not None:
            self._others, self._next_look = None, 0.0
            LOG.info('The zmq receiver of this node is there (%s)',
                     self._where())
        elif not is_there and now >= self._next_look:
            self._next_look = now + _LOOK_EVERY
            self._look_for_others()
        return is_there

    def _look_for_others(self):
        others = other_receivers(self._settings, self._ipc_dir)
        if others == self._others:
            return
        self._others = others
        if others:
            LOG.warning(
                'A zmq receiver runs on this node for %s; but the services '
                'of this process expect one for %s, so nobody can reach '
                'them. Give the same options to both, or start another one '
                'with: %s --config-file <the file of this service>.',
                '; '.join(others[:_NAMED]), self._where(), COMMAND)
        else:
            LOG.warning(
                'No zmq receiver runs on this node (%s), so nobody can reach '
                'its services; start it with: %s --config-file <the file of '
                'this service>. It will be used as soon as it is there.',
                self._where(), COMMAND)

    def _where(self):
        return (f'rpc_zmq_host {self._settings.host}, rpc_zmq_port '
                f'{self._settings.receiver_port}, rpc_zmq_ipc_dir '
                f'{self._ipc_dir}')
