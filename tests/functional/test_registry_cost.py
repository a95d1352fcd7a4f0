# SPDX-License-Identifier: Apache-2.0
"""tools/registry_cost.py"""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.support import processes

TOOL = os.path.join(processes._ROOT, 'tools', 'registry_cost.py')


def test_it_counts_what_a_client_and_a_service_cost():
    if not shutil.which('redis-server'):
        pytest.skip('redis-server is missing: apt-get install -y redis-server')
    ended = subprocess.run(
        [sys.executable, TOOL, '--sizes', '3,30', '--hosts', '7'],
        capture_output=True, text=True, timeout=60,
        env=processes.ENVIRONMENT)
    assert ended.returncode == 0, ended.stderr
    sent = {int(size): int(sent.replace(',', '')) for size, sent in re.findall(
        r'\| (\d+) \| refresh of the topic \|[^|]*\|[^|]*\| ([\d,]+) \|',
        ended.stdout)}
    assert 5 * sent[3] < sent[30]
    assert '7 hosts' in ended.stdout
