# SPDX-License-Identifier: Apache-2.0
"""tools/native_threads.py, each time in a process of its own."""

import os
import subprocess
import sys

TOOLS = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), '..', '..', 'tools'
)


def run(script):
    return subprocess.run(
        [sys.executable, '-c', script],
        capture_output=True,
        text=True,
        env=os.environ | {'PYTHONPATH': TOOLS},
        timeout=60,
    )


def test_eventlet_stays_out():
    done = run('''
import sys
import native_threads
native_threads.use_native_threads()
native_threads.use_native_threads()
import oslo_messaging, oslo_service, futurist, oslo_utils.eventletutils
from oslo_service import backend
assert 'eventlet' not in sys.modules
assert backend.get_backend_type() is backend.BackendType.THREADING
assert sum(type(f).__name__ == '_EventletBlocker' for f in sys.meta_path) == 1
try:
    import eventlet.tpool
except ModuleNotFoundError as error:
    assert error.name == 'eventlet'
else:
    raise AssertionError('eventlet was imported')
''')
    assert done.returncode == 0, done.stderr


def test_other_modules_that_merely_start_with_the_word_are_not_blocked():
    done = run('''
import sys, types
import native_threads
native_threads.use_native_threads()
sys.modules['eventletx'] = types.ModuleType('eventletx')
import eventletx
''')
    assert done.returncode == 0, done.stderr


def test_too_late_is_an_error():
    done = run('''
import sys, types
sys.modules['eventlet'] = types.ModuleType('eventlet')
import native_threads
native_threads.use_native_threads()
''')
    assert done.returncode == 1
    assert 'RuntimeError: eventlet is already imported' in done.stderr
