# SPDX-License-Identifier: Apache-2.0
"""oslo.messaging's own functional suite over zmq://, without eventlet."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from urllib import parse

import pytest

from tests.support import encryption
from tests.support import rabbit
from tests.support import receivers

_MAIN = os.path.join(os.path.dirname(__file__), '..', 'support',
                     'oslo_suite.py')

# How many tests oslo.messaging 18.3 has in each, 31 in all: a run that found
# fewer must not pass.
_COUNTS = {
    'test_functional.CallTestCase': 10,
    'test_functional.CastTestCase': 3,
    'test_functional.NotifyTestCase': 7,
    'test_functional.MetricsTestCase': 1,
    'notify.test_logger.LoggingNotificationHandlerTestCase': 10,
}
_SHORT = 'test_functional.CallTestCase.test_bad_endpoint'
# The metrics are served on one port of the machine, whoever tests them.
_ONE_AFTER_THE_OTHER = pytest.mark.xdist_group('metrics')
_NAMES = [pytest.param(name, marks=_ONE_AFTER_THE_OTHER)
          if 'Metrics' in name else name for name in sorted(_COUNTS)]


@pytest.fixture
def run_suite(no_leaks, tmp_path):
    def run(url, name):
        output = tmp_path / 'output'
        code = _run(output, url, name)
        print(output.read_text())
        return code, _summary(output)
    return run


def _run(output, *arguments):
    # To a file: what the suite starts, and leaves on failure, would keep a
    # pipe open. For the same reason it has a process group, which is ended.
    with open(output, 'w') as file:
        popen = subprocess.Popen(
            [sys.executable, _MAIN, *arguments], start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    try:
        return popen.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()


def _summary(output):
    """None if it did not come as far as this."""
    for line in output.read_text().splitlines():
        if line.startswith('SUMMARY '):
            return json.loads(line.partition(' ')[2])
    return None


def _passed(count):
    return 0, {'ran': count, 'failures': 0, 'errors': 0, 'skipped': 0,
               'eventlet': []}


def _url(ipc_dir, **query):
    return f'zmq://?rpc_zmq_ipc_dir={ipc_dir}&' + parse.urlencode(
        {'rpc_cast_timeout': 2, **query})


@pytest.mark.parametrize('name', _NAMES)
def test_suite(run_suite, ipc_dir, name):
    assert run_suite(_url(ipc_dir), name) == _passed(_COUNTS[name])


@pytest.fixture(scope='module')
def shared_receiver():
    """One for all: the suite's parts come one after the other."""
    ipc_dir = tempfile.mkdtemp(prefix='zt-')
    receiver = receivers.ReceiverProcess(ipc_dir)
    yield receiver
    receiver.end()
    shutil.rmtree(ipc_dir)


@pytest.mark.parametrize('name', _NAMES)
def test_suite_through_a_receiver(shared_receiver, run_suite, name):
    url = _url(shared_receiver.ipc_dir, **receivers.query(shared_receiver))
    assert run_suite(url, name) == _passed(_COUNTS[name])


@pytest.fixture(scope='module')
def broker():
    with rabbit.open_broker() as broker:
        yield broker


@pytest.mark.long
@pytest.mark.xdist_group('rabbit')
@pytest.mark.parametrize('send', ['other', 'zmq'])
@pytest.mark.parametrize('name', sorted(_COUNTS))
def test_suite_over_a_bridge(broker, run_suite, ipc_dir, name, send):
    url = _url(ipc_dir, rpc_zmq_bridge=broker.url, rpc_zmq_bridge_send=send)
    assert run_suite(url, name) == _passed(_COUNTS[name])


@pytest.fixture
def encrypted(tmp_path, monkeypatch):
    monkeypatch.setenv('ZMQ_THREADED_TESTS_ONLY_TCP', '1')
    ring = encryption.KeyRing(tmp_path)
    ring.make('all')
    return ring.query('all', 'required')


@pytest.mark.long
@pytest.mark.parametrize('name', _NAMES)
def test_suite_over_encrypted_tcp(encrypted, run_suite, ipc_dir, name):
    url = _url(ipc_dir, rpc_zmq_transport='tcp', rpc_zmq_host='127.0.0.1',
               **encrypted)
    assert run_suite(url, name) == _passed(_COUNTS[name])


@pytest.mark.long
@pytest.mark.parametrize('name', _NAMES)
def test_suite_through_an_encrypted_receiver(encrypted, run_suite, ipc_dir,
                                             name):
    receiver = receivers.ReceiverProcess(ipc_dir, **encrypted)
    try:
        url = _url(ipc_dir, **receivers.query(receiver), **encrypted)
        assert run_suite(url, name) == _passed(_COUNTS[name])
        assert receiver.terminate() == 0
        assert receiver.counters().get('forwarded', 0) > 0
    finally:
        receiver.end()


def test_the_suite_went_through_the_receiver(run_suite, ipc_dir):
    receiver = receivers.ReceiverProcess(ipc_dir)
    try:
        run_suite(_url(ipc_dir, **receivers.query(receiver)),
                  'test_functional.CastTestCase')
        assert receiver.terminate() == 0
        assert receiver.counters()['forwarded'] > 0
    finally:
        receiver.end()


def test_eventlet_is_not_imported(run_suite, ipc_dir):
    code, summary = run_suite(_url(ipc_dir), _SHORT)
    assert (code, summary['eventlet']) == (0, [])


def test_skipped_test_fails_the_run(run_suite):
    code, summary = run_suite('kafka://', _SHORT)
    assert (code, summary['ran'], summary['skipped']) == (1, 1, 1)


def test_empty_run_fails(run_suite, ipc_dir):
    code, summary = run_suite(_url(ipc_dir), 'utils.SkipIfNoTransportURL')
    assert (code, summary['ran']) == (1, 0)
