# SPDX-License-Identifier: Apache-2.0
"""A client on one host, services behind receivers on two others."""

import collections
import time
import warnings

import pytest

from tests.support import namespaces
from tests.support import waiting
from tests.support.namespaces import ask

_WHY_NOT = namespaces.why_not()
if _WHY_NOT:
    warnings.warn(f'NOT TESTED: hosts as network namespaces ({_WHY_NOT})',
                  stacklevel=1)
pytestmark = pytest.mark.skipif(
    bool(_WHY_NOT), reason=f'hosts as network namespaces: {_WHY_NOT}')

# README: a call whose server is cut off ends within about six seconds.
_CUT_OFF_WITHIN = 22.0     # and not by its timeout of 30 s


@pytest.fixture(params=[4, 6], ids=['v4', 'v6'])
def hosts(request, no_leaks, ipc_dir):
    with namespaces.Hosts(ipc_dir, 'abc', request.param) as hosts:
        yield hosts


@pytest.fixture
def v4(no_leaks, ipc_dir):
    with namespaces.Hosts(ipc_dir, 'abc') as hosts:
        yield hosts


def _seen(server):
    return server.ask('seen')


def _pids(client, count=20):
    return {ask(client, 'call', method='pid', args={})['result']
            for _ in range(count)}


def test_everything_works_over_one_port_of_each_host(hosts, tmp_path):
    # Given a client on A, and a receiver and services on B and C each; the
    # clients' own host has a receiver, too, at the same paths
    hosts.a.receiver()
    for host in (hosts.b, hosts.c):
        host.receiver()
    servers = [hosts.b.server('b1'), hosts.b.server('b2'),
               hosts.c.server('c')]
    paths = [tmp_path / 'b', tmp_path / 'c']
    hosts.b.listener('one', paths[0])
    hosts.c.listener('two', paths[1])
    client = hosts.a.client()
    # When it calls, casts, fans out and notifies
    assert _pids(client) == {server.pid for server in servers}
    for number in range(60):
        ask(client, 'cast', method='note', args={'value': number})
    ask(client, 'fanout', method='note', args={'value': 'all'})
    for number in range(20):
        ask(client, 'notify', payload=number)
    # Then all of it arrives once
    waiting.until(lambda: sum(len(_seen(each)) for each in servers) >= 63)
    together = sum(map(_seen, servers), [])
    assert sorted(each for each in together if each != 'all') == list(
        range(60))
    assert [_seen(each).count('all') for each in servers] == [1, 1, 1]
    for path in paths:
        waiting.until(lambda: path.exists()
                      and len(path.read_text().split()) >= 20)
        assert sorted(map(int, path.read_text().split())) == list(range(20))
    # ... and between hosts only the one port is used
    for host in (hosts.b, hosts.c):
        assert host.connections()
        assert {own for own, _ in host.connections()} == {namespaces.PORT}
    assert {other for _, other in hosts.a.connections()} == {namespaces.PORT}


def test_a_call_to_a_host_that_is_cut_off_ends(v4):
    """While it runs, and the next one."""
    v4.b.receiver()
    server = v4.b.server('b')
    client = v4.a.client()
    assert _pids(client, 3) == {server.pid}
    ask(client, 'begin')
    v4.set_link(v4.b, 'down')
    outcome = ask(client, 'call', method='pid', args={}, timeout=40)
    v4.set_link(v4.b, 'up')
    assert outcome.get('is_timeout') or 'result' in outcome
    result = ask(client, 'end')
    assert all(seconds < _CUT_OFF_WITHIN or error == 'MessagingTimeout'
               for error, seconds in result['failed'])
    assert ask(client, 'call', method='pid', args={},
               timeout=20)['result'] == server.pid


def _cut_off(hosts, client, seconds):
    began = time.monotonic()
    hosts.set_link(hosts.b, 'down')
    waiting.until(lambda: time.monotonic() > began + seconds, seconds + 5)
    assert hosts.a.connections()
    hosts.set_link(hosts.b, 'up')


def _begin(client, servers):
    """Load, of which each server has got its part."""
    ask(client, 'begin')
    for server in servers:
        waiting.until(lambda: len(_seen(server)) >= 20)


def _check_calls(result, servers):
    assert set(result['pids']) == {server.pid for server in servers}
    assert {error for error, _ in result['failed']} <= {
        'ServerGone', 'MessagingTimeout'}
    assert len(result['failed']) <= 5
    for _, seconds in result['failed']:
        assert seconds < _CUT_OFF_WITHIN


def _casts(servers, result):
    """How many casts were run how often, once all were."""
    waiting.until(lambda: len(set(sum(map(_seen, servers), [])))
                  >= result['casts'], 60)
    ran = collections.Counter(sum(map(_seen, servers), []))
    assert sorted(ran) == list(range(result['casts']))
    return collections.Counter(ran.values())


def test_cut_off_and_joined_again_nothing_is_lost_or_repeated(v4):
    """What B may have got waits for it, as its record does not expire."""
    v4.b.receiver(), v4.c.receiver()
    servers = [v4.b.server('b'), v4.c.server('c')]
    client = v4.a.client()
    assert len(_pids(client)) == 2
    _begin(client, servers)
    _cut_off(v4, client, 10)
    waiting.until(lambda: servers[0].pid in _pids(client), 30)
    result = ask(client, 'end')
    ran = _casts(servers, result)
    print(f'{result["casts"]} casts ran {dict(ran)} times; of '
          f'{result["calls"]} calls failed {result["failed"]}')
    _check_calls(result, servers)
    assert ran.keys() == {1}
    assert 'dropped' not in ask(client, 'counters')


def test_cut_off_from_the_registry_too_its_messages_go_to_another(v4):
    """README: they may run twice when it comes back afterwards."""
    query = {'zmq_target_expire': 4, 'zmq_target_update': 1}
    v4.b.receiver(), v4.c.receiver()
    servers = [v4.b.server('b', **query), v4.c.server('c', **query)]
    client = v4.a.client(**query)
    assert len(_pids(client)) == 2
    _begin(client, servers)
    v4.b.lose_registry()
    _cut_off(v4, client, 16)
    waiting.until(lambda: sum(
        1 for _ in range(5) if 'result' in ask(
            client, 'call', method='pid', args={})) == 5, 30)
    v4.b.find_registry()
    waiting.until(lambda: servers[0].pid in _pids(client), 60)
    result = ask(client, 'end')
    ran = _casts(servers, result)
    counters = ask(client, 'counters')
    print(f'{result["casts"]} casts ran {dict(ran)} times, '
          f'{counters}; of '
          f'{result["calls"]} calls failed {result["failed"]}')
    _check_calls(result, servers)
    assert ran.get(2, 0) <= counters.get('resent', 0)
    assert max(ran) <= 2


def test_a_receiver_killed_on_another_host_comes_back(v4):
    receiver = v4.b.receiver()
    server = v4.b.server('b')
    client = v4.a.client()
    assert _pids(client, 3) == {server.pid}
    ask(client, 'begin')
    receiver.restart()
    waiting.until(lambda: _pids(client, 1) == {server.pid}, 20)
    result = ask(client, 'end')
    assert _casts([server], result).keys() == {1}
    assert all(seconds < _CUT_OFF_WITHIN for _, seconds in result['failed'])
