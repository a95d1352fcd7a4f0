# SPDX-License-Identifier: Apache-2.0
"""The engines, as tooz has them: what differs, and how each is opened."""

import contextlib
import datetime
import functools
import glob
import importlib.metadata
import importlib.util
import logging
import os
import threading
import time
from urllib import parse

import fasteners
from stevedore import driver
from tooz import utils as tooz_utils

from zmq_threaded import counters
from zmq_threaded import logs
from zmq_threaded import registry_url
from zmq_threaded.matchmaker import files
from zmq_threaded.matchmaker import matchmaker
from zmq_threaded.matchmaker import member
from zmq_threaded.matchmaker import patience

LOG = logs.get(__name__)

_LIBRARIES = {'redis': ('redis', 'redis'), 'etcd3+http': ('etcd3gw', 'etcd'),
              'etcd3+https': ('etcd3gw', 'etcd'),
              'zookeeper': ('kazoo', 'zookeeper'),
              'kazoo': ('kazoo', 'zookeeper')}
_PATIENCE = 5.0
# Seconds after which an operation is given up for lost. Most clients try on,
# and notice soon when their engine is back; kazoo can wait for an answer of a
# server that was just starting for as long as its session may live.
_STUCK, _SESSION_STUCK = 60.0, 6.0

# tooz's file driver keeps class-wide locks that a forked child would inherit
# in whatever state they are: no fork while an operation runs on files. (Not
# so for the other engines: a fork would wait for one that hangs.)
_operation = threading.RLock()
os.register_at_fork(before=_operation.acquire,
                    after_in_parent=_operation.release,
                    after_in_child=_operation.release)


class MissingLibrary(Exception):
    """The client library of an engine is not installed; the text says how."""


def check(url):
    """Whether this URL can work here, without connecting.

    :raises: MissingLibrary; ValueError, naming rpc_zmq_matchmaker, if tooz
        has no such engine
    """
    scheme = parse.urlsplit(url).scheme
    library, extra = _LIBRARIES.get(scheme, (None, None))
    if library and importlib.util.find_spec(library) is None:
        raise MissingLibrary(
            f'rpc_zmq_matchmaker: {scheme}:// needs the library {library}; '
            f'pip install zmq-threaded[{extra}]')
    if not importlib.metadata.entry_points(group='tooz.backends',
                                           name=scheme):
        raise ValueError(f'rpc_zmq_matchmaker: tooz has no engine {scheme}')


def distributed(url, expire):
    """The Matchmaker of an engine that is given by its tooz URL.

    :param expire: seconds after which a record that is not renewed is gone
    """
    connect = functools.partial(_connect, url, expire)
    if parse.urlsplit(url).scheme in ('zookeeper', 'kazoo'):
        # It warns of each connection that it tries.
        logging.getLogger('kazoo.client').addFilter(_may_log_kazoo)
        engine = member.Engine(connect, expire, keeps_sessions=True,
                               release=_close_kazoo)
        stuck = _SESSION_STUCK
    else:
        engine, stuck = member.Engine(connect, expire), _STUCK
    return matchmaker.Matchmaker(engine, patience.Patient(
        'zmq-registry', min(_PATIENCE, expire / 2), stuck))


def embedded(ipc_dir, expire):
    """The Matchmaker of one machine: files, and no server."""
    folder = os.path.join(os.path.abspath(ipc_dir), 'registry')
    os.makedirs(folder, exist_ok=True)
    # tooz joins, leaves and deletes under this lock, but creates without it.
    # Its own lock, taken inside, ends this one: good for one such step only.
    lock = fasteners.InterProcessLock(os.path.join(folder, '.driver_lock'))
    engine = member.Engine(
        functools.partial(_open_files, folder, expire), expire, forgets=False,
        creation_lock=lock,
        repair=functools.partial(_remove_unreadable, folder, lock))
    return matchmaker.Matchmaker(engine, _Here(expire / 2))


def _may_log_kazoo(record, seldom=counters.Seldom()):
    return record.levelno >= logging.ERROR or seldom.allows()


def _close_kazoo(coordinator):
    coordinator._coord.close()      # tooz only stops it


class _Here:
    """Runs operations in the thread that asks for them.

    :param longest: seconds; a process that is paused in the middle of one
        keeps all others from renewing their records, so that it would find
        nobody afterwards
    """

    def __init__(self, longest):
        self._longest = longest

    def run(self, operation):
        began = time.monotonic()
        with _operation:
            result = operation()
        took = time.monotonic() - began
        if took > self._longest:
            raise patience.Unanswered(f'what took {took:.1f} s is out of date')
        return result

    finish = run

    def gave_up(self, release):
        return False

    def hurry(self):
        """They are short."""


class _Decoded(parse.SplitResult):
    """tooz takes the password of a URL as it is written there."""

    @property
    def username(self):
        return super().username and parse.unquote(super().username)

    @property
    def password(self):
        return super().password and parse.unquote(super().password)


def _connect(url, expire, member_id):
    # As coordination.get_coordinator() does it, but for the decoding.
    parts = _Decoded(*parse.urlsplit(url))
    options = registry_url.options(url, expire)
    return driver.DriverManager(
        'tooz.backends', parts.scheme, invoke_on_load=True,
        invoke_args=(member_id, parts, options)).driver


def _open_files(folder, expire, member_id):
    # Not by URL: a path may have characters that mean something there.
    return files.Driver(member_id,
                        parse.SplitResult('file', '', folder, '', ''),
                        {'timeout': [str(int(expire))], 'executor': ['sync']})


def _remove_unreadable(folder, lock):
    """One unreadable file, of a process that was killed while it wrote, would
    keep tooz from reading all the others.
    """
    with lock:
        for path in glob.glob(os.path.join(glob.escape(folder), 'groups', '*',
                                           '*.raw')):
            if not _is_record(path):
                LOG.warning('Removed an unreadable record: %s', path)
                with contextlib.suppress(OSError):
                    os.unlink(path)


def _is_record(path):
    try:
        with open(path, 'rb') as record_file:
            record = tooz_utils.loads(record_file.read())
        return (isinstance(record['member_id'], bytes)
                and isinstance(record['joined_on'], datetime.datetime))
    except Exception:
        return False    # whatever msgpack makes of bytes that are none
