# SPDX-License-Identifier: Apache-2.0
"""Native threads before anything else, and a check that nothing is left."""

import os

import native_threads

native_threads.use_native_threads()
# All that the tests reach is on this machine; etcd's client would go to it
# by way of a proxy.
for _name in ('http_proxy', 'https_proxy', 'all_proxy'):
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)

import gc  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# The path of a Unix socket has 107 bytes.
if len(tempfile.gettempdir()) > 20 and os.access('/tmp', os.W_OK):
    os.environ['TMPDIR'] = tempfile.tempdir = '/tmp'

from tests.support import leaks  # noqa: E402
from tests.support import logged  # noqa: E402
from tests.support import rpc  # noqa: E402
from tests.support import servers  # noqa: E402

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile('no-deadline', deadline=None)
hypothesis.settings.load_profile('no-deadline')


def pytest_collection_finish():
    """Each test has all garbage collected, twice and more: it takes a tenth
    of the time without the modules and the thousands of tests.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def ipc_dir():
    """A short path."""
    path = tempfile.mkdtemp(prefix='zt-')
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def no_leaks(ipc_dir):
    """After the test no thread, socket, child or ipc file of ours is left."""
    with leaks.nothing_left(ipc_dir):
        yield


@pytest.fixture
def caplog(caplog):
    """pytest's, of all that has been logged before it is looked at."""
    return logged.Logged(caplog)


@pytest.fixture
def eager_switching():
    """Threads take turns after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope='module')
def redis():
    """A redis-server of its own for the tests of a module."""
    with servers.open_engine('redis') as opened:
        yield opened


@pytest.fixture
def node(no_leaks, ipc_dir):
    """Servers, clients and server processes that share a registry, closed at
    the end of the test.
    """
    with rpc.Node(ipc_dir) as node:
        yield node


@pytest.fixture
def receiver(node):
    """The receiver process behind which the services of the node are."""
    return node.receiver()
