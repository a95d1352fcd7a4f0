# SPDX-License-Identifier: Apache-2.0
"""Parties of several versions of the protocol: in this process, or patched
in a child (version_main.py).

    same    this version
    minor   a version later: flags, parts and frames that nobody knows yet
    major   one that is understood by nobody here, and understands nobody
"""

import concurrent.futures
import contextlib
import json
import logging
import threading

import oslo_messaging
from oslo_config import cfg

from tests.support import ids
from tests.support import processes
from zmq_threaded import logs
from zmq_threaded import options
from zmq_threaded import wire
from zmq_threaded.net import multiparts
from zmq_threaded.receiver import receiver
from zmq_threaded.receiver import route
from zmq_threaded.wire import frames

UNKNOWN_FLAGS = 0xa500
NOTIFICATIONS = 'notifications'


def become(version):
    """Make this process one of another version; there is no way back."""
    if version == 'minor':
        wire.MINOR = frames.MINOR = wire.MINOR + 1
        _say_more()
    elif version == 'major':
        wire.MAJOR = frames.MAJOR = wire.MAJOR + 1


def _say_more():
    encode, send, refusal = wire.encode, multiparts.send, route.refusal

    def encode_more(kind, instance, message_id, body=(), flags=0, *args,
                    **kwargs):
        # The length of an id, which could be taken for one.
        return encode(kind, instance, message_id,
                      [*body, ids.new_id(), b'new', b''],
                      flags | UNKNOWN_FLAGS, *args, **kwargs)

    def send_more(socket, frames):
        send(socket, [*frames, b'trailing', b''])

    wire.encode = frames.encode = encode_more
    multiparts.send = send_more
    multiparts.answer.__defaults__ = (send_more,)
    route.refusal = lambda *args: [*refusal(*args), b'trailing']


class _Endpoint:
    def __init__(self):
        self.seen = []
        self.echoed = 0

    def echo(self, ctxt, value):
        self.echoed += 1
        return value

    def note(self, ctxt, value):
        self.seen.append(value)

    def fail(self, ctxt, value):
        raise ValueError(value)

    def info(self, ctxt, publisher, event_type, payload, metadata):
        self.seen.append(payload)


class Party:
    """A client, and a server and listener if it has a name.

    do() is all that is asked of it, so that it can be in a child as well.
    """

    def __init__(self, url, server=''):
        self._lines = []
        self._handler = logging.Handler(logging.INFO)
        self._handler.emit = lambda record: self._lines.append(
            record.getMessage())
        logging.getLogger('zmq_threaded').addHandler(self._handler)
        self._transport = oslo_messaging.get_rpc_transport(
            cfg.CONF, url, allowed_remote_exmods=['builtins'])
        self._endpoint = _Endpoint()
        self._listening = self._listen(server) if server else []
        self._client = oslo_messaging.get_rpc_client(
            self._transport, oslo_messaging.Target(topic='topic'), timeout=20)
        self._notifier = oslo_messaging.Notifier(
            self._transport, 'party', driver='messagingv2',
            topics=[NOTIFICATIONS])
        self._load_ended = threading.Event()

    def _listen(self, server):
        listening = [
            oslo_messaging.get_rpc_server(
                self._transport, oslo_messaging.Target(
                    topic='topic', server=server), [self._endpoint]),
            oslo_messaging.get_notification_listener(
                self._transport, [oslo_messaging.Target(topic=NOTIFICATIONS)],
                [self._endpoint], pool=server)]
        for each in listening:
            each.start(override_pool_size=8)
        return listening

    def do(self, what, **how):
        """:returns: {'result'} or {'error', 'kinds' (names of classes)}"""
        try:
            return {'result': getattr(self, '_' + what)(**how)}
        except Exception as error:
            return {'error': str(error), 'kinds': [
                each.__name__ for each in type(error).__mro__]}

    def _call(self, value, method='echo', monitor=None, server=None,
              timeout=20):
        client = self._client.prepare(
            server=server, call_monitor_timeout=monitor, timeout=timeout)
        return client.call({}, method, value=value)

    def _cast(self, value, at_least_once=False, retry=None, **target):
        options = oslo_messaging.TransportOptions(at_least_once=at_least_once)
        self._client.prepare(transport_options=options, retry=retry,
                             **target).cast({}, 'note', value=value)

    def _notify(self, value):
        self._notifier.info({}, 'event', value)

    def _seen(self):
        return self._endpoint.seen

    def _echoed(self):
        return self._endpoint.echoed

    def _counters(self):
        return self._transport._driver.counters()

    def _log(self):
        logs.flush()
        return '\n'.join(self._lines)

    def _begin_load(self, threads):
        pool = concurrent.futures.ThreadPoolExecutor(threads)
        self._loads = [pool.submit(self._load, number)
                       for number in range(threads)]
        pool.shutdown(wait=False)

    def _load(self, number):
        count = 0
        while not self._load_ended.is_set():
            value = [number, count]
            assert self._client.call({}, 'echo', value=value) == value
            count += 1
        return count

    def _end_load(self):
        self._load_ended.set()
        return sum(load.result(30) for load in self._loads)

    def end(self):
        for listening in self._listening:
            listening.stop()
            listening.wait()
        self._transport.cleanup()
        logging.getLogger('zmq_threaded').removeHandler(self._handler)


class Peer(processes.ServerProcess):
    """A Party in a child process, or a receiver."""

    def __init__(self, node, version, role, server='', **query):
        super().__init__(node.ipc_dir, 'version_main.py', version, role,
                         node.url(**query), server)

    def do(self, what, **how):
        return self.ask(json.dumps([what, how]))


@contextlib.contextmanager
def parties(wanted):
    """Several of them, started and ended at the same time.

    :param wanted: list of (node, version, name of the server or '', query)
    """
    made = []
    with concurrent.futures.ThreadPoolExecutor(len(wanted)) as threads:
        try:
            starts = [threads.submit(_start, *each) for each in wanted]
            concurrent.futures.wait(starts)
            made += [start.result() for start in starts
                     if not start.exception()]
            yield [start.result() for start in starts]
        finally:
            list(threads.map(lambda each: each.end(), made))


def _start(node, version, server, query):
    if version == 'same':
        return Party(node.url(**query), server)
    return Peer(node, version, 'party', server, **query)


@contextlib.contextmanager
def open_receiver(node, version, query):
    """The receiver of a node, of a version."""
    if version == 'same':
        made = run_receiver(node.settings(**query), node.ipc_dir)
        stop = made.stop
    else:
        stop = Peer(node, version, 'receiver', **query).end
    try:
        yield
    finally:
        stop()


def run_receiver(settings, ipc_dir):
    made = receiver.Receiver(settings, ipc_dir)
    made.start()
    return made


def settings_of(url):
    parsed = oslo_messaging.TransportURL.parse(cfg.CONF, url)
    return options.read(cfg.CONF, parsed.query)
