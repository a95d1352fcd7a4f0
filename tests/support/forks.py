# SPDX-License-Identifier: Apache-2.0
"""Forked children that report what they did."""

import json
import os
import select
import traceback


class Forked:
    """A child made by os.fork() that runs a function and reports its result.

    It leaves by os._exit(), as forked workers of services do.
    """

    def __init__(self, function, *args):
        self._reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reader)
            _report(writer, function, args)
        os.close(writer)

    def result(self, seconds=30):
        """What the function returned.

        :raises: AssertionError if it raised, hung or died
        """
        try:
            text = b''
            while True:
                ready, _, _ = select.select([self._reader], [], [], seconds)
                assert ready, f'child {self.pid} hangs'
                chunk = os.read(self._reader, 65536)
                if not chunk:
                    break
                text += chunk
            assert text, f'child {self.pid} died'
            outcome = json.loads(text)
            assert 'error' not in outcome, outcome['error']
            return outcome['result']
        finally:
            os.close(self._reader)
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)


def _report(writer, function, args):
    try:
        outcome = {'result': function(*args)}
    except BaseException:
        outcome = {'error': traceback.format_exc()}
    os.write(writer, json.dumps(outcome).encode())
    os.close(writer)
    os._exit(0)
