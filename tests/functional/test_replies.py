# SPDX-License-Identifier: Apache-2.0
"""Replies in one message and in two, over real sockets."""

import collections
import concurrent.futures
import contextlib
import time

import oslo_messaging
import pytest
from load import messages
from oslo_config import cfg
from oslo_config import generator

from tests.support import old_server
from tests.support import ports
from tests.support import rpc
from tests.support import waiting
from zmq_threaded import errors
from zmq_threaded import live_options
from zmq_threaded import options
from zmq_threaded import wire
from zmq_threaded.receiver import receiver
from zmq_threaded.registry import engines

TWO = {'rpc_zmq_two_message_replies': 'true'}
TOPOLOGIES = ['direct', 'receiver']
each_topology = pytest.mark.parametrize('topology', TOPOLOGIES)


@pytest.fixture
def topology_of(node):
    """Called with a topology: the query with which services have it; the
    receiver runs until the test ends.
    """
    with contextlib.ExitStack() as stack:
        def open_topology(topology):
            if topology == 'direct':
                return {}
            query = {'rpc_zmq_topology': 'receiver',
                     'rpc_zmq_bind_address': '127.0.0.1',
                     'rpc_zmq_host': '127.0.0.1',
                     'rpc_zmq_port': ports.free_port()}
            running = receiver.Receiver(node.settings(**query), node.ipc_dir)
            running.start()
            stack.callback(running.stop)
            return query
        yield open_topology


@contextlib.contextmanager
def an_old_server(node, script, query, two_messages=True):
    settings = node.settings(**query) if query else None
    with old_server.OldServer(node.ipc_dir, script, two_messages,
                              settings) as server:
        yield server


def ways(server):
    """By what each request came."""
    behind = server.instance.receiver
    return {{2: 'DEALER', 3: 'REQ'}[len(request.envelope) - behind]
            for request in server.requests}


def calls(client, count):
    return [client.call({}, 'echo', value=number) for number in range(count)]


# A server of the older kind, whose record says so


def result_then_ending(request):
    request.result(request.argument)
    request.ending()


def both_at_once(request):
    request.result(request.argument, wire.ENDING)


def ending_lost(request):
    request.result(request.argument)


def ending_before_a_late_result(request):
    request.ending()
    time.sleep(0.02)
    request.result(request.argument)


def each_of_them_twice(request):
    for _ in range(2):
        result_then_ending(request)


def endings_of_all_before(request):
    request.result(request.argument)
    for earlier in request.server.requests[-5:]:
        earlier.ending()


SCRIPTS = [result_then_ending, both_at_once, ending_lost,
           ending_before_a_late_result, each_of_them_twice,
           endings_of_all_before]


@each_topology
@pytest.mark.parametrize('script', SCRIPTS)
def test_call_of_a_two_message_server_has_its_result(node, topology_of,
                                                     topology, script):
    transport = node.transport()
    with an_old_server(node, script, topology_of(topology)) as server:
        assert calls(node.client(transport), 20) == list(range(20))
        assert ways(server) == {'DEALER'}
        assert rpc.driver(transport).counters()['unacknowledged'] == 0
        rpc.driver(transport).cleanup()


@pytest.mark.parametrize('script', SCRIPTS)
def test_many_threads_call_a_two_message_server(node, script):
    client = node.client()
    with an_old_server(node, script, {}) as server:
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            done = list(threads.map(lambda number: client.call(
                {}, 'echo', value=number), range(80)))
        assert done == list(range(80))
        assert ways(server) == {'DEALER'}


def test_only_the_ending_comes_and_the_call_times_out(node):
    transport = node.transport()
    client = node.client(transport, timeout=0.5)
    with an_old_server(node, old_server.Request.ending, {}):
        with pytest.raises(oslo_messaging.MessagingTimeout) as timed_out:
            client.call({}, 'echo', value=1)
        assert not isinstance(timed_out.value, errors.ServerGone)
        waiting.until(lambda: not rpc.driver(transport).counters()[
            'unacknowledged'])


@each_topology
def test_call_longer_than_a_question_to_a_two_message_server(
        node, topology_of, topology):
    def slow(request):
        request.ending()
        request.server.gate.wait(0.1)
        # A thread that does not answer questions would look dead.
        if request.argument == 'slow':
            later.append(request)
        else:
            result_then_ending(request)
    later = []
    client = node.client()
    with an_old_server(node, slow, topology_of(topology)) as server:
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            call = thread.submit(client.call, {}, 'echo', value='slow')
            waiting.until(lambda: later)
            with pytest.raises(concurrent.futures.TimeoutError):
                call.result(2.5)
            assert client.call({}, 'echo', value='quick') == 'quick'
            server.ask(later[0].result, 'done')
            assert call.result(30) == 'done'


@pytest.mark.parametrize('two_messages', [False, True])
def test_server_that_is_about_to_close_gets_no_call(node, two_messages):
    def only_once(request):
        assert not closing, 'a call that would be lost'
        both_at_once(request)
    closing = []
    client = node.client()
    with an_old_server(node, only_once, {}, two_messages) as server:
        assert client.call({}, 'echo', value=1) == 1
        closing.append(server.hide())       # as service.cleanup() does first
        other = node.server(server='other')
        # The connection is no longer fresh.
        waiting.until(lambda: time.monotonic() > closing[0] + 0.1)
        assert client.prepare(timeout=30).call({}, 'echo', value=2) == 2
        node.stop(other)


# A server whose record does not say so: a REQ gets two messages


@each_topology
@pytest.mark.parametrize('script', [
    result_then_ending, each_of_them_twice, endings_of_all_before])
def test_req_takes_the_result_of_two_messages_and_goes_on(
        node, topology_of, topology, script):
    transport = node.transport()
    with an_old_server(node, script, topology_of(topology),
                       two_messages=False) as server:
        assert calls(node.client(transport), 1000) == list(range(1000))
        assert ways(server) == {'REQ'}
        assert len({request.envelope[0] for request in server.requests}) == 1
        assert rpc.driver(transport).counters()['sockets'] == 1
        rpc.driver(transport).cleanup()


def test_reply_of_another_major_version_ends_a_call_by_name(node):
    def newer(request):
        request.send(wire.REPLY, (b'?',), major=wire.MAJOR + 1)
    with an_old_server(node, newer, {}, two_messages=False) as server:
        transport = node.transport()
        with pytest.raises(oslo_messaging.MessagingException) as by_req:
            node.client(transport).call({}, 'echo', value=1)
        with pytest.raises(oslo_messaging.MessagingException) as by_dealer:
            node.client(transport, call_monitor_timeout=30).call(
                {}, 'echo', value=1)
        assert ways(server) == {'REQ', 'DEALER'}
    for raised in (by_req, by_dealer):
        assert f'{wire.MAJOR + 1}.0' in str(raised.value)
        assert f'{wire.MAJOR}.{wire.MINOR}' in str(raised.value)


# A server of ours in two-message mode


def two_message_server(node, query, **server):
    return node.server(transport=node.transport(**TWO, **query), **server)


@each_topology
def test_record_of_a_two_message_server_says_so(node, topology_of, topology):
    query = topology_of(topology)
    two_message_server(node, query)
    node.server(server='other', transport=node.transport(**query))
    registry = engines.embedded(node.ipc_dir, 30)
    listed = registry.lookup(old_server.TOPIC.key)
    registry.close()
    assert sorted((each.two_messages, each.receiver)
                  for each in listed) == [(False, bool(query)),
                                          (True, bool(query))]


@each_topology
def test_calls_of_every_sort_to_a_two_message_server(node, topology_of,
                                                     topology):
    transport = node.transport(allowed_remote_exmods=['builtins'])
    query = topology_of(topology)
    with messages.counted() as counted:
        server = two_message_server(node, query)
        client = node.client(transport)
        assert calls(client, 20) == list(range(20))
        monitored = node.client(transport, call_monitor_timeout=30)
        assert calls(monitored, 20) == list(range(20))
        for each in (client, monitored):
            with pytest.raises(ValueError, match='no such thing'):
                each.call({}, 'fail', text='no such thing')
        with pytest.raises(oslo_messaging.MessagingTimeout):
            client.prepare(timeout=0.5).call({}, 'wait', value=1)
        server.endpoint.release.set()
        assert calls(client, 5) == list(range(5))
        assert 'REQ' not in counted.opened()
        waiting.until(lambda: not rpc.driver(transport).counters()[
            'unacknowledged'])


def test_heartbeats_keep_a_long_call_of_a_two_message_server(node):
    server = two_message_server(node, {})
    client = node.client(timeout=20, call_monitor_timeout=2)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        call = thread.submit(client.call, {}, 'wait', value='long')
        waiting.until(lambda: server.endpoint.seen)
        with pytest.raises(concurrent.futures.TimeoutError):
            call.result(3.5)
        server.endpoint.release.set()
        assert call.result(30) == 'long'


@each_topology
def test_call_of_a_two_message_server_that_dies(node, topology_of, topology):
    process = node.process(**TWO, **topology_of(topology))
    client = node.client(timeout=60)
    assert client.call({}, 'pid') == process.pid
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        call = thread.submit(client.call, {}, 'sleep', seconds=60)
        time.sleep(0.3)     # until it is certainly running
        process.kill()
        began = time.monotonic()
        with pytest.raises(errors.ServerGone):
            call.result(40)
    assert time.monotonic() - began < 20


def test_one_and_two_message_servers_get_the_same_share_of_calls(node):
    one = node.process(server='one')
    two = node.process(server='two', **TWO)
    client = node.client()
    share = collections.Counter(client.call({}, 'pid') for _ in range(60))
    assert share[one.pid] >= 20 and share[two.pid] >= 20


# What is on the wire


@each_topology
def test_messages_on_the_wire_for_a_call(node, topology_of, topology):
    query = topology_of(topology)
    assert _sent_for_a_call(node, query) == {'client': 1.0, 'service': 1.0}
    assert _sent_for_a_call(node, {**query, **TWO}) == {'client': 1.0,
                                                        'service': 2.0}


def _sent_for_a_call(node, query):
    count = 50
    with messages.counted() as counted:
        server = node.server(transport=node.transport(**query))
        transport = node.transport()
        client = node.client(transport)
        calls(client, 1)
        counted.settle()
        before = counted.sent()
        calls(client, count)
        counted.settle()
        sent = counted.sent() - before
        node.stop(server)
        rpc.driver(transport).cleanup()
    return {'client': (sent['REQ'] + sent['DEALER']) / count,
            'service': sent['ROUTER'] / count}


# The hidden option

HIDDEN = 'rpc_zmq_two_message_replies'


def test_hidden_option_is_not_listed():
    assert HIDDEN not in {option.dest for _, listed in options.list_opts()
                          for option in listed}


def test_hidden_option_is_not_in_the_sample_configuration(tmp_path):
    conf = cfg.ConfigOpts()
    generator.register_cli_opts(conf)
    path = tmp_path / 'sample.conf'
    conf(['--namespace', 'zmq_threaded', '--output-file', str(path)])
    generator.generate(conf)
    assert 'rpc_zmq_serialization' in path.read_text()
    assert HIDDEN not in path.read_text()


def from_file(tmp_path, value):
    path = tmp_path / 'service.conf'
    path.write_text(f'[oslo_messaging_zmq]\n{HIDDEN} = {value}\n')
    conf = cfg.ConfigOpts()
    conf(['--config-file', str(path)], project='zmq_threaded_tests')
    return conf


@pytest.fixture
def logged(monkeypatch, caplog):
    """oslo.config warns of an option once in a process."""
    option, = (each for each in live_options.HIDDEN if each.dest == HIDDEN)
    monkeypatch.setattr(option, '_logged_deprecation', False)
    return caplog


def test_one_message_is_the_default(tmp_path, logged):
    conf = cfg.ConfigOpts()
    conf([], project='zmq_threaded_tests')
    assert options.read(conf, {}).two_messages is False
    assert HIDDEN not in logged.text


def test_hidden_option_in_a_file(tmp_path, logged):
    assert options.read(from_file(tmp_path, 'true'), {}).two_messages is True
    assert HIDDEN in logged.text
    assert 'deprecated for removal' in logged.text
    assert 'All releases read replies of one message' in logged.text


def test_hidden_option_in_a_url(tmp_path, logged):
    conf = from_file(tmp_path, 'true')
    assert options.read(conf, {HIDDEN: 'false'}).two_messages is False
    conf = cfg.ConfigOpts()
    conf([], project='zmq_threaded_tests')
    assert options.read(conf, {HIDDEN: 'true'}).two_messages is True


def test_hidden_option_in_a_url_is_reported_deprecated(logged):
    conf = cfg.ConfigOpts()
    conf([], project='zmq_threaded_tests')
    options.read(conf, {HIDDEN: 'true'})
    assert HIDDEN in logged.text


def test_wrong_value_of_the_hidden_option_is_refused_by_name():
    with pytest.raises(options.InvalidOption, match=HIDDEN):
        options.read(cfg.CONF, {HIDDEN: 'perhaps'})
