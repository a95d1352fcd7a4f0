# SPDX-License-Identifier: Apache-2.0
"""The directory of the IPC sockets and of the embedded registry."""

import os
import stat

from zmq_threaded import logs
from zmq_threaded import options

LOG = logs.get(__name__)

_DEFAULT = '/var/run/openstack'
_FALLBACK = '/tmp/openstack-zmq-%d'
_warned_of: dict[tuple[int, str, bool], object] = {}


def find(settings: options.Settings) -> str:
    """The path of the directory, which is made when it is missing.

    A directory that was asked for by name never falls back: two users in
    different directories would miss each other in silence.

    :raises: options.InvalidOption
    """
    path = _usable_directory(settings)
    _warn_if_open(path)
    return path


def _warn_if_open(path):
    mode, pid = os.stat(path).st_mode, os.getpid()
    if not mode & stat.S_IXOTH:
        return
    may_write = bool(mode & stat.S_IWOTH)
    # Once for each process and directory; a Runtime is made for each driver.
    if _warned_of.setdefault((pid, path, may_write), token := object()
                             ) is not token:
        return
    what = ('write into %s, and so call the services, and take their messages'
            if may_write else
            'enter %s: they reach each socket there whose own mode lets them, '
            'which those of this driver do not')
    LOG.warning(f'rpc_zmq_ipc_dir: every user of this machine may {what}; '
                'give it to one user or group (mode 0700 or 2770)', path)


def _usable_directory(settings):
    if settings.ipc_dir:
        path = os.path.abspath(settings.ipc_dir)
        _ensure(path)
        return path
    is_there = os.path.lexists(_DEFAULT)
    try:
        _ensure(_DEFAULT)
        _refuse_read_only(_DEFAULT)
        return _DEFAULT
    except options.InvalidOption as error:
        path = _private_directory(_FALLBACK % os.getuid())
        if is_there:
            LOG.warning('%s; %s is used in its place, where only processes of '
                        'this user are found', error, path)
        return path


def check(settings: options.Settings) -> None:
    """Refuse a directory that was asked for and can never work; makes none,
    for a service may drop its privileges later.

    :raises: options.InvalidOption
    """
    path = settings.ipc_dir and os.path.abspath(settings.ipc_dir)
    if path and os.path.lexists(path):
        _ensure(path)


def _ensure(path):
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise options.InvalidOption(f'rpc_zmq_ipc_dir: {error}') from None
    if os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return
    if not (_is_read_only(path) and os.access(path, os.R_OK | os.X_OK)):
        status = os.stat(path)
        raise options.InvalidOption(
            f'rpc_zmq_ipc_dir: no permission for {path} (it belongs to user '
            f'{status.st_uid} and group {status.st_gid}, mode '
            f'{stat.S_IMODE(status.st_mode):04o}; this process runs as user '
            f'{os.geteuid()})')
    # It may be written again; clients work meanwhile.
    LOG.warning('rpc_zmq_ipc_dir: %s is on a read-only file system; no '
                'service can start or be registered there', path)


def _refuse_read_only(path):
    if _is_read_only(path):
        raise options.InvalidOption(
            f'rpc_zmq_ipc_dir: {path} is on a read-only file system')


def _is_read_only(path):
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _private_directory(path):
    _ensure(path)
    status = os.lstat(path)
    # /tmp is everybody's: somebody else may have made it, or a link.
    if (status.st_uid != os.getuid() or status.st_mode & 0o077
            or not os.path.isdir(path) or os.path.islink(path)):
        raise options.InvalidOption(
            f'rpc_zmq_ipc_dir: {path} is not a private directory of this '
            'user; set the option')
    return path
