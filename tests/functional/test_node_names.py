# SPDX-License-Identifier: Apache-2.0
"""Names of nodes between hosts: several addresses, no DNS, another machine."""

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

DIRECT = {'rpc_zmq_topology': 'direct', 'rpc_zmq_transport': 'tcp',
          'rpc_zmq_host': 'node'}
V6 = 'fd98::{}'


@pytest.fixture
def hosts(no_leaks, ipc_dir):
    with namespaces.Hosts(ipc_dir, 'abc') as hosts:
        for number, host in enumerate((hosts.a, hosts.b, hosts.c), 1):
            host.run('ip', '-6', 'addr', 'add', f'{V6.format(number)}/64',
                     'dev', 'eth0', 'nodad')
        yield hosts


@pytest.fixture
def names(hosts, tmp_path):
    """Sets what a host finds in its /etc/hosts."""
    def set_names(host, *lines):
        path = tmp_path / f'hosts-{host.name}'
        is_new = not path.exists()
        path.write_text('\n'.join(('127.0.0.1 localhost', *lines, '')))
        if is_new:
            host.run('mount', '--bind', str(path), '/etc/hosts')
    return set_names


def _check(client, server):
    """Calls, casts and fanouts arrive soon."""
    began = time.monotonic()
    assert ask(client, 'call', method='pid', args={},
               timeout=60)['result'] == server.pid
    ask(client, 'cast', method='note', args={'value': 'cast'})
    ask(client, 'fanout', method='note', args={'value': 'fanout'})
    waiting.until(lambda: sorted(server.ask('seen')) == ['cast', 'fanout'],
                  20)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize('bind', ['*', '10.99.0.2', V6.format(2)])
@pytest.mark.parametrize('order', [
    ['10.99.0.2', V6.format(2)], [V6.format(2), '10.99.0.2'],
    [V6.format(77), '10.99.0.2', V6.format(2)],
    ['10.99.0.77', V6.format(2), '10.99.0.2'],
    ['fd55::1', V6.format(2), '10.99.0.2']], ids='-'.join)
def test_any_address_of_a_name_is_found(hosts, names, order, bind):
    """Also those after one of no host, and one without a route."""
    names(hosts.a, *(f'{address} node' for address in order))
    server = hosts.b.server('b', rpc_zmq_bind_address=bind, **DIRECT)
    _check(hosts.a.client(), server)


def test_a_node_that_moved_to_another_address_is_found(hosts, names):
    """Its name leads elsewhere; its receiver and its services are new."""
    names(hosts.a, '10.99.0.2 node')
    receiver = hosts.b.receiver(host='node')
    server = hosts.b.server('b', rpc_zmq_host='node')
    client = hosts.a.client()
    _check(client, server)
    server.kill()
    receiver.kill()
    names(hosts.a, '10.99.0.3 node')
    ask(client, 'cast', method='note', args={'value': 'later'})
    hosts.c.receiver(host='node')
    moved = hosts.c.server('b', rpc_zmq_host='node')
    assert ask(client, 'call', method='pid', args={},
               timeout=30)['result'] == moved.pid
    waiting.until(lambda: 'later' in moved.ask('seen'), 40)


def test_a_receiver_that_moved_gets_what_waits_for_its_service(hosts, names):
    """The link of the outbox stays, and finds the new address."""
    names(hosts.a, '10.99.0.2 node')
    receiver = hosts.b.receiver(host='node')
    server = hosts.b.server('b', rpc_zmq_host='node')
    client = hosts.a.client()
    _check(client, server)
    receiver.terminate()
    # The host gets another address
    hosts.b.run('ip', 'addr', 'del', '10.99.0.2/24', 'dev', 'eth0')
    hosts.b.run('ip', 'addr', 'add', '10.99.0.22/24', 'dev', 'eth0')
    names(hosts.a, '10.99.0.22 node')
    ask(client, 'fanout', method='note', args={'value': 'moved'})
    receiver.start()
    waiting.until(lambda: 'moved' in server.ask('seen'), 30)
    assert ask(client, 'call', method='pid', args={},
               timeout=30)['result'] == server.pid


def test_without_dns_all_others_go_on(hosts, tmp_path):
    """No server answers for one name; casts and calls go to the others."""
    resolv = tmp_path / 'resolv.conf'
    resolv.write_text('nameserver 10.99.0.3\n')
    # Where nothing is refused either
    hosts.set_link(hosts.c, 'down')
    hosts.a.run('mount', '--bind', str(resolv), '/etc/resolv.conf')
    good = hosts.b.server('good', **{**DIRECT, 'rpc_zmq_host': '10.99.0.2'})
    hosts.b.server('bad', **{**DIRECT, 'rpc_zmq_host': 'node.example.org'})
    client = hosts.a.client()
    slow = 0
    for number in range(30):
        outcome = ask(client, 'call', method='pid', args={})
        assert outcome['result'] == good.pid
        slow += outcome['seconds'] > 0.5
        ask(client, 'cast', method='note', args={'value': number})
    assert slow <= 10
    waiting.until(lambda: sorted(good.ask('seen')) == list(range(30)), 20)
