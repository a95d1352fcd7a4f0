# SPDX-License-Identifier: Apache-2.0
"""A service learns from others that they cannot reach it, and a sender names
those who do not answer.
"""

import time
import warnings

import oslo_messaging
import pytest

from tests.functional import test_self_check as checks
from tests.support import namespaces
from tests.support import rpc
from tests.support import servers
from tests.support import waiting
from zmq_threaded import timings
from zmq_threaded.client import custody
from zmq_threaded.registry import complaints
from zmq_threaded.registry import record
from zmq_threaded.registry import unanswered

FAST = checks.FAST
_WHY_NOT = namespaces.why_not()
if _WHY_NOT:
    warnings.warn(f'NOT TESTED: hosts as network namespaces ({_WHY_NOT})',
                  stacklevel=1)


@pytest.fixture(scope='module', params=servers.parallel(servers.NAMES))
def engine(request):
    with servers.open_engine(request.param) as opened:
        yield opened


@pytest.fixture
def cloud(engine, ipc_dir):
    """A node with its registry on the engine."""
    # Not no_leaks: the server of the engine is a child.
    with servers.no_client_left(), rpc.Node(ipc_dir) as node:
        node.query = {'rpc_zmq_topology': 'direct', **FAST}
        if engine.binaries:
            node.query['rpc_zmq_matchmaker'] = engine.url
        yield node


def test_a_complaint_reaches_the_service_and_ends(cloud, caplog):
    # Given a service, and a sender that has tried in vain to reach it
    query = {'rpc_zmq_transport': 'ipc', 'rpc_zmq_host': 'node-7'}
    made, other = cloud.transport(**query), cloud.transport(**query)
    cloud.server(transport=made)
    client = cloud.client(other)
    assert client.call({}, 'echo', value=1) == 1
    instance = checks.service_of(made).instance
    sender = checks.parts(other)
    sender.registry.cache.complaints.unreachable(instance, 'a firewall')
    # Then the service says so, with who complains and why
    found = checks.has_found(made, 'others_cannot_reach')
    assert 'One process says that it cannot reach server on node-7' in (
        found.text)
    assert 'a firewall' in found.text and 'process ' in found.text
    assert 'firewall' in found.remedy
    assert checks.findings(other).keys() == {'cannot_reach'}
    # ... once, and until the sender reaches it
    sender.registry.cache.complaints.reached(instance)
    checks.is_well(made)
    checks.is_well(other)
    assert len(checks.lines(caplog, 'say')) == 1


@pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT)
def test_a_cut_wire_is_told_to_the_service_behind_it(no_leaks, ipc_dir):
    with namespaces.Hosts(ipc_dir, 'ab') as hosts:
        # Given a service on B that A cannot reach any more, for a wire is cut
        hosts.b.receiver()
        server = hosts.b.server('b')
        client = hosts.a.client()
        assert namespaces.ask(client, 'call', method='pid', args={})[
            'result'] == server.pid
        hosts.set_link(hosts.b, 'down')
        # When A has tried it
        namespaces.ask(client, 'call', method='pid', args={})
        began = time.monotonic()
        # Then B is told
        waiting.until(lambda: 'others_cannot_reach' in server.ask('findings'),
                      25)
        assert 'cannot_reach' in namespaces.ask(client, 'findings')
        assert time.monotonic() - began < 25
        # ... and when it is over, nobody says so any more
        hosts.set_link(hosts.b, 'up')
        namespaces.ask(client, 'call', method='pid', args={}, timeout=30)
        waiting.until(lambda: not server.ask('findings'), 30)


def test_what_others_wrote_is_read_with_distrust():
    good = {'endpoints': ['tcp://h:1'], 'who': 'x\ny', 'why': 'z' * 9999}
    bad = [None, 7, b'\xc1', [], {}, {'unreachable': 7},
           {'unreachable': [None, {'endpoints': 7}, {'who': 'x'},
                            {'endpoints': [], 'who': 1, 'why': None}]}]
    heard = complaints.read([*bad, {'unreachable': [good]}])
    assert set(heard) == {('tcp://h:1',)}
    (said,), = heard.values()
    assert said.who == 'x\\ny' and len(said.why) < 400
    many = complaints.read({'unreachable': [
        dict(good, endpoints=[f'tcp://h:{port}']) for port in range(1, 400)]}
        for _ in range(100))
    assert sum(map(len, many.values())) <= 200


def test_a_process_complains_of_a_bounded_number():
    found = complaints.Complaints()
    for number in range(1, 200):
        found.unreachable(record.Instance(
            number.to_bytes(16, 'big'), (f'tcp://h:{number}',), host='h'),
            'why')
    assert len(found.current()) == 50
    fields, = found.fields().values()
    assert len(fields) == 50


def test_a_complaint_is_forgotten_when_nobody_tries_any_more(monkeypatch):
    monkeypatch.setattr(complaints, '_LASTS', 0.05)
    found = complaints.Complaints()
    found.unreachable(record.Instance(b'i' * 16, ('tcp://h:1',)), 'why')
    assert found.current()
    waiting.until(lambda: not found.current())


@pytest.mark.parametrize('timeout', [0.4, 1.5 * timings.ASK_AFTER])
def test_a_server_that_answers_no_calls_is_named(receiver, node, caplog,
                                                 monkeypatch, timeout):
    monkeypatch.setattr(unanswered, '_SECONDS', 0.5)
    assert receiver
    server = node.server(transport=node.transport(**FAST))
    other = node.transport(**FAST)
    client = node.client(other, timeout=timeout)
    for number in range(4):
        with pytest.raises(oslo_messaging.MessagingTimeout):
            client.call({}, 'wait', value=number)
    # During a longer call the poller of the server is asked, and answers;
    # no worker does.
    found = checks.has_found(other, 'unanswered')
    assert 'server on ' in found.text and ' calls' in found.text
    assert checks.lines(caplog, 'has answered none of')
    server.endpoint.release.set()
    assert client.prepare(timeout=30).call({}, 'echo', value=1) == 1
    checks.is_well(other)


def test_a_listed_service_that_takes_no_messages_is_named(node, monkeypatch,
                                                          caplog):
    monkeypatch.setattr(custody, '_OLD', 0.5)
    monkeypatch.setattr(custody, '_LOOK_FOR_OLD', 0.2)
    made = node.transport(rpc_zmq_topic_backlog=5, **FAST)
    server = node.server(transport=made, workers=1)
    other = node.transport(**FAST)
    client = node.client(other)
    for number in range(10):
        client.cast({}, 'wait', value=number)
    found = checks.has_found(other, 'unacknowledged')
    assert ' messages have waited ' in found.text and 'topic' in found.text
    # One line at once, whatever comes in the next minute.
    assert len(checks.lines(caplog, 'messages have been waiting')) == 1
    server.endpoint.release.set()
    checks.is_well(other)


def test_nobody_is_named_to_whom_nobody_listens(node):
    client = node.client(node.transport(**FAST))
    client.cast({}, 'note', value=1)
    time.sleep(1.5)
    assert not checks.findings(client.transport)


