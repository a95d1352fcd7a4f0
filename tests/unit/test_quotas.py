# SPDX-License-Identifier: Apache-2.0
"""Questions that cost more than they take to ask are limited for each peer."""

import time

from zmq_threaded import quotas


def test_each_peer_has_its_own_share(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    quota = quotas.Quota(3)
    assert [quota.allows(b'one') for _ in range(5)] == 3 * [True] + 2 * [False]
    assert quota.allows(b'two')
    now[0] += 1
    assert quota.allows(b'one')


def test_peers_are_bounded(monkeypatch):
    monkeypatch.setattr(quotas, '_MOST_PEERS', 2)
    quota = quotas.Quota(3)
    assert [quota.allows(peer) for peer in (1, 2, 3, 1)] == [
        True, True, False, True]
