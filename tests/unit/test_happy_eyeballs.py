# SPDX-License-Identifier: Apache-2.0
"""Which address answers, and why others do not; and what endpoints mean."""

import os
import resource
import socket
import time

import pytest

from tests.support import leaks
from zmq_threaded import endpoints
from zmq_threaded.net import addresses
from zmq_threaded.net import happy_eyeballs


@pytest.fixture
def listening():
    with socket.create_server(('127.0.0.1', 0)) as server:
        yield server.getsockname()


@pytest.fixture
def refusing():
    with socket.socket() as bound:
        bound.bind(('127.0.0.1', 0))
        yield bound.getsockname()


@pytest.fixture
def silent():
    """An address that takes no more connections and refuses none."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        server.listen(0)
        held = []
        for _ in range(3):
            held.append(socket.socket())
            held[-1].setblocking(False)
            held[-1].connect_ex(server.getsockname())
        yield server.getsockname()
        for each in held:
            each.close()


def _soon(seconds=5.0):
    return time.monotonic() + seconds


def test_the_one_that_listens_wins(listening, refusing):
    for order in ([refusing, listening], [listening, refusing]):
        began = time.monotonic()
        assert happy_eyeballs.HappyEyeballs(order).run(_soon()) == listening
        assert time.monotonic() - began < 0.2


def test_a_silent_one_holds_up_the_next_only_shortly(silent, listening):
    began = time.monotonic()
    tried = happy_eyeballs.HappyEyeballs([silent, listening])
    assert tried.run(_soon()) == listening
    assert time.monotonic() - began < 1
    assert 'no answer within 0.' in tried.problems[silent]


def test_each_problem_has_its_name(refusing, silent):
    tried = happy_eyeballs.HappyEyeballs([refusing, silent])
    began = time.monotonic()
    assert tried.run(_soon(0.5)) is None
    assert time.monotonic() - began < 1
    assert tried.problems[refusing] == 'connection refused'
    assert tried.problems[silent] == 'no answer within 0.5 s'
    assert not tried.is_blind


def test_refused_is_known_at_once(refusing):
    began = time.monotonic()
    assert happy_eyeballs.HappyEyeballs([refusing]).run(_soon()) is None
    assert time.monotonic() - began < 0.2


def test_step_by_step_it_waits_for_nothing(silent, listening):
    tried = happy_eyeballs.HappyEyeballs([silent, listening])
    deadline, longest = _soon(), 0.0
    while time.monotonic() < deadline:
        began = time.monotonic()
        over = tried.advance()
        longest = max(longest, time.monotonic() - began)
        if over:
            break
        time.sleep(0.01)
    tried.close()
    assert tried.winner == listening
    assert longest < 0.1


def test_no_descriptor_is_left(silent, refusing, listening):
    before = leaks.descriptors()
    for _ in range(20):
        happy_eyeballs.HappyEyeballs([silent, refusing, listening]).run(
            _soon()
        )
        happy_eyeballs.HappyEyeballs([silent, refusing]).run(_soon(0.01))
    assert leaks.descriptors() == before


def test_without_descriptors_nothing_is_known(listening):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (leaks.descriptors() + 30,
                                                hard))
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        tried = happy_eyeballs.HappyEyeballs([listening])
        assert tried.run(_soon(0.2)) is None
    finally:
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert tried.is_blind
    assert 'too many open files' in tried.problems[listening]


@pytest.mark.parametrize('address', [('::g', 1),
                                     ('fe80::1%nowhere', 1)])
def test_an_address_that_is_none_is_a_problem(address):
    tried = happy_eyeballs.HappyEyeballs([address])
    assert tried.run(_soon(0.5)) is None
    assert address in tried.problems


@pytest.mark.parametrize('endpoint,expected', [
    ('tcp://10.0.0.1:9501', ('10.0.0.1', 9501, True)),
    ('tcp://[fd00::9]:9501', ('fd00::9', 9501, True)),
    ('tcp://fd00::9:9501', ('fd00::9', 9501, True)),
    ('tcp://[fe80::1%eth0]:9501', ('fe80::1%eth0', 9501, True)),
    ('tcp://node-17.example.org:1', ('node-17.example.org', 1, False)),
    ('tcp://127.1:1', ('127.1', 1, False))])
def test_endpoints_in_parts(endpoint, expected):
    assert addresses.split(endpoint) == expected


@pytest.mark.parametrize('endpoint', [
    '', 'tcp', 'tcp://', 'tcp://:1', 'tcp://host', 'tcp://host:', 'udp://a:1',
    'tcp://host:0', 'tcp://host:65536', 'tcp://host:-1', 'tcp://host:\u0663',
    'inproc://a', 'ws://host:80', 'tcp://host:' + '9' * 5000, 'tcp://[]:1',
    'ipc:///tmp/x'])
def test_what_is_no_endpoint(endpoint):
    with pytest.raises(endpoints.BadEndpoint):
        addresses.split(endpoint)


def test_numbers_are_never_resolved():
    found = addresses.Addresses(resolve=None)
    assert found.look('tcp://10.0.0.1:5') == (('10.0.0.1', 5),)
    assert found.wait('tcp://[fd00::1]:5', 0.0) == (('fd00::1', 5),)
    assert addresses.as_endpoint(('fd00::1', 5)) == 'tcp://[fd00::1]:5'


def test_what_worked_last_comes_first():
    found = addresses.Addresses(resolve=lambda name: ['fd00::9', '10.9.9.1'])
    endpoint = 'tcp://node:5'
    first, second = found.wait(endpoint, _soon())
    assert (first, second) == (('fd00::9', 5), ('10.9.9.1', 5))
    found.worked(endpoint, second)
    assert found.look(endpoint) == (second, first)
    assert found.look('tcp://node:6') == (('fd00::9', 6), ('10.9.9.1', 6))


def test_a_description_has_number_and_name():
    assert addresses.describe('tcp://node:5', ('10.0.0.1', 5)) == (
        'tcp://10.0.0.1:5 (node)')
    assert addresses.describe('tcp://10.0.0.1:5', ('10.0.0.1', 5)) == (
        'tcp://10.0.0.1:5')
