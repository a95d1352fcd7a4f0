# SPDX-License-Identifier: Apache-2.0
"""The client's handle on a server process."""

import json
import os
import select
import subprocess
import sys
import tempfile
import time

from load import errors

_PROGRAM = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), 'server.py'
)
_ANSWER_SECONDS = 10
_EXIT_SECONDS = 5
_QUOTED_LOG_BYTES = 4096


class ServerProcess:
    """One server process.

    The constructor starts the process. It is gone after stop() or kill().
    """

    def __init__(self, spec):
        self.name = spec['name']
        self._unread = b''
        self._log = None if spec['verbose'] else tempfile.TemporaryFile()
        # A process group of its own: Ctrl-C in the terminal must reach only
        # the client, which then stops the servers in order.
        self._process = subprocess.Popen(
            [sys.executable, _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            process_group=0,
        )
        self._tell(spec)

    @property
    def pid(self):
        """The process id."""
        return self._process.pid

    def wait_ready(self, deadline):
        """Wait until it listens.

        Raises StartError at the deadline, a time of time.monotonic().
        """
        try:
            answer = self._read(deadline)
        except errors.ServerDied as error:
            raise errors.StartError(f'server {self.name}: {error}') from error
        if answer is None:
            raise errors.StartError(
                f'server {self.name} did not start in time'
                f'{self._last_log_line()}'
            )
        if 'error' in answer:
            raise errors.StartError(f'server {self.name}: {answer["error"]}')

    def ask(self, command, seconds=_ANSWER_SECONDS):
        """Return the answer to a command.

        Raises ServerDied if no answer comes in that time.
        """
        self._tell({'do': command})
        answer = self._read(time.monotonic() + seconds)
        if answer is None:
            raise errors.ServerDied(
                f'server {self.name} did not answer "{command}"'
            )
        return answer

    def stop(self, seconds):
        """Stop the server in order within that time, else kill it.

        Returns its last answer. Raises ServerDied, after the process is gone,
        if it did not stop by itself.
        """
        try:
            answer = self.ask('stop', seconds)
            self._process.wait(_EXIT_SECONDS)
            return answer
        except subprocess.TimeoutExpired as error:
            raise errors.ServerDied(
                f'server {self.name} stopped but its process did not exit'
            ) from error
        finally:
            self.kill()

    def kill(self):
        """End the process now, if it is still there."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                _close_quietly(stream)

    def _tell(self, message):
        try:
            self._process.stdin.write(
                json.dumps(message).encode('ascii') + b'\n'
            )
            self._process.stdin.flush()
        except OSError as error:
            raise errors.ServerDied(self._obituary()) from error

    def _read(self, deadline):
        """Return the next answer, or None at the deadline."""
        chunks = [self._unread]
        while b'\n' not in chunks[-1]:
            remaining = max(0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], remaining)[0]:
                self._unread = b''.join(chunks)
                return None
            chunks.append(os.read(self._process.stdout.fileno(), 1 << 20))
            if not chunks[-1]:
                raise errors.ServerDied(self._obituary())
        line, _, self._unread = b''.join(chunks).partition(b'\n')
        return json.loads(line)

    def _obituary(self):
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            end = 'closed its control channel'
        else:
            end = f'ended with exit code {code}'
        return f'server {self.name} {end}{self._last_log_line()}'

    def _last_log_line(self):
        if self._log is None:
            return ''
        length = os.fstat(self._log.fileno()).st_size
        tail = os.pread(
            self._log.fileno(),
            _QUOTED_LOG_BYTES,
            max(0, length - _QUOTED_LOG_BYTES),
        )
        lines = tail.decode('utf-8', 'replace').split('\n')
        quoted = next(
            (line.strip() for line in reversed(lines) if line.strip()), ''
        )
        return f': {quoted[:300]}' if quoted else ''


def _close_quietly(stream):
    try:
        stream.close()
    except OSError:
        # Unsent commands for a process that is gone.
        pass
