# SPDX-License-Identifier: Apache-2.0
"""Real servers and clients of oslo.messaging for the tests."""

import contextlib
import threading
import time
from urllib import parse

import oslo_messaging
from oslo_config import cfg

from tests.support import idle_threads  # noqa: F401
from tests.support import processes
from tests.support import receivers
from zmq_threaded import options
from zmq_threaded import runtime

cfg.CONF([], project='zmq_threaded_tests')
# Seconds for what is not acknowledged when a test ends.
_FLUSH_LIMIT = 0.5


class Recorder:
    """An endpoint that keeps what it was called with."""

    def __init__(self):
        self.seen = []
        self.release = threading.Event()

    def echo(self, ctxt, value):
        return value

    def note(self, ctxt, value):
        self.seen.append(value)

    def wait(self, ctxt, value):
        self.seen.append(value)
        self.release.wait(30)
        return value

    def fail(self, ctxt, text):
        raise ValueError(text)


class Notes:
    """A notification endpoint that keeps the payloads."""

    def __init__(self):
        self.seen = []

    def info(self, ctxt, publisher, event_type, payload, metadata):
        self.seen.append(payload)


class Node:
    """One IPC directory, and everything that a test opens in it.

    :ivar query: options of all URLs made from now on
    """

    def __init__(self, ipc_dir):
        self.ipc_dir = ipc_dir
        self.query = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._stack.close()

    def closing(self, callback, *args):
        """To be called at the end of the test."""
        self._stack.callback(callback, *args)

    def url(self, **query):
        query = {'rpc_zmq_ipc_dir': self.ipc_dir, 'rpc_cast_timeout': 5,
                 **self.query, **query}
        return 'zmq://?' + parse.urlencode(query)

    def transport(self, allowed_remote_exmods=None, **query):
        transport = oslo_messaging.get_rpc_transport(
            cfg.CONF, self.url(**query),
            allowed_remote_exmods=allowed_remote_exmods)
        self._stack.callback(_clean_up, transport)
        return transport

    def server(self, topic='topic', server='server', endpoint=None,
               transport=None, exchange=None, workers=None):
        """A started server in this process, and its endpoint as .endpoint."""
        endpoint = endpoint or Recorder()
        listening = oslo_messaging.get_rpc_server(
            transport or self.transport(),
            oslo_messaging.Target(topic=topic, server=server,
                                  exchange=exchange), [endpoint])
        listening.endpoint = endpoint
        listening.start(override_pool_size=workers or 8)
        self._stack.callback(self.stop, listening)
        return listening

    @staticmethod
    def stop(listening):
        if isinstance(listening.endpoint, Recorder):
            listening.endpoint.release.set()
        listening.stop()
        listening.wait()

    def client(self, transport=None, timeout=10, retry=None,
               transport_options=None, call_monitor_timeout=None, **target):
        target.setdefault('topic', 'topic')
        return oslo_messaging.get_rpc_client(
            transport or self.transport(), oslo_messaging.Target(**target),
            timeout=timeout, retry=retry, transport_options=transport_options,
            call_monitor_timeout=call_monitor_timeout)

    def process(self, topic='topic', server='server', **query):
        """A server in a process of its own; see server_main.py."""
        return self._process('server_main.py', self.url(**query), topic,
                             server)

    def receiver(self, **kwargs):
        """A receiver process; services made from now on are behind it."""
        receiver = receivers.ReceiverProcess(self.ipc_dir, **kwargs)
        self.closing(receiver.end)
        self.query = receivers.query(receiver)
        return receiver

    def listener_process(self, topic, pool, path):
        """A listener that writes to a file; see listener_main.py."""
        return self._process('listener_main.py', self.url(), topic, pool,
                             path)

    def listener(self, topic='notes', pool=None, endpoint=None,
                 transport=None):
        """A started notification listener; what it got as .seen."""
        transport = transport or self.notification_transport()
        endpoint = endpoint or Notes()
        listening = oslo_messaging.get_notification_listener(
            transport, [oslo_messaging.Target(topic=topic)], [endpoint],
            pool=pool)
        listening.endpoint, listening.seen = endpoint, endpoint.seen
        listening.start(override_pool_size=4)
        self._stack.callback(self.stop, listening)
        return listening

    def notification_transport(self, **query):
        transport = oslo_messaging.get_notification_transport(
            cfg.CONF, self.url(**query))
        self._stack.callback(_clean_up, transport)
        return transport

    def notifier(self, topic='notes', transport=None):
        return oslo_messaging.Notifier(
            transport or self.notification_transport(), 'publisher',
            driver='messagingv2', topics=[topic], retry=-1)

    def _process(self, main, *arguments):
        process = processes.ServerProcess(self.ipc_dir, main, *arguments)
        self._stack.callback(process.end)
        return process

    def runtime(self, **query):
        """The driver's parts without oslo.messaging."""
        parts = runtime.Runtime(self.settings(**query))
        self._stack.callback(lambda: parts.close(time.monotonic() + 5))
        return parts

    def settings(self, **query):
        query = dict(parse.parse_qsl(parse.urlparse(self.url(**query)).query))
        return options.read(cfg.CONF, query)


def driver(transport):
    """The ZmqDriver of a transport, also of one with a bridge."""
    return getattr(transport._driver, 'zmq', transport._driver)


def _clean_up(transport):
    """As transport.cleanup(), but what the test has left undelivered is not
    waited for until rpc_cast_timeout.
    """
    parts = driver(transport)._runtimes.latest()
    if parts is not None:
        parts.close(time.monotonic() + _FLUSH_LIMIT)
    transport.cleanup()
