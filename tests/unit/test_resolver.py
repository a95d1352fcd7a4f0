# SPDX-License-Identifier: Apache-2.0
"""Names are resolved once at a time, aside, and remembered."""

import threading
import time

import pytest

from tests.support import waiting
from zmq_threaded.net import resolver


class Dns:
    """A resolver of which a test decides when and what it answers."""

    def __init__(self):
        self.answers = {}
        self.asked = []
        self.hanging = threading.Event()

    def __call__(self, name):
        self.asked.append(name)
        if name.startswith('slow'):
            self.hanging.wait(20)
        answer = self.answers.get(name, [f'10.0.0.{len(name)}'])
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def dns():
    dns = Dns()
    yield dns
    dns.hanging.set()
    waiting.until(lambda: not _threads())


def _threads():
    return [each for each in threading.enumerate()
            if each.name == 'zmq-resolver']


def _soon():
    return time.monotonic() + 5


@pytest.fixture
def clock(monkeypatch):
    """Seconds by which the time has been put forward, as .ahead."""
    class Clock:
        ahead = 0.0
    real = time.monotonic
    monkeypatch.setattr(resolver.time, 'monotonic',
                        lambda: real() + Clock.ahead)
    return Clock


def test_addresses_come_in_order_and_once(dns):
    dns.answers['node'] = ['fd00::9', '10.9.9.1', 'fd00::9']
    assert resolver.Resolver(dns).wait('node', _soon()) == (
        'fd00::9',
        '10.9.9.1',
    )


def test_a_name_is_remembered_and_its_thread_ends(dns):
    resolved = resolver.Resolver(dns)
    assert resolved.look('node') is None
    resolved.wait('node', _soon())
    assert resolved.look('node') == ('10.0.0.4',)
    waiting.until(lambda: not _threads())
    assert dns.asked == ['node']


def test_who_asks_is_told_and_need_not_wait(dns):
    asked, told = resolver.Resolver(dns), threading.Event()
    began = time.monotonic()
    assert asked.look('slow', told.set) is None
    assert time.monotonic() - began < 1
    assert not told.is_set()
    dns.hanging.set()
    assert told.wait(5)
    assert asked.look('slow') == ('10.0.0.4',)


def test_a_name_that_hangs_is_asked_for_once_and_holds_up_no_other(dns):
    resolved = resolver.Resolver(dns)
    for _ in range(50):
        resolved.look('slow')
    began = time.monotonic()
    assert resolved.wait('node', _soon())
    assert time.monotonic() - began < 1
    assert dns.asked.count('slow') == 1


def test_nobody_waits_longer_than_a_moment_for_a_name_that_hangs(dns):
    resolved = resolver.Resolver(dns)
    began = time.monotonic()
    with pytest.raises(
        resolver.Unresolved, match='slow has not been resolved'
    ):
        resolved.wait('slow', time.monotonic() + 60)
    assert time.monotonic() - began < resolver.PATIENCE + 1
    # ... and the next one not at all
    began = time.monotonic()
    with pytest.raises(resolver.Unresolved):
        resolved.wait('slow', time.monotonic() + 60)
    assert time.monotonic() - began < 0.5


def test_a_deadline_is_kept(dns):
    began = time.monotonic()
    with pytest.raises(resolver.Unresolved):
        resolver.Resolver(dns).wait('slow', began + 0.1)
    assert time.monotonic() - began < 0.8


def test_threads_are_bounded_and_known_hangers_leave_some_free(dns, clock):
    resolved = resolver.Resolver(dns)
    for number in range(50):
        resolved.look(f'slow-{number}')
    waiting.until(lambda: len(dns.asked) == resolver._THREADS)
    assert len(_threads()) == resolver._THREADS
    clock.ahead = 2 * resolver.PATIENCE
    dns.hanging.set()
    waiting.until(lambda: len(dns.asked) == 50)
    waiting.until(lambda: not _threads())
    # When all of them hang once more
    dns.hanging.clear()
    clock.ahead += resolver._FRESH
    for number in range(50):
        resolved.look(f'slow-{number}')
    # Then others are resolved all the same
    assert resolved.wait('node', clock.ahead + _soon())


@pytest.mark.parametrize('error', [
    OSError(-2, 'Name or service not known'), UnicodeError('label too long'),
    ValueError('embedded null byte'), RuntimeError('whatever')])
def test_a_failure_says_why_and_is_remembered_for_a_while(dns, clock, error):
    dns.answers['node'] = error
    resolved = resolver.Resolver(dns)
    for _ in range(3):
        with pytest.raises(
            resolver.Unresolved,
            match='node cannot be resolved: (Name|label|emb|what)',
        ):
            resolved.wait('node', _soon())
    assert dns.asked == ['node']
    del dns.answers['node']
    clock.ahead = resolver._FAILURE + 1
    assert resolved.wait('node', clock.ahead + _soon()) == ('10.0.0.4',)


def test_a_name_without_addresses_leads_nowhere(dns):
    dns.answers['node'] = []
    with pytest.raises(resolver.Unresolved, match='no address'):
        resolver.Resolver(dns).wait('node', _soon())


def test_the_real_one_knows_localhost_and_what_cannot_be():
    resolved = resolver.Resolver()
    assert '127.0.0.1' in resolved.wait('localhost', _soon())
    for name in ('a' * 70 + '.invalid', 'a..b', 'a\0b', '\udcff'):
        with pytest.raises(resolver.Unresolved):
            resolved.wait(name, _soon())


def test_old_addresses_serve_while_new_ones_are_asked_for(dns, clock):
    dns.answers['slow-node'] = ['10.0.0.1']
    dns.hanging.set()
    resolved = resolver.Resolver(dns)
    assert resolved.wait('slow-node', _soon()) == ('10.0.0.1',)
    clock.ahead = resolver._FRESH + 1
    dns.hanging.clear()
    dns.answers['slow-node'] = ['10.0.0.2']
    assert resolved.look('slow-node') == ('10.0.0.1',)
    dns.hanging.set()
    waiting.until(lambda: resolved.look('slow-node') == ('10.0.0.2',))


def test_old_addresses_serve_while_nobody_answers(dns, clock):
    dns.answers['node'] = ['10.0.0.1']
    resolved = resolver.Resolver(dns)
    resolved.wait('node', _soon())
    dns.answers['node'] = OSError(-3, 'Temporary failure')
    for _ in range(5):
        clock.ahead += resolver._FRESH + 1
        assert resolved.look('node') == ('10.0.0.1',)
    clock.ahead += resolver._OLD
    assert resolved.wait('node', clock.ahead + _soon()) == ('10.0.0.1',)


def test_addresses_that_lead_nowhere_are_asked_for_at_once(dns, clock):
    dns.answers['node'] = ['10.0.0.1']
    resolved = resolver.Resolver(dns)
    resolved.wait('node', _soon())
    dns.answers['node'] = ['10.0.0.2']
    resolved.doubt('node')      # has just been asked for
    assert resolved.look('node') == ('10.0.0.1',)
    clock.ahead = 2
    resolved.doubt('node')
    assert resolved.wait('node', clock.ahead + _soon()) == ('10.0.0.2',)


def test_what_is_remembered_is_bounded(dns, monkeypatch):
    monkeypatch.setattr(resolver, '_KEPT', 100)
    monkeypatch.setattr(resolver, '_QUEUED', 50)
    resolved = resolver.Resolver(dns)
    for number in range(500):
        try:
            resolved.look(f'slow-{number}')
        except resolver.Unresolved as error:
            assert 'too many' in str(error)
        assert len(resolved._names) <= 100
        assert len(resolved._queue) <= 50


def test_without_a_thread_a_name_fails(dns, monkeypatch):
    class NoThread:
        def __init__(self, **kwargs):
            pass

        def start(self):
            raise RuntimeError("can't start new thread")
    with monkeypatch.context() as patch:
        patch.setattr(resolver.threading, 'Thread', NoThread)
        resolved = resolver.Resolver(dns)
        with pytest.raises(resolver.Unresolved, match='start new thread'):
            resolved.look('node')
    assert not dns.asked


def test_many_threads_ask_for_the_same_name_once(dns, eager_switching):
    asked, found = resolver.Resolver(dns), []
    askers = [threading.Thread(target=lambda: found.append(
        asked.wait('node', _soon()))) for _ in range(50)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert found == [('10.0.0.4',)] * 50
    assert dns.asked == ['node']


def test_a_forked_child_has_places_of_its_own():
    from tests.support import forks
    from zmq_threaded.net import addresses
    before = addresses.of_process()

    def resolve():
        mine = addresses.of_process()
        return mine is not before and [
            host for host, _ in mine.wait('tcp://localhost:1', _soon())]
    with before._resolver._lock:       # which the child would inherit locked
        found = forks.Forked(resolve).result()
    assert '127.0.0.1' in found
