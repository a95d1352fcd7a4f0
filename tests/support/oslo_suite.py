# SPDX-License-Identifier: Apache-2.0
"""Run tests of oslo.messaging's own functional suite, on native threads.

    python tests/support/oslo_suite.py URL TESTNAME...

A name is relative to oslo_messaging.tests.functional. The last thing printed
is a line of JSON after SUMMARY; the exit code is 0 only if every test ran and
passed. Needs a process of its own: it changes futurist and the suite.
"""

import contextlib
import faulthandler
import functools
import json
import os
import sys
import types
import unittest

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(_ROOT, 'tools'))

import native_threads     # noqa: E402

native_threads.use_native_threads()

import futurist           # noqa: E402
# Before the stub is there: what looks for eventlet must not find it.
import oslo_messaging     # noqa: E402, F401
import testscenarios      # noqa: E402

_SUITE = 'oslo_messaging.tests.functional'
_SUMMARY = 'SUMMARY '
# Less than the timeout of a test of ours, so that the stacks are seen.
_SECONDS = 280


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
        import oslo_messaging.tests     # noqa: F401
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


def _set_environment(url):
    os.environ['RPC_TRANSPORT_URL'] = url
    # The suite would hold our URL's options against kafka's.
    os.environ.pop('NOTIFY_TRANSPORT_URL', None)
    # Else the suite logs everything, fasteners' every lock included.
    os.environ.setdefault('OS_DEBUG', 'INFO')
    # MetricsTestCase starts the python3 that it finds there.
    os.environ['PATH'] = os.pathsep.join(
        (os.path.dirname(sys.executable), os.environ['PATH']))


def _load(names):
    """The tests, multiplied by their scenarios: a module's load_tests does so
    too, but is not called for one class.
    """
    loaded = unittest.defaultTestLoader.loadTestsFromNames(
        [f'{_SUITE}.{name}' for name in names])
    return unittest.TestSuite(testscenarios.generate_scenarios(loaded))


def _modules_of_eventlet():
    return [name for name in sys.modules
            if name.partition('.')[0] == 'eventlet']


def main(url, *names):
    faulthandler.dump_traceback_later(_SECONDS, exit=True)
    _set_environment(url)
    _import_suite(url)
    result = unittest.TextTestRunner(verbosity=2).run(_load(names))
    summary = {'ran': result.testsRun, 'failures': len(result.failures),
               'errors': len(result.errors), 'skipped': len(result.skipped),
               'eventlet': _modules_of_eventlet()}
    print(_SUMMARY + json.dumps(summary), flush=True)
    return not (result.wasSuccessful() and result.testsRun
                and not result.skipped and not summary['eventlet'])


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
