# SPDX-License-Identifier: Apache-2.0
"""What an operator reads in the log of a sender: each thing, and no flood."""

import logging
import re

import pytest

from tests.support import old_server
from tests.support import rpc
from tests.support import waiting
from zmq_threaded import errors
from zmq_threaded import logs
from zmq_threaded import wire
from zmq_threaded.client import custody
from zmq_threaded.client import losses

EVIL = 'x\n2026-11-26 00:00:00 CRITICAL root pwned \x1b[2J' + 'A' * 1_000_000


def lines(caplog, level=logging.INFO):
    logs.flush()
    return [record.getMessage() for record in caplog.records
            if record.levelno >= level
            and record.name.startswith('zmq_threaded')]


def count(transport, name):
    return rpc.driver(transport).counters().get(name, 0)


@pytest.fixture(params=['direct', 'receiver'])
def reached(request, node):
    """The node, whose services are reached in one way or the other."""
    if request.param == 'receiver':
        node.receiver()
    return node


def test_fanouts_after_a_server_was_killed(reached, caplog):
    killed = reached.process(server='killed')
    staying = reached.server(server='staying')
    transport = reached.transport()
    client = reached.client(transport, fanout=True)
    client.cast({}, 'note', value=-1)
    # Else that copy is one of those for a server that is gone.
    waiting.until(lambda: count(transport, 'acknowledged') == 2)
    killed.kill()
    before = len(lines(caplog))
    for number in range(80):
        client.cast({}, 'note', value=number)
    # Its workers run them at the same time.
    waiting.until(lambda: sorted(staying.endpoint.seen) == [-1, *range(80)])
    waiting.until(lambda: count(transport, 'copies_for_gone') == 80, 40,
                  rpc.driver(transport).counters)
    assert len(lines(caplog)) - before <= 2
    assert not count(transport, 'dropped')
    assert not count(transport, 'fanouts_to_nobody')


def test_fanouts_to_killed_servers_alone(node, caplog):
    servers = [node.process(server=name) for name in 'ab']
    transport = node.transport()
    client = node.client(transport, fanout=True)
    client.cast({}, 'note', value=0)
    waiting.until(lambda: count(transport, 'acknowledged') == 2)
    for each in servers:
        each.kill()
    for number in range(50):
        client.cast({}, 'note', value=number)
    waiting.until(lambda: count(transport, 'fanouts_to_nobody') == 50)
    found = [line for line in lines(caplog) if 'reached nobody' in line]
    assert len(found) == 1 and 'a on ' in found[0] and 'b on ' in found[0]


def test_fanouts_to_nobody_where_somebody_was_registered(
        node, caplog):
    """As after a step of the clock: the registry has forgotten one that
    lives.
    """
    server = node.server()
    transport = node.transport()
    client = node.client(transport, fanout=True)
    client.cast({}, 'note', value=0)
    waiting.until(lambda: server.endpoint.seen)
    service = server.listener._service.current
    service._registry.unregister(service.instance)
    for number in range(20):
        client.cast({}, 'note', value=number)
    waiting.until(lambda: count(transport, 'fanouts_to_nobody') == 20)
    found = [line for line in lines(caplog) if 'reached nobody' in line]
    assert len(found) == 1 and str(service.instance) in found[0]


def test_notifications_that_nobody_listens_to(node, monkeypatch, caplog):
    monkeypatch.setattr(losses, '_EVERY', 3.0)
    transport = node.notification_transport(rpc_message_ttl=1,
                                            rpc_cast_timeout=0)
    notifier = node.notifier(transport=transport)
    for number in range(200):
        notifier.info({}, 'event', number)
    waiting.until(lambda: count(transport, 'dropped') == 200)
    assert count(transport, 'dropped_nobody_took') == 200
    waiting.until(lambda: len(lines(caplog, logging.WARNING)) == 2)
    first, summed = lines(caplog, logging.WARNING)
    assert re.match(r'NOTIFY [0-9a-f]{32} for notes\.info .* was dropped: '
                    r'nobody took it', first)
    assert re.match(r'199 more messages for notes\.info .* were dropped in '
                    r'the last \d+ s: nobody took it', summed)


def test_at_the_end_all_is_told(node, caplog):
    transport = node.transport(rpc_cast_timeout=0)
    for number in range(30):
        node.client(transport).cast({}, 'note', value=number)
    transport.cleanup()
    first, summed = lines(caplog, logging.WARNING)[-2:]
    assert 'the driver was closed' in first
    assert summed.startswith('29 more messages for topic ')


def test_old_messages_are_reported_with_their_destinations(
        node, monkeypatch, caplog):
    monkeypatch.setattr(custody, '_REPORT_OLD_EVERY', 0.2)
    monkeypatch.setattr(custody, '_OLD', 0.5)
    paused = node.process(server='compute')
    transport = node.transport(rpc_cast_timeout=1)
    client = node.client(transport)
    client.call({}, 'echo', value=1)
    paused.pause()
    for number in range(3):
        client.cast({}, 'note', value=number)
    node.client(transport, topic='nobody').cast({}, 'note', value=1)
    report = waiting.until(lambda: [
        line for line in lines(caplog) if line.startswith('4 messages have')])
    paused.resume()
    assert re.search(r'3 for topic \(.*?\) at compute on \S+ \(instance ',
                     report[0])
    assert re.search(r'1 for nobody \(.*?\), for which no service is reg',
                     report[0])


# What a stranger answers

def test_texts_of_a_refusal_are_cut_and_escaped(node, caplog):
    caplog.set_level(logging.DEBUG)

    def refuse(request):
        request.send(wire.NACK, (bytes((wire.MALFORMED,)), EVIL.encode()))
    with old_server.OldServer(node.ipc_dir, refuse, False):
        transport = node.transport()
        for monitor in (None, 30):
            with pytest.raises(Exception) as refused:
                node.client(transport, call_monitor_timeout=monitor).call(
                    {}, 'echo', value=1)
            assert_harmless(str(refused.value))
        node.client(transport).cast({}, 'note', value=1)
        waiting.until(lambda: count(transport, 'dropped_refused') == 1)
    for line in lines(caplog, logging.DEBUG):
        assert_harmless(line)


def assert_harmless(text):
    assert len(text) < 2000
    assert '\n' not in text and '\x1b' not in text


def test_a_flood_of_malformed_answers_is_a_line_now_and_then(node, caplog):
    def flood(request):
        # A ROUTER drops what is over its high-water mark of 1000.
        for _ in range(900):
            request.server.socket.send_multipart([*request.envelope, b'junk'])
        request.result('done')
    with old_server.OldServer(node.ipc_dir, flood, False):
        transport = node.transport()
        client = node.client(transport, call_monitor_timeout=30)
        assert client.call({}, 'echo', value=1) == 'done'
        waiting.until(lambda: count(transport, 'malformed') >= 500)
        # Through a REQ the first is what it gets.
        with pytest.raises(errors.MessagingTimeout):
            node.client(transport).call({}, 'echo', value=1)
    assert 1 <= len([line for line in lines(caplog)
                     if 'malformed' in line]) <= 3
