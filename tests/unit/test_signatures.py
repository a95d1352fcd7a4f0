# SPDX-License-Identifier: Apache-2.0
"""What oslo.messaging and the operator's process expect of the driver.

BaseDriver is private to oslo.messaging: these are the tests that tell when a
new series of it has changed.
"""

import importlib.metadata
import inspect
import os
import subprocess
import sys

import oslo_messaging
import pytest
from oslo_config import cfg
from oslo_messaging._drivers import base

from tests.support import leaks
from zmq_threaded import driver
from zmq_threaded import errors
from zmq_threaded import options
from zmq_threaded.bridge import driver as bridge_driver
from zmq_threaded.bridge import entry as bridge_entry
from zmq_threaded.bridge import listener as bridge_listener
from zmq_threaded.service import executors
from zmq_threaded.service import incoming
from zmq_threaded.service import listener

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
TOOLS = os.path.join(ROOT, 'tools')


def public(cls):
    return {name for name, _ in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith('_')}


def parameters(function):
    """Names, kinds and defaults in their order."""
    return [(each.name, each.kind, each.default)
            for each in inspect.signature(function).parameters.values()]


def pairs(*classes):
    return [(ours, theirs, name) for ours, theirs in classes
            for name in sorted(public(theirs))]


@pytest.mark.parametrize('ours, theirs, name', pairs(
    (driver.ZmqDriver, base.BaseDriver),
    (bridge_driver.BridgeDriver, base.BaseDriver),
    (listener.ZmqListener, base.Listener),
    (bridge_listener.BridgeListener, base.Listener),
    (incoming.Incoming, base.RpcIncomingMessage)))
def test_method_has_the_signature_of_its_base(ours, theirs, name):
    assert parameters(getattr(ours, name)) == parameters(
        getattr(theirs, name))


def test_driver_is_made_as_every_driver():
    assert parameters(driver.ZmqDriver) == parameters(base.BaseDriver)
    assert parameters(bridge_entry.driver) == parameters(base.BaseDriver)


@pytest.mark.parametrize(
    'ours, more',
    [
        (driver.ZmqDriver, {'counters', 'unacknowledged'}),
        (bridge_driver.BridgeDriver, {'counters', 'unacknowledged'}),
        (listener.ZmqListener, {'tell_other_half'}),
        (bridge_listener.BridgeListener, set()),
        (incoming.Incoming, {'begin', 'is_notification', 'refuse_busy'}),
    ],
)
def test_no_other_public_methods(ours, more):
    theirs, = ours.__bases__
    assert public(ours) == public(theirs) | more
    assert not inspect.isabstract(ours)


# Entry points


@pytest.mark.parametrize('group, name, expected', [
    ('oslo.messaging.drivers', 'zmq', bridge_entry.driver),
    ('oslo.config.opts', 'zmq_threaded', options.list_opts)])
def test_entry_point(group, name, expected):
    entry, = importlib.metadata.entry_points(group=group, name=name)
    assert entry.load() is expected


@pytest.mark.parametrize('name', ['threading', 'dynamic', 'synchronous'])
def test_executor_entry_point(name):
    entry, = importlib.metadata.entry_points(group=executors.ENTRY_POINTS,
                                             name=name)
    executor = entry.load()()
    try:
        assert executor.submit(lambda: 5).result(10) == 5
    finally:
        executor.shutdown()


def test_unknown_executor_is_refused_by_name():
    with pytest.raises(errors.ConfigurationError, match='nonsense'):
        executors.load('nonsense')


# What a transport does when it is made


def transport(url):
    return oslo_messaging.get_rpc_transport(cfg.CONF, url)


def test_making_a_transport_opens_nothing(tmp_path):
    url = f'zmq://?rpc_zmq_ipc_dir={tmp_path / "new"}'
    transport(url)     # so that stevedore's own files are read
    before = leaks.threads(), leaks.descriptors(), leaks.children()
    made = [transport(url) for _ in range(10)]
    assert (leaks.threads(), leaks.descriptors(), leaks.children()) == before
    assert not (tmp_path / 'new').exists()
    for each in made:
        each.cleanup()
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('url, registry', [
    ('zmq+redis://:p%40ss@h1:6380/', 'redis://:p%40ss@h1:6380'),
    ('zmq+sentinel://h1,h2/?rpc_zmq_sentinel_group=g',
     'redis://h1:26379?sentinel=g&sentinel_fallback=h2%3A26379'),
    ('zmq+etcd://', 'etcd3+http://localhost:2379'),
    ('zmq+zookeeper://h1,h2:2182', 'zookeeper://h1:2181,h2:2182')])
def test_the_url_names_the_registry_and_nothing_is_connected(url, registry):
    before = leaks.threads()
    settings = transport(url)._driver._settings
    assert settings.matchmaker == registry
    assert 'p%40ss' not in repr(settings)
    assert leaks.threads() == before


@pytest.mark.parametrize('url', ['zmq+file://', 'zmq+mongodb://'])
def test_what_is_no_registry_is_refused(url):
    with pytest.raises(errors.ConfigurationError) as raised:
        transport(url)
    assert url.partition(':')[0] in str(raised.value)


def test_bad_option_is_refused_by_name():
    with pytest.raises(errors.ConfigurationError, match='rpc_zmq_contexts'):
        transport('zmq://?rpc_zmq_contexts=none')


def test_errors_are_of_the_kinds_that_oslo_messaging_catches():
    assert issubclass(errors.ConfigurationError, base.TransportDriverError)
    assert issubclass(errors.ListenError, base.TransportDriverError)
    assert issubclass(errors.ServerGone, oslo_messaging.MessagingTimeout)


# Other processes


def run(script, *args):
    done = subprocess.run(
        [sys.executable, '-c', script, *args], capture_output=True,
        text=True, timeout=120,
        env=os.environ | {'PYTHONPATH': os.pathsep.join((ROOT, TOOLS))})
    assert done.returncode == 0, done.stderr
    return done.stdout


NATIVE = '''
import native_threads
native_threads.use_native_threads()
'''
CONF = '''
import sys
from oslo_config import cfg
import oslo_messaging
conf = cfg.CONF    # oslo.messaging has options of its own only there
conf([], project='zmq_threaded_tests')
'''
REFUSED = '''
from zmq_threaded import errors
try:
    oslo_messaging.get_rpc_transport(conf, 'zmq://')
except errors.ConfigurationError as error:
    print(error)
'''
FAKE_EVENTLET = '''
import sys, types
for name in ('eventlet', 'eventlet.patcher'):
    sys.modules[name] = types.ModuleType(name)
sys.modules['eventlet.patcher'].is_monkey_patched = lambda what: (
    what == 'thread')
'''
needs_eventlet = pytest.mark.skipif(
    not list(importlib.metadata.distributions(name='eventlet')),
    reason='eventlet is not installed')


@needs_eventlet
def test_patched_threads_are_refused():
    said = run('import eventlet; eventlet.monkey_patch()' + CONF + REFUSED)
    assert 'eventlet' in said


def test_patched_threads_are_refused_after_the_imports():
    assert 'eventlet' in run(NATIVE + CONF + FAKE_EVENTLET + REFUSED)


def test_the_refusal_says_what_to_do():
    said = run(NATIVE + CONF + FAKE_EVENTLET + REFUSED)
    assert 'OS_NOVA_DISABLE_EVENTLET_PATCHING=true' in said
    assert 'BackendType.THREADING' in said


@needs_eventlet
@pytest.mark.parametrize('how', [
    '', 'eventlet.monkey_patch(thread=False)',
    'import eventlet.patcher'])
def test_eventlet_without_patched_threads_is_no_matter(how):
    assert run('import eventlet\n' + how + CONF + REFUSED) == ''


@pytest.mark.parametrize('url', ['fake://', 'rabbit://guest@127.0.0.1:1//'])
def test_other_transports_never_import_this_package(url):
    assert run(NATIVE + CONF + '''
transport = oslo_messaging.get_rpc_transport(conf, sys.argv[1])
client = oslo_messaging.get_rpc_client(
    transport, oslo_messaging.Target(topic='t'))
if sys.argv[1] == 'fake://':
    client.cast({}, 'nothing')
transport.cleanup()
print([name for name in sys.modules
       if name.partition('.')[0] in ('zmq', 'zmq_threaded', 'tooz')])
''', url) == '[]\n'


def test_eventlet_stays_out_of_a_process_on_native_threads(ipc_dir):
    assert run(NATIVE + CONF + '''
class Endpoint:
    def echo(self, ctxt, value):
        return value

transport = oslo_messaging.get_rpc_transport(
    conf, 'zmq://?rpc_zmq_ipc_dir=' + sys.argv[1])
target = oslo_messaging.Target(topic='t', server='s')
server = oslo_messaging.get_rpc_server(transport, target, [Endpoint()])
server.start()
client = oslo_messaging.get_rpc_client(transport, target, timeout=20)
print(client.call({}, 'echo', value='replied'))
server.stop()
server.wait()
transport.cleanup()
print([name for name in sys.modules
       if name.partition('.')[0] in ('eventlet', 'greenlet')])
''', ipc_dir) == 'replied\n[]\n'
