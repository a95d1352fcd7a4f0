# SPDX-License-Identifier: Apache-2.0
"""The command oslo-messaging-zmq as a process."""

import json
import os
import resource
import subprocess
import sys

from tests.support import processes


def run(*arguments, seconds=60, path=''):
    """A CompletedProcess, with the seconds of processor time as .cpu.

    :param path: a directory of modules that come before all others
    """
    before = _cpu()
    environment = processes.ENVIRONMENT
    if path:
        environment = {**environment, 'PYTHONPATH': os.pathsep.join(
            (path, environment['PYTHONPATH']))}
    done = subprocess.run(
        [sys.executable, '-m', 'zmq_threaded.cli.main', *map(str, arguments)],
        env=environment, capture_output=True, text=True,
        timeout=seconds)
    done.cpu = _cpu() - before
    return done


def ask(*arguments):
    """(exit code, what the verb says as JSON)."""
    done = run(*arguments, '-o', 'json')
    return done.returncode, json.loads(done.stdout) if done.stdout else (
        done.stderr)


def _cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
