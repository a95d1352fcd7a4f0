# SPDX-License-Identifier: Apache-2.0
"""How processes end, and what happens to drivers that nobody closes."""

import contextlib
import gc
import logging
import os
import pickle
import re
import select
import signal
import subprocess
import sys
import threading
import time
import types

import oslo_messaging
import pytest
from cotyledon import _utils as cotyledon_utils
from oslo_service.backend._threading import service as oslo_service

from tests.support import forks
from tests.support import leaks
from tests.support import processes
from tests.support import rpc
from tests.support import waiting
from zmq_threaded import closing
from zmq_threaded import errors
from zmq_threaded import exits
from zmq_threaded import runtime as runtimes
from zmq_threaded import threads
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import outbox as outboxes

DEADLINE = 20.0
_PROGRAM = '''
import native_threads; native_threads.use_native_threads()
import logging, sys, threading, time
logging.basicConfig(stream=sys.stdout)
import oslo_messaging
from oslo_config import cfg
cfg.CONF([], project="short")
def client(topic="topic"):
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, sys.argv[1])
    return oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic=topic))
'''


def _run(node, program, **query):
    """:returns: what it printed, and the seconds of its exit"""
    query = {'rpc_cast_timeout': 30, **query}
    process = subprocess.Popen(
        [sys.executable, '-c', _PROGRAM + program
         + '\nprint("ends", flush=True)', node.url(**query)],
        env=processes.ENVIRONMENT, text=True, stdout=subprocess.PIPE)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line == 'ends\n':
            began = time.monotonic()
    process.stdout.close()
    assert process.wait(100) == 0
    return ''.join(lines), time.monotonic() - began


def _cast(topic):
    return deliveries.Delivery(
        kind=wire.CAST, topic=topic, body=[b'{}', b'{}'], flags=0,
        expires=time.monotonic() + 60)


# The exit of a process


def test_an_exit_with_nothing_outstanding_is_quick(node):
    node.server()
    _, seconds = _run(node, 'client().call({}, "echo", value=1)\n'
                            'client().cast({}, "note", value=1)\n',
                      rpc_cast_timeout=40, rpc_zmq_exit_timeout=40)
    assert seconds < 20     # not until a time limit


def test_an_exit_waits_its_own_time_and_says_so_and_what_it_gives_up(node):
    output, seconds = _run(
        node, 'c = client("absent")\n'
              'for n in range(3): c.cast({}, "note", value=n)\n',
        rpc_zmq_exit_timeout=2)
    assert 2 <= seconds < 2 + 18
    assert re.search(r'the exit of this process waits up to [01]\.\d s '
                     r'\(rpc_zmq_exit_timeout\) for messages to be '
                     r'acknowledged: 3 for topic absent '
                     r'\(exchange openstack\)', output)
    assert 'absent (exchange openstack) was dropped' in output


def test_an_exit_never_waits_longer_than_rpc_cast_timeout(node):
    _, seconds = _run(node, 'client("absent").cast({}, "note", value=1)\n',
                      rpc_cast_timeout=1, rpc_zmq_exit_timeout=40)
    assert 1 <= seconds < 1 + 20


def test_the_default_of_the_exit_is_shorter_than_that_of_cleanup(node):
    settings = node.settings(rpc_cast_timeout=30)
    assert (settings.exit_timeout, settings.cast_timeout) == (10.0, 30.0)


def test_many_drivers_share_the_time_of_one_exit(node):
    _, seconds = _run(
        node, 'for n in range(15): '
              'client(f"t{n}").cast({}, "note", value=n)\n',
        rpc_zmq_exit_timeout=2)
    assert 2 <= seconds < 2 + 18    # not 15 times as long


def test_nothing_is_taken_any_more_in_the_end(node):
    server = node.server()
    output, _ = _run(node, '''
import atexit
def last():
    # Registered before the driver was: it runs after it was closed.
    for transport in (c, client()):
        try: transport.cast({}, "note", value=-1)
        except oslo_messaging.MessageDeliveryFailure as error: print(error)
atexit.register(last)
import zmq_threaded.driver
c = client()
c.cast({}, "note", value=1)
''')
    assert output.count('This process is ending') == 2
    assert server.endpoint.seen == [1]


def test_a_thread_that_never_stops_casting_does_not_hold_the_exit(node):
    server = node.server()
    output, seconds = _run(node, '''
c = client()
def forever():
    for n in range(10**9):
        try: c.cast({}, "note", value=n)
        except oslo_messaging.MessageDeliveryFailure as error:
            print(f"refused {n}: {error}", flush=True); return
threading.Thread(target=forever, daemon=True).start()
time.sleep(0.5)
''', rpc_cast_timeout=40, rpc_zmq_exit_timeout=40)
    assert seconds < 20
    waiting.until(lambda: len(server.endpoint.seen) > 100)
    refused = [line for line in output.splitlines()
               if line.startswith('refused')]
    if refused:
        number = int(refused[0].split()[1].rstrip(':'))
        assert 'ending' in refused[0]
        waiting.until(lambda: sorted(server.endpoint.seen)
                      == list(range(number)))


# Drivers that their owners forgot


def _forget(node, count, topic='topic', **query):
    for number in range(count):
        client = node.client(oslo_messaging.get_rpc_transport(
            rpc.cfg.CONF, node.url(**query)), topic=topic)
        client.cast({}, 'note', value=number)


def test_a_forgotten_driver_delivers_and_leaves_nothing(node):
    server = node.server()
    before = leaks.threads(), leaks.descriptors()
    _forget(node, 40)
    waiting.until(lambda: len(server.endpoint.seen) == 40)
    waiting.until(lambda: gc.collect() or leaks.threads() <= before[0])
    waiting.until(lambda: leaks.descriptors() <= before[1] + 2)


def test_a_forgotten_driver_waits_for_a_server(node):
    _forget(node, 3, zmq_target_update=1)
    gc.collect()
    server = node.server()
    waiting.until(lambda: sorted(server.endpoint.seen) == [0, 1, 2], 20)


def test_a_forgotten_driver_ends_with_the_life_of_its_messages(node, caplog):
    before = leaks.threads()
    _forget(node, 2, rpc_message_ttl=2)
    waiting.until(lambda: caplog.text.count('rpc_message_ttl') == 2)
    waiting.until(lambda: leaks.threads() <= before)


def test_one_that_was_only_asked_is_closed_with_the_next(node):
    before = leaks.descriptors()
    for _ in range(20):
        rpc.driver(oslo_messaging.get_rpc_transport(
            rpc.cfg.CONF, node.url())).counters()
    gc.collect()
    assert leaks.descriptors() < before + 20
    rpc.driver(node.transport()).counters()


def test_a_driver_that_serves_is_not_closed(node):
    server = node.server(transport=oslo_messaging.get_rpc_transport(
        rpc.cfg.CONF, node.url()))
    gc.collect()
    client = node.client()
    began = time.monotonic()
    while time.monotonic() < began + 2.5:
        assert client.call({}, 'echo', value=1) == 1
    rpc.driver(server.transport).cleanup()


def test_a_used_driver_can_be_pickled_and_works(node):
    server = node.server()
    transport = node.transport()
    node.client(transport).call({}, 'echo', value=1)
    copy = pickle.loads(pickle.dumps(rpc.driver(transport)))
    assert copy._runtimes.latest() is None
    assert rpc.driver(transport)._runtimes.latest()
    copy.send(oslo_messaging.Target(topic='topic', exchange='openstack'), {},
              {'method': 'note', 'args': {'value': 'copy'}})
    waiting.until(lambda: server.endpoint.seen == ['copy'])
    copy.cleanup()


# Making one


@pytest.mark.parametrize('owner, name', [
    (select, 'epoll'), (runtimes.sockets, 'new_context'),
    (runtimes.surroundings, 'Surroundings'),
    (runtimes.requests, 'Requests'), (runtimes.checks, 'Checks'),
    (outboxes.custody, 'Custody')])
def test_a_runtime_that_cannot_be_made_leaves_nothing_open(
        node, monkeypatch, owner, name):
    def fail(*args, **kwargs):
        raise OSError(24, 'Too many open files')
    gc.collect()
    before = leaks.descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        for _ in range(5):
            with pytest.raises(OSError):
                node.runtime()
    assert leaks.descriptors() <= before


class Sender(logging.Handler):
    """Sends what is logged over a driver."""

    def __init__(self, transport):
        super().__init__(logging.INFO)
        self._transport = transport
        self.sent = []

    def emit(self, record):
        self.sent.append(record.getMessage())
        self._transport._send_notification(
            oslo_messaging.Target(topic='logs.info'), {}, {'payload': 1}, 2.0)


@pytest.fixture
def sender(node):
    logger = logging.getLogger('zmq_threaded')
    transport = node.notification_transport(rpc_cast_timeout=1)
    handler, level = Sender(transport), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_a_log_handler_may_use_the_driver_that_is_just_made(node, sender):
    driver = rpc.driver(sender._transport)
    driver.counters()
    waiting.until(lambda: driver._parts().outbox.pending())
    opened = [text for text in sender.sent if 'sockets in' in text]
    assert len(opened) == 1
    assert len([each for each in exits._open if each._owner
                and each._owner() is driver._runtimes]) == 1


def test_a_handler_that_logs_while_a_driver_is_made_ends(
        node, sender, monkeypatch, capsys):
    log = logging.getLogger('zmq_threaded.ipc_directory')
    find = runtimes.ipc_directory.find

    def tell(settings):
        log.warning('a warning')
        return find(settings)
    monkeypatch.setattr(runtimes.ipc_directory, 'find', tell)
    with contextlib.suppress(oslo_messaging.MessageDeliveryFailure):
        rpc.driver(sender._transport).counters()
    assert sender.sent.count('a warning') < 5


def test_threads_that_open_a_driver_at_the_same_time_share_it(node):
    for _ in range(20):
        driver, found = rpc.driver(node.transport()), []
        barrier = threading.Barrier(8)

        def use():
            barrier.wait()
            found.append(driver._parts())
        users = [threading.Thread(target=use) for _ in range(8)]
        for user in users:
            user.start()
        for user in users:
            user.join(DEADLINE)
        assert len(found) == 8 and len(set(found)) == 1


# The driver's own threads never wait for themselves


def _in_outbox_thread(outbox, function):
    outcome = []

    def run():
        try:
            outcome.append(function())
        except Exception as error:
            outcome.append(error)
    outbox._tell(run)
    return waiting.until(lambda: outcome, 20)[0]


def test_the_outbox_thread_never_waits_for_itself(node):
    transport = node.transport(rpc_zmq_outbox_limit=1, rpc_cast_timeout=3)
    driver = rpc.driver(transport)
    client = node.client(transport, timeout=60)
    client.cast({}, 'note', value=1)
    outbox = driver._parts().outbox
    refused = _in_outbox_thread(
        outbox, lambda: client.cast({}, 'note', value=2))
    assert isinstance(refused, oslo_messaging.MessageDeliveryFailure)
    assert isinstance(_in_outbox_thread(
        outbox, lambda: client.call({}, 'echo', value=1)),
        oslo_messaging.MessageDeliveryFailure)
    assert len(_in_outbox_thread(outbox, driver.unacknowledged)) == 1
    parts = driver._parts()
    assert _in_outbox_thread(outbox, transport.cleanup) is None
    waiting.until(lambda: parts.is_closed, 30)


# The end of hosts


def test_the_hosts_have_the_shape_that_is_known(monkeypatch):
    for name, module in (('cotyledon._utils', cotyledon_utils),
                         (oslo_service.__name__, oslo_service)):
        shape, _ = exits._HOSTS[name]
        assert shape(module)
    exits.prepare()
    assert isinstance(cotyledon_utils.os, exits._Os)
    assert isinstance(oslo_service.os, exits._Os)
    assert cotyledon_utils.os.getpid() == os.getpid()
    assert not exits._strange


def test_an_orderly_exit_of_a_host_delivers(node):
    server = node.server()
    transport = node.transport()

    def leave(manner):
        node.client(transport).cast({}, 'note', value=manner)
        if manner == 'exits':
            with cotyledon_utils.exit_on_exception():
                sys.exit(3)
        with cotyledon_utils.exit_on_exception():
            raise ValueError('on purpose')
    for manner, status in (('exits', 3), ('raises', 2)):
        pid = os.fork()
        if not pid:
            leave(manner)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status
    waiting.until(lambda: server.endpoint.seen == ['exits', 'raises'])


def test_an_exit_of_a_host_ends_before_its_alarm(node, monkeypatch):
    assert exits._BEFORE_THE_ALARM >= 1
    # The alarm ends whoever stands still for so long before it.
    monkeypatch.setattr(exits, '_BEFORE_THE_ALARM', 15.0)
    transport = node.transport(rpc_cast_timeout=60, rpc_zmq_exit_timeout=60)
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(17)
        node.client(transport).cast({}, 'note', value=1)
        with cotyledon_utils.exit_on_exception():
            sys.exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert 1.5 < time.monotonic() - began < 18


@pytest.fixture
def strange(monkeypatch):
    """A host of a shape that nobody knows."""
    host = types.ModuleType('strange_host')
    host.os = os
    monkeypatch.setitem(sys.modules, 'strange_host', host)
    monkeypatch.setitem(exits._HOSTS, 'strange_host', (
        lambda module: False, lambda status: True))
    monkeypatch.setattr(exits, '_strange', set())
    return host


def test_a_host_of_another_shape_is_left_alone_and_told_of_once(
        strange, caplog):
    for _ in range(3):
        exits.prepare()
    assert strange.os is os
    assert caplog.text.count('this version of strange_host is not known') == 1


def test_under_such_a_host_the_last_server_that_stops_delivers(node, strange):
    transport = node.transport(rpc_cast_timeout=60, rpc_zmq_exit_timeout=60,
                               zmq_target_update=1)
    first, last = (node.server(topic=name, transport=transport)
                   for name in 'ab')
    node.client(transport, topic='late').cast({}, 'note', value=1)
    began = time.monotonic()
    first.stop()
    assert time.monotonic() - began < 20    # not the last one
    stopping = threading.Thread(target=last.stop)
    stopping.start()
    outbox = rpc.driver(transport)._parts().outbox
    waiting.until(lambda: outbox._flushers)
    other = node.transport()
    server = node.server(topic='late', transport=other)
    waiting.until(lambda: server.endpoint.seen == [1])
    stopping.join(DEADLINE)
    assert not stopping.is_alive()


def test_threads_that_find_a_closed_driver_share_the_next(node, monkeypatch):
    transport = node.transport()
    driver = rpc.driver(transport)
    closed = driver._parts()
    closed.close(time.monotonic())
    # Given two threads that have both found it closed
    open_next = driver._runtimes._next_to
    first = open_next(closed)
    found = [first, open_next(closed), driver._parts()]
    assert found == [first] * 3 and not first.is_closed
    # Then an exception of neither, and what they share can be closed
    transport.cleanup()
    assert first.is_closed and driver._parts() is not first


def test_a_flush_that_timed_out_hastens_nothing_any_more(node):
    outbox = node.runtime().outbox
    outbox.post(_cast(topics.rpc('', 'nobody')), 0.0)
    deadline = time.monotonic() + 0.3
    flush = outbox.begin_flush(deadline)
    waiting.until(lambda: outbox._flushers)
    assert not flush.wait(deadline)
    waiting.until(lambda: not outbox._flushers)
    assert outbox.pending() == 1


def test_a_background_close_that_was_interrupted_is_begun_again(node):
    parts = node.runtime()
    closes = []

    def steps(deadline, is_exit):
        closes.append(deadline)
        if len(closes) == 1:
            raise SystemExit
        return parts._closing_steps(deadline, is_exit)
    background = closing.Closing(steps, lambda: None)
    background.begin(time.monotonic())
    waiting.until(lambda: (closes
                           and not background._runner.is_claimed()))
    background.begin(time.monotonic())
    waiting.until(lambda: parts.is_closed)


# Room


def test_a_sender_waits_for_a_slow_outbox_until_its_deadline(node):
    outbox, goes_on = node.runtime().outbox, threading.Event()
    topic, done = topics.rpc('', 'topic'), []
    outbox._loop.start()
    outbox._limit = 1
    outbox.post(_cast(topic), 0.0)
    waiting.until(lambda: not outbox._inbox)
    # Given an outbox that is behind with more than it ever should be
    outbox._tell(lambda: goes_on.wait(30))
    for _ in range(2 * outboxes._INBOX_LIMIT):
        outbox._tell(lambda: None)
    sending = threading.Thread(target=lambda: done.append(
        outbox.post(_cast(topic), time.monotonic() + DEADLINE)))
    sending.start()
    # When it takes longer than a second
    time.sleep(1.5)
    assert not done
    goes_on.set()
    sending.join(DEADLINE)
    # Then the sender has got its room
    assert done == [None]


def test_who_gets_no_room_is_told_what_is_slow(node):
    outbox, goes_on = node.runtime().outbox, threading.Event()
    topic = topics.rpc('', 'topic')
    outbox._loop.start()
    outbox._limit = 1
    outbox.post(_cast(topic), 0.0)
    waiting.until(lambda: not outbox._inbox)
    outbox._tell(lambda: goes_on.wait(30))
    try:
        reason = _refusal(outbox, topic, 0.1)
        assert '1 messages wait for topic (exchange )' in reason
        for _ in range(outboxes._INBOX_LIMIT):
            outbox._tell(lambda: None)
        reason = _refusal(outbox, topic, 0.1)
        assert 'it is behind itself' in reason and 'wait for' in reason
    finally:
        goes_on.set()


def _refusal(outbox, topic, seconds):
    with pytest.raises(errors.NotAccepted) as refusal:
        outbox.post(_cast(topic), time.monotonic() + seconds)
    return str(refusal.value)


def test_senders_that_wait_for_room_are_refused_when_it_closes(node):
    outbox, goes_on = node.runtime().outbox, threading.Event()
    node.closing(goes_on.set)
    topic, done = topics.rpc('', 'topic'), []
    outbox._loop.start()
    outbox._limit = 0
    outbox._custody.make_room = lambda destination, ticket: (
        destination._waiting.append(ticket))
    sending = threading.Thread(target=lambda: done.append(
        _refusal(outbox, topic, DEADLINE)))
    sending.start()
    waiting.until(lambda: outbox._destinations)
    outbox.refuse('because')
    sending.join(DEADLINE)
    assert done == ['because']
    assert _refusal(outbox, topic, 0.0) == 'because'


def test_a_child_of_an_ending_process_opens_its_own(node, monkeypatch):
    server = node.server()
    transport = node.transport()
    monkeypatch.setattr(exits, '_ending_in', os.getpid())
    with pytest.raises(oslo_messaging.MessageDeliveryFailure):
        node.client(transport).cast({}, 'note', value=1)

    def send():
        node.client(transport).cast({}, 'note', value=2)
        transport.cleanup()
    forks.Forked(send).result()
    waiting.until(lambda: server.endpoint.seen == [2])


def test_the_names_of_threads_that_never_wait_are_theirs(node):
    transport = node.transport()
    node.client(transport).cast({}, 'note', value=1)
    parts = rpc.driver(transport)._parts()
    waiting.until(lambda: parts.registry._loop.is_alive())
    assert {threads.OUTBOX, threads.REGISTRY} <= leaks.threads()
