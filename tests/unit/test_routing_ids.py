# SPDX-License-Identifier: Apache-2.0
"""The ids that libzmq gives to anonymous peers cannot be foreseen."""

import multiprocessing

import pytest
import zmq
from oslo_config import cfg

from tests.support import ids
from zmq_threaded import options
from zmq_threaded import sockets

# What generate_random() of libzmq gives first to a process that does not
# seed rand(): glibc's first two numbers, put together.
UNSEEDED = 0x6b8b4567


@pytest.fixture
def settings():
    return options.read(cfg.ConfigOpts(), {})


def _first_ids(settings, count=2):
    """The number that each of some ROUTERs gives to its first peer."""
    context = sockets.new_context(settings)
    numbers = []
    for _ in range(count):
        router = sockets.Sockets(context, settings).router()
        port = router.bind_to_random_port('tcp://127.0.0.1')
        peer = context.socket(zmq.DEALER)
        peer.connect(f'tcp://127.0.0.1:{port}')
        peer.send(b'')
        assert router.poll(5000)
        routing_id = router.recv_multipart()[0]
        assert len(routing_id) == 5 and routing_id[0] == 0
        numbers.append(int.from_bytes(routing_id[1:], 'big'))
        peer.close(linger=0)
        router.close(linger=0)
    context.term()
    return numbers


def _send_first_ids(pipe, settings):
    pipe.send(_first_ids(settings))


def _of_processes(settings, method, count):
    numbers = []
    for _ in range(count):
        fork = multiprocessing.get_context(method)
        ours, theirs = fork.Pipe()
        child = fork.Process(target=_send_first_ids, args=(theirs, settings))
        child.start()
        assert ours.poll(30)
        numbers += ours.recv()
        child.join(10)
    return numbers


def _are_unrelated(numbers):
    assert len(set(numbers)) == len(numbers)
    assert all(abs(one - other) > 1000 for at, one in enumerate(numbers)
               for other in numbers[:at])


def test_two_routers_of_a_process_start_far_apart(settings):
    _are_unrelated(_first_ids(settings, 5))


def test_children_that_were_forked_at_the_same_moment(settings):
    _are_unrelated(_of_processes(settings, 'fork', 4))


def test_new_processes_do_not_start_where_libzmq_would(settings):
    numbers = _of_processes(settings, 'spawn', 2)
    _are_unrelated(numbers)
    assert all(abs(number - UNSEEDED) > 100_000 for number in numbers)


def test_the_request_ids_of_a_req_do_not_tell_them(settings):
    context = sockets.new_context(settings)
    router = sockets.Sockets(context, settings).router()
    port = router.bind_to_random_port('tcp://127.0.0.1')
    seen = []
    for _ in range(4):
        req = sockets.Sockets(context, settings).request(
            f'tcp://127.0.0.1:{port}')
        assert req.poll(5000, zmq.POLLOUT)
        req.send(ids.new_id())
        assert router.poll(5000)
        frames = router.recv_multipart()
        seen.append(int.from_bytes(frames[1], 'big'))
        req.close(linger=0)
    router.close(linger=0)
    context.term()
    _are_unrelated(seen)
