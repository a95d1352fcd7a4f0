# SPDX-License-Identifier: Apache-2.0
"""Keys that are taken away, and keys that are exchanged."""

import os
import shutil
import threading
import time

import oslo_messaging
import pytest

from tests.functional import test_encryption
from tests.support import rpc
from tests.support import waiting
from zmq_threaded import errors
from zmq_threaded.security import keys

ring = test_encryption.ring
elsewhere = test_encryption.elsewhere
make = test_encryption.make
required = test_encryption.required
TOPIC = test_encryption.TOPIC


def _counters(client_or_server):
    return rpc.driver(client_or_server.transport).counters()


# Revocation


def test_living_peer_is_ignored_when_its_key_is_taken_away(node, ring,
                                                           required):
    transport = node.transport(**ring.query('b'))
    client = node.client(transport)
    client.call({}, 'note', value='before')
    client.cast({}, 'note', value='before')
    waiting.until(lambda: required.seen == ['before'] * 2)
    # For its own process the server stays trusted.
    parts = rpc.driver(transport)._parts()
    parts._access.is_trusted = lambda key: True
    ring.revoke('b')
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            client.prepare(timeout=1).call({}, 'note', value='in time')
        except oslo_messaging.MessagingTimeout:
            break
    else:
        pytest.fail('not ignored within 20 s')
    client.cast({}, 'note', value='after')
    test_encryption._fails(client)
    assert 'after' not in required.seen and 'never' not in required.seen


def test_peer_that_is_trusted_goes_on_when_another_is_revoked(node, ring,
                                                              required):
    ring.make('c')
    client = node.client(node.transport(**ring.query('b')))
    assert client.call({}, 'echo', value=1) == 1
    ring.revoke('c')
    end = time.monotonic() + 4
    while time.monotonic() < end:
        assert client.call({}, 'echo', value=1) == 1
        client.cast({}, 'note', value=1)


def test_server_whose_key_is_taken_away_counts_as_gone(node, ring, required):
    transport = node.transport(**ring.query('b'))
    client = node.client(transport)
    assert client.call({}, 'echo', value=1) == 1
    parts = rpc.driver(transport)._parts()
    ring.revoke('a')
    waiting.until(lambda: not parts.registry.cache.listed(TOPIC), 20)
    assert 'not among the trusted keys' in test_encryption._fails(client)


def test_call_to_a_server_whose_key_is_taken_away_ends(node, ring, required):
    client = node.client(node.transport(**ring.query('b')), timeout=60)
    threading.Timer(0.5, ring.revoke, ['a']).start()
    began = time.monotonic()
    with pytest.raises(errors.ServerGone) as caught:
        client.call({}, 'wait', value=1)
    assert time.monotonic() - began < 25    # the endpoint waits for 30 s
    assert 'is not among the trusted keys' in str(caught.value)
    assert keys.fingerprint(ring.pair('a').public) in str(caught.value)


def test_call_that_is_ignored_says_that_the_own_key_is_refused(
        node, ring, required, tmp_path):
    # Given a client whose key its server does not trust any more, while
    # nothing has changed for the client
    own = tmp_path / 'trusted by the client'
    shutil.copytree(ring.trusted, own)
    client = node.client(node.transport(
        **{**ring.query('b'), 'rpc_zmq_trusted_keys': str(own)}))
    assert client.call({}, 'echo', value=1) == 1
    ring.revoke('b')
    # When the client goes on with calls over its old connection
    text = waiting.until(lambda: _why_gone(client), 20)
    # Then the first one that is ignored says why
    assert 'it may have been executed. The cause: ' in text
    assert 'it refuses the key of this process' in text
    assert keys.fingerprint(ring.pair('b').public) in text


def test_monitored_call_that_is_cut_says_that_the_own_key_is_refused(
        node, ring, elsewhere, tmp_path):
    test_encryption.Direct(node, ring.query('a'))
    own = tmp_path / 'trusted by the client'
    shutil.copytree(ring.trusted, own)
    client = node.client(node.transport(
        **{**ring.query('b'), 'rpc_zmq_trusted_keys': str(own)}),
        timeout=60, call_monitor_timeout=4)
    threading.Timer(0.5, ring.revoke, ['b']).start()
    with pytest.raises(errors.ServerGone) as caught:
        client.call({}, 'wait', value=1)
    assert 'it refuses the key of this process' in str(caught.value)
    assert keys.fingerprint(ring.pair('b').public) in str(caught.value)


def _why_gone(client):
    try:
        client.call({}, 'echo', value=1)
    except errors.ServerGone as error:
        return str(error)


def test_casts_for_a_revoked_server_are_given_to_another(node, ring,
                                                         elsewhere):
    ring.make('c')
    revoked = test_encryption.Direct(node, ring.query('a'))
    client = node.client(node.transport(**ring.query('b')))
    # All its workers are busy, so that nothing more is acknowledged.
    for number in range(8 + 20):
        client.cast({}, 'wait', value=number)
    waiting.until(lambda: len(revoked.seen) == 8)
    another = test_encryption.Direct(node, ring.query('c'))
    another.server.endpoint.release.set()
    ring.revoke('a')
    waiting.until(lambda: len(another.seen) == 20, 20)
    assert sorted(another.seen) == list(range(8, 28))
    assert _counters_of(client)['resent_after_revocation'] == 20


def _counters_of(client):
    return rpc.driver(client.transport).counters()


def test_a_look_that_fails_is_followed_by_others(node, ring, required):
    transport = required.transport
    access = rpc.driver(transport)._parts()._access
    refresh, failures = access.refresh, []

    def fails_once():
        if not failures:
            failures.append(1)
            raise RuntimeError('of no kind that anybody expects')
        return refresh()
    access.refresh = fails_once
    before = access.version
    waiting.until(lambda: failures, 20)
    ring.revoke('b')
    waiting.until(lambda: access.version != before, 20)


# Exchange


def _exchange(ring, old, new):
    """The files of one pair get the content of another one."""
    for suffix in keys.SECRET_SUFFIX, keys.PUBLIC_SUFFIX:
        path = ring._pairs / f'{new}{suffix}'
        shutil.copy2(path, ring._pairs / 'incoming')
        os.rename(ring._pairs / 'incoming', ring._pairs / f'{old}{suffix}')


def test_client_uses_its_new_key_without_a_restart(node, ring, required):
    transport = node.transport(**ring.query('b'))
    client = node.client(transport)
    _ring_again(ring, client)
    ring.make('b2')
    _exchange(ring, 'b', 'b2')
    access = rpc.driver(transport)._parts()._access
    waiting.until(lambda: access.pair.public == ring.pair('b2').public, 20)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        _ring_again(ring, client)
    ring.revoke('b')
    end = time.monotonic() + 4
    while time.monotonic() < end:
        _ring_again(ring, client)
    waiting.until(lambda: not _counters_of(client)['unacknowledged'])
    assert 'resent_after_revocation' not in _counters_of(client)


def _ring_again(ring, client):
    assert client.call({}, 'echo', value=1) == 1
    client.cast({}, 'note', value=1)


def test_receiver_takes_its_new_key_at_a_restart(node, ring, elsewhere):
    behind = test_encryption.Behind(node, ring.query('a'))
    client = node.client(node.transport(**ring.query('b')), timeout=60)
    _ring_again(ring, client)
    ring.make('a2')
    _exchange(ring, 'a', 'a2')
    assert client.call({}, 'echo', value=1) == 1
    behind.receiver.restart()
    client.cast({}, 'note', value='late')
    began = time.monotonic()
    assert client.call({}, 'echo', value=1) == 1
    assert time.monotonic() - began < 20
    waiting.until(lambda: 'late' in behind.seen)
    service, = rpc.driver(behind.transport)._parts()._services
    assert service.instance.key == ring.pair('a2').public


def test_casts_on_their_way_survive_the_new_key_of_a_receiver(node, ring,
                                                              elsewhere):
    behind = test_encryption.Behind(node, ring.query('a'))
    client = node.client(node.transport(**ring.query('b')))
    for number in range(8 + 20):
        client.cast({}, 'wait', value=number)
    waiting.until(lambda: len(behind.seen) == 8)
    ring.make('a2')
    _exchange(ring, 'a', 'a2')
    behind.receiver.restart()
    time.sleep(1)
    behind.server.endpoint.release.set()
    waiting.until(lambda: not _counters_of(client)['unacknowledged'], 20)
    assert sorted(behind.seen) == list(range(28))


def test_direct_service_takes_its_new_key_without_a_restart(node, ring,
                                                            elsewhere):
    with_update = {'zmq_target_update': 1, 'zmq_target_expire': 6}
    highest = {'rpc_zmq_max_port': 65535}
    server = test_encryption.Direct(
        node, {**ring.query('a'), **with_update}, **highest)
    client = node.client(node.transport(**ring.query('b'), **with_update))
    _ring_again(ring, client)
    ring.make('a2')
    _exchange(ring, 'a', 'a2')
    parts = rpc.driver(server.transport)._parts()
    calls = 0
    end = time.monotonic() + 20
    while time.monotonic() < end and not (
            calls and len(parts._services) == 1
            and parts._services[0].instance.id != server.instance.id):
        _ring_again(ring, client)
        calls += 1
    service, = parts._services
    assert service.instance.key == ring.pair('a2').public
    assert service.instance.id != server.instance.id
    ring.revoke('a')
    end = time.monotonic() + 3
    while time.monotonic() < end:
        _ring_again(ring, client)
        calls += 1
    waiting.until(lambda: len(server.seen) == calls + 1)
    assert not _counters_of(client).get('resent')
