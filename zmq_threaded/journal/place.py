# SPDX-License-Identifier: Apache-2.0
"""Where journals are, what their files are called, and who may use them."""

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Iterable
from urllib import parse

from zmq_threaded import logs
from zmq_threaded import options
from zmq_threaded.journal import locks
from zmq_threaded.journal import reserve
from zmq_threaded.registry import tooz_url

LOG = logs.get(__name__)

FOLDER = 'journals'
SUFFIX, LOCK = '.journal', '.lock'
# What sqlite has beside a database.
_BESIDE = ('-wal', '-shm', '-journal')
_BROKEN = '.set-aside'
# By engine: the port and the namespace of a URL that names none.
_PORTS = {'redis': 6379, 'sentinel': 26379, 'etcd': 2379, 'zookeeper': 2181}
_NAMESPACES = {'redis': '_tooz', 'sentinel': '_tooz', 'zookeeper': 'tooz'}
_ENGINES = {'etcd3': 'etcd', 'kazoo': 'zookeeper'}
# (pid, path) of the directories that could not be read, which was reported.
_unreadable: dict[tuple[int, str], object] = {}


class Place:
    """The directory of the journals. Those of other registries may lie in
    it too, and are left alone.

    :param path: rpc_zmq_custody_dir, '' for the default
    :param ipc_dir: absolute path of the IPC directory
    :param registry: what the registry is, as text; processes with another
        registry cannot deliver what lies in these journals
    :param former: further texts that earlier releases had for this registry;
        journals that they made are found, too
    :ivar path: of the directory

    Thread: any.
    """

    def __init__(self, path: str, ipc_dir: str, registry: str,
                 former: Iterable[str] = ()) -> None:
        self._is_default = not path
        # One name for each file: locks.py tells files apart by their names.
        self.path = os.path.realpath(path or os.path.join(ipc_dir, FOLDER))
        self._ipc_dir = ipc_dir
        self.registry = registry
        self._tag = _tag(registry)
        self._beginnings = tuple(f'{_tag(each)}-'
                                 for each in (registry, *former))

    def journals(self) -> list[str]:
        """The paths of the journals of this registry, the oldest name first;
        an empty list if there is no directory, or if it cannot be read, which
        is reported once.
        """
        try:
            names = os.listdir(self.path)
            # Without this right the names are seen, but not the files.
            os.stat(os.path.join(self.path, os.curdir))
        except OSError as error:
            self._report(error)
            return []
        _unreadable.pop((os.getpid(), self.path), None)
        return [os.path.join(self.path, name) for name in sorted(names)
                if name.startswith(self._beginnings)
                and name.endswith(SUFFIX)]

    def _report(self, error):
        # Each driver of a process has a Place, and looks every second.
        if (isinstance(error, FileNotFoundError)
                or _unreadable.setdefault((os.getpid(), self.path),
                                          token := object()) is not token):
            return
        remedy = (
            'Run all processes that use the directory as the same user, or '
            'give the directory to a group of all their users (mode 2770)'
            if isinstance(error, PermissionError) else
            'Make it a directory that this process can read')
        LOG.warning(
            'rpc_zmq_custody_dir: user %d cannot read the directory %s: %s. '
            'This process adopts no journal of a process that died. %s',
            os.geteuid(), self.path, error.strerror or error, remedy)

    def stray_locks(self) -> list[str]:
        """The locks that belong to no journal: their owners died when they
        made or removed one.
        """
        found = []
        with contextlib.suppress(OSError):
            for name in os.listdir(self.path):
                path = os.path.join(self.path, name)
                if (name.startswith(self._beginnings) and name.endswith(LOCK)
                        and not os.path.lexists(path.removesuffix(LOCK)
                                                + SUFFIX)):
                    found.append(path)
        return found

    def new(self, maker: bytes, number: int = 0) -> str:
        """The path of a journal of this maker of ids.

        :param number: how many it had before
        """
        name = f'{self._tag}-{maker.hex()}'
        if number:
            name += f'-{number}'
        return os.path.join(self.path, name + SUFFIX)

    def ensure(self) -> None:
        """Make the directory, if it is missing, as open to others as the IPC
        directory is.

        :raises: OSError
        """
        if os.path.isdir(self.path):
            return
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        if self._is_default:
            status = os.stat(self._ipc_dir)
            locks.open_up(self.path, stat.S_IMODE(status.st_mode) & 0o2770,
                          status.st_gid)

    def mode(self) -> tuple[int, int]:
        """The mode and the group of a file that is made here.

        :raises: OSError
        """
        status = os.stat(self.path)
        shared = stat.S_IMODE(status.st_mode) & 0o070 == 0o070
        return (0o660 if shared else 0o600), status.st_gid


def of(settings: options.Settings, ipc_dir: str) -> Place:
    """The Place of a driver.

    :param ipc_dir: absolute path of the IPC directory
    """
    url = settings.matchmaker
    if url == options.EMBEDDED:
        return Place(settings.custody_dir, ipc_dir,
                     f'{options.EMBEDDED}:{os.path.realpath(ipc_dir)}')
    return Place(settings.custody_dir, ipc_dir, registry_of(url),
                 [tooz_url.without_password(url)])


def registry_of(url: str) -> str:
    """One text for a registry, however its URL is spelled. It has what makes
    two registries of one server, and neither the credentials nor how a
    process connects.

    :param url: of tooz
    """
    parts = tooz_url.split(url)
    query = dict(parse.parse_qsl(parts.query))
    engine = parts.scheme.partition('+')[0]
    engine = _ENGINES.get(engine, engine)
    places = parts.netloc.split(',')
    what = {}
    if engine == 'redis':
        what['db'] = query.get('db', '').lstrip('0') or '0'
        if 'sentinel' in query:
            engine = 'sentinel'
            what['sentinel'] = query['sentinel']
            places += parse.parse_qs(parts.query).get('sentinel_fallback', [])
    if engine in _NAMESPACES:
        what['namespace'] = query.get('namespace', _NAMESPACES[engine])
    hosts = ','.join(sorted({_address(each, _PORTS.get(engine, ''))
                             for each in places}))
    # The path is that of a Unix socket.
    where = hosts if parts.netloc or engine != 'redis' else parts.path
    return f'{engine}://{where}?{parse.urlencode(what)}'


def _address(text, default_port):
    text = text.rpartition('@')[2]
    host, _, port = text.rpartition(':')
    if not port.isdigit():
        host, port = text.removesuffix(':'), default_port
    return f'{host.lower() or "localhost"}:{port}'


def _tag(registry):
    return hashlib.sha256(registry.encode(
        'utf-8', 'surrogatepass')).hexdigest()[:8]


def lock_of(journal: str) -> str:
    """The path of the lock of a journal."""
    return journal.removesuffix(SUFFIX) + LOCK


def files_of(journal: str) -> list[str]:
    """The paths of the database and of what sqlite has beside it."""
    return [journal, *(journal + beside for beside in _BESIDE)]


def remove(journal: str) -> None:
    """Remove the files of a journal that is ours; its lock goes last."""
    for path in (*files_of(journal), reserve.path_of(journal),
                 lock_of(journal)):
        with contextlib.suppress(OSError):
            os.unlink(path)


def set_aside(journal: str) -> str:
    """Rename the files of a journal that is of no use, and remove its lock.

    :returns: the new path of the database
    """
    aside = f'{journal}{_BROKEN}-{int(time.time())}'
    for path in files_of(journal):
        with contextlib.suppress(OSError):
            os.rename(path, aside + path[len(journal):])
    for path in reserve.path_of(journal), lock_of(journal):
        with contextlib.suppress(OSError):
            os.unlink(path)
    return aside
