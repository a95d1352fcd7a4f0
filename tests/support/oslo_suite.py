# SPDX-License-Identifier: Apache-2.0
"""Run tests of oslo.messaging's own functional suite, on native threads.

    python tests/support/oslo_suite.py URL TESTNAME...

A name is relative to oslo_messaging.tests.functional. Each test has a process
of its own, and all run at the same time, since most of them only wait: a test
of LoggingNotificationHandler listens for 15 seconds after its notification.
The last thing printed is a line of JSON after SUMMARY; the exit code is 0 only
if every test ran and passed. Needs a process of its own: it changes futurist
and the suite.
"""

import contextlib
import faulthandler
import functools
import json
import multiprocessing
import os
import sys
import tempfile
import types
import unittest

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(_ROOT, 'tools'))

import native_threads  # noqa: E402

native_threads.use_native_threads()

import futurist  # noqa: E402

# Before the stub is there: what looks for eventlet must not find it.
import oslo_messaging  # noqa: E402, F401
import testscenarios  # noqa: E402

_SUITE = 'oslo_messaging.tests.functional'
_SUMMARY = 'SUMMARY '
# In the environment: nobody is reached over IPC.
ONLY_TCP = 'ZMQ_THREADED_TESTS_ONLY_TCP'
# Its tests take for granted that a server has run all that came before a
# sync() when it runs that. With several workers one may still be at it.
_IN_ORDER = 'CastTestCase'
# Less than the timeout of a test of ours, so that the stacks are seen.
_SECONDS = 280
_FORK = multiprocessing.get_context('fork')


class _UrlOfMonitoringDriver(str):
    """test_mandatory_call and test_monitor_long_call skip all but rabbit.

    Not 'amqp:' as well, for which other tests are skipped.
    """

    def startswith(self, prefix, *limits):
        return prefix == 'rabbit://' or super().startswith(prefix, *limits)


@contextlib.contextmanager
def _eventlet_stub():
    """The suite patches with eventlet on import. It is no package, so that no
    eventlet.patcher can be found in it.
    """
    stub = types.ModuleType('eventlet')
    stub.monkey_patch = lambda: None
    # Not mock.patch.dict: it would also forget what was imported meanwhile.
    sys.modules['eventlet'] = stub
    try:
        yield
    finally:
        del sys.modules['eventlet']


def _import_suite(url):
    # The suite's fixtures ask for the executor 'eventlet', which is this name
    # in futurist.
    futurist.GreenThreadPoolExecutor = futurist.ThreadPoolExecutor
    with _eventlet_stub():
        import oslo_messaging.tests  # noqa: F401
    from oslo_messaging.tests.functional import utils
    _hand_over(url, utils.SkipIfNoTransportURL)


def _hand_over(url, test_case):
    set_up = test_case.setUp

    @functools.wraps(set_up)
    def with_our_urls(self, *args, **kwargs):
        set_up(self, *args, **kwargs)
        self.rpc_url = _UrlOfMonitoringDriver(url)
        self.notify_url = url

    test_case.setUp = with_our_urls


def _set_environment(url, names):
    os.environ['RPC_TRANSPORT_URL'] = url
    if any(_IN_ORDER in name for name in names):
        os.environ['OS_DEFAULT__EXECUTOR_THREAD_POOL_SIZE'] = '1'
    # The suite would hold our URL's options against kafka's.
    os.environ.pop('NOTIFY_TRANSPORT_URL', None)
    # Else the suite logs everything, fasteners' every lock included.
    os.environ.setdefault('OS_DEBUG', 'INFO')
    # MetricsTestCase starts the python3 that it finds there.
    os.environ['PATH'] = os.pathsep.join(
        (os.path.dirname(sys.executable), os.environ['PATH']))


def _go_over_tcp():
    """As if each process were on a machine of its own."""
    from zmq_threaded import endpoints
    endpoints.reachable = lambda those: next(
        (each for each in those if each.startswith('tcp:')), None)


def _load(names):
    """A list of the tests, multiplied by their scenarios: a module's
    load_tests does so too, but is not called for one class.
    """
    loaded = unittest.defaultTestLoader.loadTestsFromNames(
        [f'{_SUITE}.{name}' for name in names])
    return list(testscenarios.generate_scenarios(loaded))


def _modules_of_eventlet():
    return [name for name in sys.modules
            if name.partition('.')[0] == 'eventlet']


class _Process:
    """A started process of one test; it keeps its output for the end."""

    def __init__(self, test):
        self._output = tempfile.TemporaryFile('w+')
        self._told, tell = _FORK.Pipe(duplex=False)
        self._process = _FORK.Process(target=self._run, args=(test, tell))
        self._process.start()
        tell.close()

    def _run(self, test, tell):
        for number in (1, 2):
            os.dup2(self._output.fileno(), number)
        faulthandler.dump_traceback_later(_SECONDS, exit=True)
        result = unittest.TextTestRunner(verbosity=2).run(test)
        tell.send({'ran': result.testsRun, 'failures': len(result.failures),
                   'errors': len(result.errors),
                   'skipped': len(result.skipped),
                   'eventlet': _modules_of_eventlet()})

    def end(self):
        """Wait for it and print its output; returns what came of the test."""
        self._process.join()
        self._output.seek(0)
        print(self._output.read(), flush=True)
        try:
            summary = self._told.recv()
        except EOFError:
            return {'errors': 1}
        # What is done at the end of a process is a part of the test.
        summary['errors'] += self._process.exitcode != 0
        return summary


def _sum(summaries):
    total = {'ran': 0, 'failures': 0, 'errors': 0, 'skipped': 0,
             'eventlet': []}
    for summary in summaries:
        for name, value in summary.items():
            total[name] += value
    return total


def main(url, *names):
    _set_environment(url, names)
    if ONLY_TCP in os.environ:
        _go_over_tcp()
    _import_suite(url)
    started = [_Process(test) for test in _load(names)]
    summary = _sum([process.end() for process in started])
    print(_SUMMARY + json.dumps(summary), flush=True)
    return not summary['ran'] or any(
        summary[name] for name in ('failures', 'errors', 'skipped',
                                   'eventlet'))


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
