# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ brokers that a test can stop, kill and pause.

Each is a child of the test on free loopback ports, with its data in a
temporary directory, and with an epmd of its own.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile

import amqp
import pytest

from tests.support import ports as tcp
from tests.support import waiting

_START_LIMIT = 90
# The script of Debian in /usr/sbin changes the user, who may not read our
# directory.
_SCRIPTS = '/usr/lib/rabbitmq/bin'


def _binary():
    for place in (f'{_SCRIPTS}/rabbitmq-server',
                  shutil.which('rabbitmq-server')):
        if place and os.access(place, os.X_OK):
            return place
    return pytest.skip('rabbitmq-server is missing: apt-get install -y '
                       'rabbitmq-server')


class Rabbit:
    """One broker; start() and kill() may follow each other.

    :ivar url: for oslo.messaging
    """

    def __init__(self, folder):
        self._binary = _binary()
        self.port, self._dist, self._epmd = tcp.free_ports(3)
        self.url = f'rabbit://guest:guest@127.0.0.1:{self.port}/'
        self._environment = {
            **os.environ, 'HOME': folder, 'ERL_EPMD_PORT': str(self._epmd),
            'ERL_EPMD_ADDRESS': '127.0.0.1',
            'RABBITMQ_NODENAME': f'zt{self.port}@localhost',
            'RABBITMQ_NODE_IP_ADDRESS': '127.0.0.1',
            'RABBITMQ_NODE_PORT': str(self.port),
            'RABBITMQ_DIST_PORT': str(self._dist),
            'RABBITMQ_MNESIA_BASE': os.path.join(folder, 'data'),
            'RABBITMQ_LOG_BASE': os.path.join(folder, 'log'),
            'RABBITMQ_PID_FILE': os.path.join(folder, 'pid'),
            'RABBITMQ_CONFIG_FILE': os.path.join(folder, 'none'),
            'RABBITMQ_ENABLED_PLUGINS_FILE': os.path.join(folder, 'plugins'),
            'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS': '+S 1:1 +sbwt none'}
        self._popen = None

    def start(self):
        self._popen = subprocess.Popen(
            [self._binary], env=self._environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        waiting.until(self._is_up, _START_LIMIT, 'rabbitmq-server')

    def _is_up(self):
        assert self._popen.poll() is None, 'rabbitmq-server ended'
        with contextlib.suppress(Exception):
            with self._connection():
                return True

    def _connection(self):
        return amqp.Connection(f'127.0.0.1:{self.port}', connect_timeout=3,
                               read_timeout=10)

    def messages(self, queue):
        """How many messages lie in a queue; None if there is no such queue.
        """
        return getattr(self._queue(queue), 'message_count', None)

    def consumers(self, queue):
        """How many listen to a queue; None if there is no such queue."""
        return getattr(self._queue(queue), 'consumer_count', None)

    def _queue(self, queue):
        with self._connection() as connection:
            with contextlib.suppress(amqp.exceptions.NotFound):
                return connection.channel().queue_declare(queue, passive=True)

    def kill(self):
        self._signal(signal.SIGKILL)
        self._popen.wait(20)

    def pause(self):
        self._signal(signal.SIGSTOP)

    def resume(self):
        self._signal(signal.SIGCONT)

    def _signal(self, number):
        if self._popen is not None and self._popen.poll() is None:
            os.killpg(self._popen.pid, number)

    def end(self):
        """Whatever a test did."""
        if self._popen is not None:
            self.kill()
        # The node has started it as a daemon.
        subprocess.run(['epmd', '-port', str(self._epmd), '-kill'],
                       env=self._environment, capture_output=True)


@contextlib.contextmanager
def open_broker():
    """A running broker, ended afterwards with all its processes. The test is
    skipped if there is none on this machine.
    """
    folder = tempfile.mkdtemp(prefix='zt-rabbit-')
    broker = None
    try:
        broker = Rabbit(folder)
        broker.start()
        yield broker
    finally:
        if broker is not None:
            broker.end()
        shutil.rmtree(folder, ignore_errors=True)
