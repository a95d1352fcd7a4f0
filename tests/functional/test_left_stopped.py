# SPDX-License-Identifier: Apache-2.0
"""Servers that are stopped, and whose wait() nobody calls."""

import contextlib
import json
import os
import threading

import pytest

from tests.support import journaled
from tests.support import rpc
from tests.support import waiting
from zmq_threaded.service import stopped


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(stopped, '_LEFT', 0.5)


def _services(transport):
    return rpc.driver(transport)._parts()._services


def _files(node):
    return {name for name in os.listdir(node.ipc_dir)
            if name.endswith(('.sock', '.closing'))}


def _names():
    return sorted(thread.name.rpartition('-')[0]
                  for thread in threading.enumerate()
                  if thread.name.startswith(('zmq-poller', 'zmq-reply')))


def test_what_was_stopped_and_left_is_cleaned_up(node, monkeypatch):
    transport = node.transport(zmq_linger=0)
    node.server(topic='stays', transport=transport)
    files, names = _files(node), _names()
    gone = node.server(topic='gone', transport=transport)
    assert _files(node) > files and len(_names()) == len(names) + 2
    gone.stop()
    waiting.until(lambda: _files(node) == files, 60)
    assert _names() == names
    assert len(_services(transport)) == 1
    assert node.client(transport, topic='stays').call({}, 'echo', value=1) == 1
    gone.wait()     # late, and of no effect
    assert _files(node) == files


def test_a_request_that_runs_is_waited_for(node):
    transport = node.transport()
    server = node.server(transport=transport)
    parts = rpc.driver(transport)._parts()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(
        node.client(timeout=120).call({}, 'wait', value='slow')))
    thread.start()
    waiting.until(lambda: server.endpoint.seen, 60)
    server.stop()
    turns, turn = [], parts._stopped.turn
    parts._stopped.turn = lambda: (turn(), turns.append(1))
    waiting.until(lambda: len(turns) >= 3, 60)
    assert len(_services(transport)) == 1
    server.endpoint.release.set()
    thread.join(60)
    assert answers == ['slow']
    waiting.until(lambda: not _services(transport), 60)


def test_a_client_that_was_killed_is_not_waited_for(node):
    transport = node.transport()
    server = node.server(transport=transport)
    client = journaled.sender(node)

    def call():
        with contextlib.suppress(ValueError):   # it says nothing any more
            client.ask(json.dumps({'do': 'call', 'method': 'wait',
                                   'args': {'value': 'slow'},
                                   'timeout': 120}))
    calling = threading.Thread(target=call)
    calling.start()
    waiting.until(lambda: server.endpoint.seen, 60)
    client.kill()
    calling.join(60)
    server.stop()
    server.endpoint.release.set()
    waiting.until(lambda: not _services(transport), 60)


def test_the_end_of_the_driver_waits_for_a_clean_up_that_runs(
        node, monkeypatch):
    transport = node.transport()
    server = node.server(transport=transport)
    runs, may_end = threading.Event(), threading.Event()
    service, = _services(transport)
    cleanup = service.cleanup

    def slow():
        runs.set()
        may_end.wait(60)
        cleanup()
    monkeypatch.setattr(service, 'cleanup', slow)
    server.stop()
    assert runs.wait(60)
    threading.Timer(0.3, may_end.set).start()
    transport.cleanup()
    assert not [thread for thread in threading.enumerate()
                if thread.name == 'zmq-clean-up']
