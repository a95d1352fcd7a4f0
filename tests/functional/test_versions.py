# SPDX-License-Identifier: Apache-2.0
"""Peers of other versions: a version later they are understood, of another
major version they are refused by name.

Those of other versions are child processes; see tests/support/versions.py.
"""

import contextlib
import itertools

import pytest

from tests.support import ports
from tests.support import versions
from tests.support import waiting
from zmq_threaded import wire

# Topology, version of the receiver
DIRECT = ('direct', None)
WAYS = [DIRECT, ('receiver', 'same'), ('receiver', 'minor')]
TWO = {'rpc_zmq_two_message_replies': 'true'}
VERSION = f'{wire.MAJOR}.{wire.MINOR}'
NEXT_MAJOR = f'{wire.MAJOR + 1}.{wire.MINOR}'
each_way = pytest.mark.parametrize(
    'way', WAYS, ids=lambda way: '-'.join(filter(None, way)))


@contextlib.contextmanager
def open_way(node, way):
    """:returns: the query with which services have it"""
    topology, version = way
    if topology == 'direct':
        yield {}
        return
    query = {'rpc_zmq_topology': 'receiver', 'rpc_zmq_host': '127.0.0.1',
             'rpc_zmq_bind_address': '127.0.0.1',
             'rpc_zmq_port': ports.free_port()}
    with versions.open_receiver(node, version, query):
        yield query


@contextlib.contextmanager
def parties(node, way, client, *servers):
    """:param servers: version of each; the first replies in two messages
    :returns: the parties, the client first
    """
    with open_way(node, way) as query:
        wanted = [(node, version, f'server{number}', {
            **query, **({} if number else TWO)})
            for number, version in enumerate(servers)]
        with versions.parties([(node, client, '', {}), *wanted]) as made:
            yield made


def result(party, what, **how):
    answer = party.do(what, **how)
    assert 'error' not in answer, answer
    return answer['result']


def count(party, name):
    return result(party, 'counters').get(name, 0)


def wait_until_seen(party, *values):
    """Once each, and nothing else so far."""
    waiting.until(lambda: sorted(result(party, 'seen')) == sorted(values),
                  what=values)


# A version later


@pytest.mark.parametrize('client, server', [('same', 'minor'),
                                            ('minor', 'same')])
@each_way
def test_peer_a_version_later(node, way, client, server):
    # Several servers, for a receiver gets their fanouts as one message.
    with parties(node, way, client, server, server) as (caller, first, other):
        for name in ('server0', 'server1'):
            check_calls(caller, name)
        result(caller, 'cast', value='cast', server='server0')
        result(caller, 'cast', value='sure', server='server0',
               at_least_once=True)
        result(caller, 'cast', value='fanout', fanout=True)
        result(caller, 'notify', value='notify')
        wait_until_seen(first, 'cast', 'sure', 'fanout', 'notify')
        wait_until_seen(other, 'fanout', 'notify')
        check_nothing_was_wrong(caller, first, other)
        assert len(result(first, 'seen') + result(other, 'seen')) == 6


def check_calls(caller, server):
    for monitor in (None, 30):
        for number in range(5):
            assert result(caller, 'call', value=number, monitor=monitor,
                          server=server) == number
        failed = caller.do('call', value='why', method='fail',
                           monitor=monitor, server=server)
        assert 'ValueError' in failed['kinds'] and 'why' in failed['error']


def check_nothing_was_wrong(*those):
    # Acknowledged, not only arrived.
    waiting.until(lambda: not count(those[0], 'unacknowledged'))
    for party in those:
        for name in ('wrong_version', 'malformed', 'dropped', 'resent',
                     'duplicates_dropped'):
            assert not count(party, name), name


@pytest.mark.parametrize('client, server', [('same', 'minor'),
                                            ('minor', 'same')])
def test_refusals_of_a_peer_a_version_later(node, client, server):
    with parties(node, DIRECT, client, server) as (caller, serving):
        late = caller.do('call', value=1, timeout=0, server='server0')
        assert 'MessagingTimeout' in late['kinds']
        unknown = caller.do('call', value=1, method='unknown')
        assert 'NoSuchMethod' in str(unknown) or 'does not' in str(unknown), (
            unknown)
        check_nothing_was_wrong(caller, serving)


# Another major version

SENT = {
    'call': ('call', {}),
    'monitored call': ('call', {'monitor': 10}),
    'at_least_once': ('cast', {'at_least_once': True}),
    'retry': ('cast', {'retry': 3}),
}


def names_both(text):
    return (f'protocol {VERSION}' in text or f'speaks {VERSION}' in text) and (
        f'protocol {NEXT_MAJOR}' in text or f'speaks {NEXT_MAJOR}' in text)


@pytest.mark.parametrize('client, server', [('same', 'major'),
                                            ('major', 'same')])
@each_way
def test_another_major_version_is_refused_by_name(node, way, client, server):
    with parties(node, way, client, server) as (caller, serving):
        for name, (what, how) in SENT.items():
            before = count(serving, 'wrong_version')
            refused = caller.do(what, value=name, server='server0', **how)
            assert names_both(refused.get('error', '')), (name, refused)
            assert count(serving, 'wrong_version') > before, name
        assert names_both(result(serving, 'log'))
        assert result(serving, 'seen') == []
        assert not result(serving, 'echoed')


def test_refusal_by_another_major_version_is_no_lost_server(node):
    with parties(node, DIRECT, 'same', 'same', 'major') as (caller, _, _):
        for monitor in (10, None):
            refused = caller.do('call', value=1, server='server1',
                                monitor=monitor)
            assert 'MessageDeliveryFailure' in refused['kinds'], monitor
        assert count(caller, 'wrong_version') == 2
        assert not count(caller, 'malformed')


@pytest.mark.parametrize('what, how', [
    ('cast', {}), ('cast', {'fanout': True}), ('notify', {})],
    ids=['cast', 'fanout', 'notify'])
@pytest.mark.parametrize('client, server', [('same', 'major'),
                                            ('major', 'same')])
def test_what_nobody_waits_for_is_refused_in_the_log(node, client, server,
                                                     what, how):
    with parties(node, DIRECT, client, server) as (caller, serving):
        result(caller, what, value=1, **how)
        waiting.until(lambda: count(caller, 'dropped'))
        assert names_both(result(caller, 'log'))
        assert names_both(result(serving, 'log'))
        assert not count(caller, 'unacknowledged')


@pytest.mark.parametrize('client, server', [
    ('same', 'major'),
    ('major', 'same')])
def test_fanout_to_several_of_another_major_version_behind_a_receiver(
        node, client, server):
    with parties(node, WAYS[1], client, server, server) as (
            caller, *serving):
        result(caller, 'cast', value=1, fanout=True)
        waiting.until(lambda: count(caller, 'dropped') == 2, 20)
        assert names_both(result(caller, 'log'))
        for each in serving:
            assert names_both(result(each, 'log'))


def test_a_receiver_of_another_major_version_passes_on_what_it_can(node):
    with parties(node, ('receiver', 'major'), 'same', 'same', 'same') as (
            caller, *serving):
        assert result(caller, 'call', value=1) == 1
        assert result(caller, 'call', value=1, monitor=10) == 1
        result(caller, 'cast', value='cast', at_least_once=True,
               server='server0')
        result(caller, 'cast', value='fanout', fanout=True)
        wait_until_seen(serving[0], 'cast', 'fanout')
        wait_until_seen(serving[1], 'fanout')


# Upgraded one by one, under load

OLD, NEW = ('same', TWO), ('minor', {})
_THREADS = 5    # of each of the two clients


@pytest.mark.parametrize('way', [DIRECT, ('receiver', 'same')],
                         ids=['direct', 'receiver'])
def test_servers_are_upgraded_and_rolled_back_one_by_one_under_load(node,
                                                                   way):
    with contextlib.ExitStack() as stack:
        query = stack.enter_context(open_way(node, way))
        names = (f'server{number}' for number in itertools.count())

        def start(version, two):
            server = versions.Peer(node, version, 'party', next(names),
                                   **query, **two)
            stack.callback(server.end)
            return server

        running = [start(*OLD) for _ in range(2)]
        clients = stack.enter_context(versions.parties([
            (node, version, '', {'zmq_target_update': 1})
            for version in ('same', 'minor')]))
        for client in clients:
            result(client, 'begin_load', threads=_THREADS)
        replace_each(running, start, NEW)
        replace_each(running, start, OLD)
        done = [result(client, 'end_load') for client in clients]
    assert min(done) > 100
    print(f'{way[0]}: {sum(done)} calls, none failed')


def replace_each(running, start, version):
    for _ in list(running):
        started = start(*version)
        waiting.until(lambda: result(started, 'echoed') > 5, 20)
        old = running.pop(0)
        assert result(old, 'echoed') > 5
        old.end()
        running.append(started)
        wait_for_more(running)


def wait_for_more(running):
    before = [result(each, 'echoed') for each in running]
    waiting.until(lambda: all(
        result(each, 'echoed') > already
        for each, already in zip(running, before)), 20)
