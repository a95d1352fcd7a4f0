# SPDX-License-Identifier: Apache-2.0
"""Which of the endpoints of a record a process uses."""

import os

import pytest
import zmq

from tests.support import forks
from zmq_threaded import endpoints
from zmq_threaded.net import binding

TCP = 'tcp://127.0.0.1:9501'
_NOBODY = 65534


@pytest.fixture
def ipc(ipc_dir):
    """The endpoint of a socket in a directory that all may enter."""
    os.chmod(ipc_dir, 0o755)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        yield binding.bind_ipc(socket, os.path.join(ipc_dir, 'socket'))


def test_ipc_goes_before_tcp(ipc):
    assert endpoints.reachable((ipc, TCP)) == ipc


def test_without_its_file_ipc_is_of_another_host(ipc_dir):
    gone = f'ipc://{ipc_dir}/gone'
    assert endpoints.reachable((gone, TCP)) == TCP
    assert endpoints.reachable((gone,)) is None


@pytest.mark.skipif(os.getuid() != 0, reason='only root can be another user')
def test_a_socket_of_another_user_is_of_no_use(ipc):
    def as_nobody():
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
        return endpoints.reachable((ipc, TCP))
    assert forks.Forked(as_nobody).result() == TCP
