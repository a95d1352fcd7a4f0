# SPDX-License-Identifier: Apache-2.0
"""The receiver of a node, for a URL that asks for that topology."""

import os
import random
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from urllib import parse

from load import errors

_SCHEME = 'zmq'
_READY = 'listens on'
_POLL_SECONDS = 0.02
_STOP_SECONDS = 10
# Below the range from which Linux gives ports to connections.
_PORTS = range(15000, 30000)
_ROOT = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)


def is_wanted(url):
    """Return whether services of this URL are reached through a receiver."""
    scheme, query = _split(url)
    topology = query.get('rpc_zmq_topology', '')
    legacy = query.get('use_router_proxy', '').lower() in (
        '1',
        'true',
        'on',
        'yes',
    )
    return scheme == _SCHEME and (
        topology == 'receiver' or not topology and legacy
    )


class NodeReceiver:
    """A receiver process on a port of its own, with its URL as .url.

    The IPC directory, port and host that the given URL names are used as they
    are.
    """

    def __init__(self, url):
        # Made by start(): a URL that no driver takes leaves nothing behind.
        self._registry = os.path.join(
            tempfile.gettempdir(), f'rpc_load-{secrets.token_hex(4)}'
        )
        _, query = _split(url)
        self._query = {
            'rpc_zmq_ipc_dir': os.path.join(self._registry, 'ipc'),
            'rpc_zmq_host': '127.0.0.1',
            'rpc_zmq_port': str(free_port()),
            **query,
        }
        self.url = f'{url.partition("?")[0]}?{parse.urlencode(self._query)}'
        self._log = os.path.join(self._registry, 'log')
        self._process = None

    def start(self):
        """Start the process without waiting for it."""
        os.mkdir(self._registry, 0o700)
        path = os.path.join(self._registry, 'receiver.conf')
        with open(path, 'w', encoding='utf-8') as file:
            file.write('[oslo_messaging_zmq]\n')
            file.writelines(
                f'{name} = {value}\n' for name, value in self._query.items()
            )
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(
            filter(None, (_ROOT, os.environ.get('PYTHONPATH'))))}
        with open(self._log, 'wb') as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    '-m',
                    'zmq_threaded.receiver.main',
                    '--config-file',
                    path,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                env=environment,
            )

    @property
    def pid(self):
        """The process id."""
        return self._process.pid

    def wait_ready(self, deadline):
        """Wait until it listens.

        Raises StartError at the deadline, a time of time.monotonic().
        """
        while not re.search(_READY, self._logged()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                lines = self._logged().strip().splitlines() or [
                    'no word from it'
                ]
                raise errors.StartError(
                    f'the receiver did not start: {lines[-1][:300]}'
                )
            time.sleep(_POLL_SECONDS)

    def stop(self):
        """Stop the process, remove its files and return complaints."""
        try:
            return self._end() if self._process else []
        finally:
            shutil.rmtree(self._registry, ignore_errors=True)

    def _end(self):
        self._process.terminate()
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return [f'the receiver did not stop in {_STOP_SECONDS} s']
        return [f'the receiver ended with exit code {code}'] if code else []

    def _logged(self):
        with open(self._log, encoding='utf-8', errors='replace') as log:
            return log.read()


def _split(url):
    scheme, _, rest = url.partition('://')
    return scheme, dict(parse.parse_qsl(rest.partition('?')[2]))


def free_port():
    """Return a TCP port that nobody listens on."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(('', port))
                return port
            except OSError:
                continue
