# SPDX-License-Identifier: Apache-2.0
"""Which Unix sockets a record may lead to."""

import os

import pytest

from zmq_threaded.registry import record
from zmq_threaded.security import own_directory

TCP = 'tcp://node-1:9501'


@pytest.fixture
def path(tmp_path):
    made = tmp_path / 'own'
    made.mkdir()
    return str(made)


@pytest.fixture
def own(path):
    return own_directory.OwnDirectory(path)


def instance(*endpoints, **fields):
    return record.Instance(bytes(16), endpoints, **fields)


def test_a_socket_of_the_own_directory_stays(own, path):
    one = instance(f'ipc://{path}/x.sock', TCP)
    assert own.only(one) is one and not own.problem(one)


def test_a_socket_elsewhere_is_dropped(own, path, tmp_path):
    for where in (tmp_path, f'{path}/..', f'{path}/deeper', f'{path}2',
                  '/tmp', ''):
        found = own.only(instance(f'ipc://{where}/x.sock', TCP))
        assert found.endpoints == (TCP,)
        assert not own.problem(found)


@pytest.mark.parametrize('name', ['', '.', '..'])
def test_a_directory_is_no_socket(own, path, name):
    assert own.only(instance(f'ipc://{path}/{name}', TCP)).endpoints == (TCP,)


def test_an_instance_that_is_elsewhere_only_counts_as_not_there(own, path,
                                                                tmp_path):
    one = own.only(instance(f'ipc://{tmp_path}/x.sock'))
    assert path in own.problem(one) and 'rpc_zmq_ipc_dir' in own.problem(one)


def test_why_an_instance_has_no_port_is_said_with_what_to_do(own, path,
                                                             tmp_path):
    socket = f'ipc://{tmp_path}/x.sock'
    behind = own.problem(instance(socket, receiver=True))
    assert 'its receiver has no encrypted port' in behind
    assert 'Start that receiver with rpc_zmq_key_file' in behind
    assert 'rpc_zmq_transport = tcp' in own.problem(instance(socket))


def test_another_name_of_the_own_directory_is_replaced(own, path, tmp_path):
    os.symlink(path, tmp_path / 'link')
    one = own.only(instance(f'ipc://{tmp_path}/link/x.sock', TCP))
    assert one.endpoints == (f'ipc://{path}/x.sock', TCP)
