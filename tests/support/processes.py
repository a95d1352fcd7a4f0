# SPDX-License-Identifier: Apache-2.0
"""Server processes that a test can kill, stop and continue."""

import contextlib
import json
import os
import signal
import subprocess
import sys

from tests.support import waiting
from zmq_threaded import endpoints
from zmq_threaded.net import accept_gate

_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(os.path.dirname(_HERE))
# For children that import the tests and the tools.
ENVIRONMENT = {**os.environ, 'PYTHONPATH': os.pathsep.join(
    (_ROOT, os.path.join(_ROOT, 'tools')))}


def restore_signals():
    """In a child before its command: signals that end it, which a test sends,
    are not ignored. They are in a test run that nohup or a script started in
    the background, and children inherit that.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def command(main, *arguments):
    """The command line of a script beside this file."""
    return [sys.executable, os.path.join(_HERE, main), *arguments]


def unlink_beside(path):
    """What a killed service left beside its Unix socket."""
    for beside in accept_gate.beside(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)


class ServerProcess:
    """One server in a child process; it ends when its stdin does.

    :param main: server_main.py, listener_main.py or client_main.py
    :param before: command line that runs it somewhere else
    """

    def __init__(self, ipc_dir, main, *arguments, before=()):
        self._ipc_dir = ipc_dir
        self._popen = subprocess.Popen(
            [*before, *command(main, *arguments)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        self.pid = self._popen.pid
        assert self._popen.stdout.readline() == 'ready\n'

    def ask(self, question):
        """'seen': what was noted; 'slept': how many calls of sleep() have
        begun; 'counters': of the driver; 'findings': their kinds; 'warned':
        the warnings, with their times; 'stop': stop serving cleanly.
        """
        print(question, file=self._popen.stdin, flush=True)
        return json.loads(self._popen.stdout.readline())

    def kill(self):
        self._popen.kill()
        self._popen.wait(10)

    def _clear_away(self):
        # As the sweep of a service that starts a minute later would.
        for name in os.listdir(self._ipc_dir):
            path = os.path.join(self._ipc_dir, name)
            if (name.endswith(('.sock', '.closing'))
                    and endpoints.is_dead(f'ipc://{path}')):
                os.unlink(path)
                unlink_beside(path)

    def pause(self):
        """Returns when all its threads stand still."""
        os.kill(self.pid, signal.SIGSTOP)
        waiting.until(lambda: _states_of_threads(self.pid) == {'T'}, 10)

    def resume(self):
        os.kill(self.pid, signal.SIGCONT)

    def end(self):
        """Let it stop cleanly, if it still runs."""
        if self._popen.poll() is None:
            self.resume()
            self._popen.stdin.close()
            try:
                self._popen.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError('a server process did not end') from None
        else:
            self._clear_away()
        self._popen.stdout.close()
        if not self._popen.stdin.closed:
            self._popen.stdin.close()


def _states_of_threads(pid):
    states = set()
    for task in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{task}/stat') as file:
            states.add(file.read().rpartition(')')[2].split()[0])
    return states
