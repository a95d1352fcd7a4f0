# SPDX-License-Identifier: Apache-2.0
"""The gauge of sockets is what is open."""

from zmq_threaded import counters as counts


class Socket:
    """Anything that can be forgotten."""


def open_sockets(counters):
    return counters.sockets()


def test_sockets_are_counted_once():
    counters, socket = counts.Counters(), Socket()
    assert open_sockets(counters) == 0
    counters.opened(socket)
    counters.opened(socket)
    assert open_sockets(counters) == 1


def test_a_socket_may_be_closed_twice():
    counters, one, other = counts.Counters(), Socket(), Socket()
    counters.opened(one)
    counters.opened(other)
    counters.closed(one)
    counters.closed(one)
    assert open_sockets(counters) == 1


def test_a_socket_that_was_forgotten_is_not_open():
    counters, socket = counts.Counters(), Socket()
    counters.opened(socket)
    del socket
    assert open_sockets(counters) == 0


def test_the_gauge_is_not_among_the_counts():
    counters = counts.Counters()
    counters.add('sent', 2)
    counters.add('sent')
    assert counters.snapshot() == {'sent': 3}
