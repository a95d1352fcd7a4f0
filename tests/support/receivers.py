# SPDX-License-Identifier: Apache-2.0
"""Receivers of a node as processes that a test can kill, stop and continue."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

from tests.support import ports
from tests.support import processes
from tests.support import waiting
from zmq_threaded.receiver import address

_READY = re.compile(r'listens on')
_CONFIGURATION = '[oslo_messaging_zmq]\n'


class ReceiverProcess:
    """A receiver in a child process, with a configuration file of its own.

    :param before: command line that runs the command somewhere else
    :param configuration: options of its file besides those it needs
    :param port: for --frontend-port; None gives none
    """

    def __init__(self, ipc_dir, port=None, host='127.0.0.1', arguments=(),
                 before=(), extra='', start=True, **configuration):
        self.ipc_dir = ipc_dir
        self.port = port or ports.free_port()
        self.host = host
        self.directory = tempfile.mkdtemp(prefix='zt-receiver-')
        self.config_file = os.path.join(self.directory, 'receiver.conf')
        self._log = os.path.join(self.directory, 'output')
        self.configure(extra, rpc_zmq_host=host, rpc_zmq_ipc_dir=ipc_dir,
                       **configuration)
        self._before = before
        self._arguments = arguments
        self._popen = None
        if start:
            self.start()

    def configure(self, extra='', **configuration):
        lines = [f'{name} = {value}\n' for name, value
                 in configuration.items()]
        with open(self.config_file, 'w') as file:
            file.writelines([_CONFIGURATION, *lines, extra])

    @property
    def pid(self):
        return self._popen.pid

    def launch(self):
        """Start the process, without waiting for it."""
        assert self._popen is None or self._popen.poll() is not None
        with open(self._log, 'w') as log:
            self._popen = subprocess.Popen(
                [*self._before, sys.executable, '-m',
                 'zmq_threaded.receiver.main', '--config-file',
                 self.config_file, '--frontend-port', str(self.port),
                 *self._arguments],
                stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, env=processes.ENVIRONMENT,
                cwd=self.directory)

    def start(self):
        self.launch()
        waiting.until(self._is_ready, 20, f'a receiver: {self.output()}')

    def _is_ready(self):
        assert self._popen.poll() is None, self.output()
        return _READY.search(self.output())

    def output(self):
        """What it has logged since its last start."""
        with open(self._log) as log:
            return log.read()

    def counters(self):
        """What it counted, of one that ended by itself."""
        counted = re.search(r'has ended: (\{.*\})', self.output())
        return eval(counted.group(1), {'__builtins__': {}})

    def signal(self, number):
        self._popen.send_signal(number)

    def kill(self):
        self._popen.kill()
        self._popen.wait(10)

    def wait(self, seconds=20):
        """:returns: the exit code"""
        return self._popen.wait(seconds)

    def terminate(self, seconds=20):
        """:returns: the exit code"""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def restart(self):
        """Kill it, and start it again on the same port."""
        self.kill()
        self.start()

    def pause(self):
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def path(self):
        """Its Unix socket."""
        return address.receiver_path(_Place(self.host, self.port),
                                     os.path.abspath(self.ipc_dir))

    def cut_off_ipc(self):
        """From now on clients of this machine reach it over TCP, too."""
        os.unlink(self.path())

    def end(self):
        """End it, and take away what it was started with."""
        try:
            if self._popen and self._popen.poll() is None:
                self.resume()
                assert self.terminate() == 0, self.output()
        finally:
            self._clear_away()

    def _clear_away(self):
        if self._popen and self._popen.poll() is None:
            self.kill()
        if os.path.exists(self.path()):
            os.unlink(self.path())      # of one that was killed
        processes.unlink_beside(self.path())
        shutil.rmtree(self.directory)


class _Place:
    """What address.receiver_path() wants of options.Settings."""

    def __init__(self, host, port):
        self.host, self.receiver_port = host, port


def query(receiver):
    """Options of a transport URL for services behind this receiver."""
    return {'rpc_zmq_topology': 'receiver', 'rpc_zmq_host': receiver.host,
            'rpc_zmq_port': receiver.port}
