# SPDX-License-Identifier: Apache-2.0
"""What closes at the end, in which order, and whatever comes in between."""

import threading

from zmq_threaded import topic as topics

DEADLINE = 20.0


def a_service(node, on_incoming=lambda messages: None, **query):
    """A started bare service and the runtime that it belongs to."""
    parts = node.runtime(**query)
    service = parts.service([topics.rpc('openstack', 'topic')])
    service.start(on_incoming)
    return parts, service


def begin(function):
    """Run a function by a thread of its own; it is a daemon, for some of them
    once hung.
    """
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


class Interrupted:
    """A socket during whose close() something else happens, as when a signal
    handler runs.
    """

    def __init__(self, socket, handler):
        self._socket = socket
        self._handlers = [handler]

    def __getattr__(self, name):
        return getattr(self._socket, name)

    def close(self):
        while self._handlers:
            self._handlers.pop()()
        self._socket.close()


def test_a_signal_handler_may_clean_up_a_service_that_is_being_closed(node):
    parts, service = a_service(node)
    service._router._socket = Interrupted(service._router._socket,
                                          service.cleanup)
    closing = begin(service.cleanup)
    closing.join(DEADLINE)
    assert not closing.is_alive()
    assert parts.snapshot()['sockets'] == 0


def test_a_service_that_is_cleaned_up_twice_is_one_socket_less(node):
    parts, service = a_service(node)
    service.cleanup()
    service.cleanup()
    assert parts.snapshot()['sockets'] == 0
