# SPDX-License-Identifier: Apache-2.0
"""Listeners are killed all the time, and every pool handles everything.

ZMQ_CHAOS_NOTIFICATIONS sets how many each of the four notifiers sends; the
long form is 100000.
"""

import collections
import itertools
import os
import random
import threading
import time

import oslo_messaging
import pytest
from oslo_config import cfg

from tests.support import waiting

_EACH = int(os.environ.get('ZMQ_CHAOS_NOTIFICATIONS', 2000))
_NOTIFIERS, _POOLS, _MEMBERS = 4, ('a', 'b'), 3
_KILL_EVERY = 1.0


class Pools:
    """The listeners; each life of one has a file of its own."""

    def __init__(self, node, folder):
        self._node, self._folder = node, folder
        self._lives = itertools.count()
        self.kills = 0
        self._members = {(pool, place): self._start(pool) for pool in _POOLS
                         for place in range(_MEMBERS)}

    def _start(self, pool):
        path = os.path.join(self._folder, f'{pool}-{next(self._lives)}')
        return self._node.listener_process('notes', pool, path)

    def kill_one(self, rng):
        key = rng.choice(sorted(self._members))
        self._members[key].kill()
        self._members[key] = self._start(key[0])
        self.kills += 1

    def handled(self, pool):
        """How often each notification was handled in a pool."""
        counts = collections.Counter()
        for name in os.listdir(self._folder):
            if name.startswith(f'{pool}-'):
                with open(os.path.join(self._folder, name)) as lines:
                    counts.update(line.strip() for line in lines)
        return counts


@pytest.mark.timeout(3600)
def test_no_pool_misses_a_notification_while_listeners_are_killed(
        node, tmp_path):
    pools = Pools(node, str(tmp_path))
    rng = random.Random(3)
    transports = [oslo_messaging.get_notification_transport(
        cfg.CONF, node.url(rpc_cast_timeout=120, rpc_message_ttl=600))
        for _ in range(_NOTIFIERS)]
    senders = [threading.Thread(target=_send, args=(number, transport))
               for number, transport in enumerate(transports)]
    started = time.monotonic()
    for sender in senders:
        sender.start()
    while any(sender.is_alive() for sender in senders) or any(
            _outbox(transport).pending() for transport in transports):
        time.sleep(_KILL_EVERY)
        pools.kill_one(rng)
    seconds = time.monotonic() - started
    counters = collections.Counter()
    for transport in transports:
        counters.update(transport._driver.counters())
        transport.cleanup()
    _check(pools, counters, seconds)


def _send(number, transport):
    notifier = oslo_messaging.Notifier(transport, 'publisher', retry=-1,
                                       driver='messagingv2', topics=['notes'])
    for sequence in range(_EACH):
        notifier.info({}, 'event', f'{number}-{sequence}')


def _outbox(transport):
    return transport._driver._parts().outbox


def _check(pools, counters, seconds):
    expected = {f'{number}-{sequence}' for number in range(_NOTIFIERS)
                for sequence in range(_EACH)}
    print(f'{len(expected)} notifications to {len(_POOLS)} pools in '
          f'{seconds:.0f} s, {pools.kills} listeners killed, senders: '
          f'{dict(counters)}')
    for pool in _POOLS:
        handled = waiting.until(lambda: pools.handled(pool))
        twice = sum(handled.values()) - len(handled)
        print(f'pool {pool}: {len(handled)} handled, {twice} more than once')
        assert handled.keys() == expected
        # Handled and not yet acknowledged when their listener was killed: at
        # most what its workers, its replies and the wire held.
        assert twice <= pools.kills * 1000
    assert not counters['dropped']
