# SPDX-License-Identifier: Apache-2.0
"""Processes that may start no more threads: children of a user of their own,
for the kernel counts the threads of a user, and root may have any number.
"""

import os
import re
import subprocess

import pytest

from tests.support import processes
from tests.support import waiting

pytestmark = pytest.mark.skipif(os.getuid(), reason='only root is another')
# One who has no thread yet, and may read the Python of root.
_USER = 54321
_AS_ANOTHER = ('setpriv', f'--reuid={_USER}', f'--regid={_USER}',
               '--clear-groups',
               '--inh-caps=-all,+dac_override',
               '--ambient-caps=-all,+dac_override')
_ADVICE = re.compile(r'out of threads \(can.t start new thread\): raise '
                     'TasksMax')


def _run(node, what, more):
    """:returns: the lines that it printed, and what it logged"""
    os.chown(node.ipc_dir, _USER, _USER)
    for folder, folders, files in os.walk(node.ipc_dir):
        for name in (*folders, *files):
            os.chown(os.path.join(folder, name), _USER, _USER)
    child = subprocess.run(
        [*_AS_ANOTHER, *processes.command(
            'few_threads_main.py', node.url(rpc_cast_timeout=2), what,
            str(more))], env=processes.ENVIRONMENT, text=True,
        capture_output=True, timeout=90)
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines(), child.stderr


@pytest.mark.parametrize('more', [0, 2, 5])
@pytest.mark.parametrize('what', ['cast', 'call', 'monitored', 'notify',
                                  'listen'])
def test_want_of_threads_is_an_error_of_messaging_and_passes(node, what,
                                                             more):
    server = node.server(transport=node.transport())
    lines, log = _run(node, what, more)
    assert len(lines) == 3, (lines, log)
    first, second, _ = lines
    assert first == 'first done' or _ADVICE.search(first), (lines, log)
    assert second == 'second done', (lines, log)
    assert 'unexpected error' not in log
    if what == 'cast':
        # What was accepted arrives.
        count = 1 + (first == 'first done')
        waiting.until(lambda: len(server.endpoint.seen) == count)
