# SPDX-License-Identifier: Apache-2.0
"""Names are resolved once at a time, aside, and remembered."""

import threading
import time

import pytest

from tests.support import waiting
from zmq_threaded import names


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
    monkeypatch.setattr(names.time, 'monotonic',
                        lambda: real() + Clock.ahead)
    return Clock


def test_addresses_come_in_order_and_once(dns):
    dns.answers['node'] = ['fd00::9', '10.9.9.1', 'fd00::9']
    assert names.Names(dns).wait('node', _soon()) == ('fd00::9', '10.9.9.1')


def test_a_name_is_remembered_and_its_thread_ends(dns):
    resolver = names.Names(dns)
    assert resolver.look('node') is None
    resolver.wait('node', _soon())
    assert resolver.look('node') == ('10.0.0.4',)
    waiting.until(lambda: not _threads())
    assert dns.asked == ['node']


def test_who_asks_is_told_and_need_not_wait(dns):
    resolver, told = names.Names(dns), threading.Event()
    began = time.monotonic()
    assert resolver.look('slow', told.set) is None
    assert time.monotonic() - began < 1
    assert not told.is_set()
    dns.hanging.set()
    assert told.wait(5)
    assert resolver.look('slow') == ('10.0.0.4',)


def test_a_name_that_hangs_is_asked_for_once_and_holds_up_no_other(dns):
    resolver = names.Names(dns)
    for _ in range(50):
        resolver.look('slow')
    began = time.monotonic()
    assert resolver.wait('node', _soon())
    assert time.monotonic() - began < 1
    assert dns.asked.count('slow') == 1


def test_nobody_waits_longer_than_a_moment_for_a_name_that_hangs(dns):
    resolver = names.Names(dns)
    began = time.monotonic()
    with pytest.raises(names.Unresolved, match='slow has not been resolved'):
        resolver.wait('slow', time.monotonic() + 60)
    assert time.monotonic() - began < names.PATIENCE + 1
    # ... and the next one not at all
    began = time.monotonic()
    with pytest.raises(names.Unresolved):
        resolver.wait('slow', time.monotonic() + 60)
    assert time.monotonic() - began < 0.5


def test_a_deadline_is_kept(dns):
    began = time.monotonic()
    with pytest.raises(names.Unresolved):
        names.Names(dns).wait('slow', began + 0.1)
    assert time.monotonic() - began < 0.8


def test_threads_are_bounded_and_known_hangers_leave_some_free(dns, clock):
    resolver = names.Names(dns)
    for number in range(50):
        resolver.look(f'slow-{number}')
    waiting.until(lambda: len(dns.asked) == names._THREADS)
    assert len(_threads()) == names._THREADS
    clock.ahead = 2 * names.PATIENCE
    dns.hanging.set()
    waiting.until(lambda: len(dns.asked) == 50)
    waiting.until(lambda: not _threads())
    # When all of them hang once more
    dns.hanging.clear()
    clock.ahead += names._FRESH
    for number in range(50):
        resolver.look(f'slow-{number}')
    # Then others are resolved all the same
    assert resolver.wait('node', clock.ahead + _soon())


@pytest.mark.parametrize('error', [
    OSError(-2, 'Name or service not known'), UnicodeError('label too long'),
    ValueError('embedded null byte'), RuntimeError('whatever')])
def test_a_failure_says_why_and_is_remembered_for_a_while(dns, clock, error):
    dns.answers['node'] = error
    resolver = names.Names(dns)
    for _ in range(3):
        with pytest.raises(names.Unresolved, match='node cannot be resolved: '
                                                   '(Name|label|emb|what)'):
            resolver.wait('node', _soon())
    assert dns.asked == ['node']
    del dns.answers['node']
    clock.ahead = names._FAILURE + 1
    assert resolver.wait('node', clock.ahead + _soon()) == ('10.0.0.4',)


def test_a_name_without_addresses_leads_nowhere(dns):
    dns.answers['node'] = []
    with pytest.raises(names.Unresolved, match='no address'):
        names.Names(dns).wait('node', _soon())


def test_the_real_one_knows_localhost_and_what_cannot_be():
    resolver = names.Names()
    assert '127.0.0.1' in resolver.wait('localhost', _soon())
    for name in ('a' * 70 + '.invalid', 'a..b', 'a\0b', '\udcff'):
        with pytest.raises(names.Unresolved):
            resolver.wait(name, _soon())


def test_old_addresses_serve_while_new_ones_are_asked_for(dns, clock):
    dns.answers['slow-node'] = ['10.0.0.1']
    dns.hanging.set()
    resolver = names.Names(dns)
    assert resolver.wait('slow-node', _soon()) == ('10.0.0.1',)
    clock.ahead = names._FRESH + 1
    dns.hanging.clear()
    dns.answers['slow-node'] = ['10.0.0.2']
    assert resolver.look('slow-node') == ('10.0.0.1',)
    dns.hanging.set()
    waiting.until(lambda: resolver.look('slow-node') == ('10.0.0.2',))


def test_old_addresses_serve_while_nobody_answers(dns, clock):
    dns.answers['node'] = ['10.0.0.1']
    resolver = names.Names(dns)
    resolver.wait('node', _soon())
    dns.answers['node'] = OSError(-3, 'Temporary failure')
    for _ in range(5):
        clock.ahead += names._FRESH + 1
        assert resolver.look('node') == ('10.0.0.1',)
    clock.ahead += names._OLD
    assert resolver.wait('node', clock.ahead + _soon()) == ('10.0.0.1',)


def test_addresses_that_lead_nowhere_are_asked_for_at_once(dns, clock):
    dns.answers['node'] = ['10.0.0.1']
    resolver = names.Names(dns)
    resolver.wait('node', _soon())
    dns.answers['node'] = ['10.0.0.2']
    resolver.doubt('node')      # has just been asked for
    assert resolver.look('node') == ('10.0.0.1',)
    clock.ahead = 2
    resolver.doubt('node')
    assert resolver.wait('node', clock.ahead + _soon()) == ('10.0.0.2',)


def test_what_is_remembered_is_bounded(dns, monkeypatch):
    monkeypatch.setattr(names, '_KEPT', 100)
    monkeypatch.setattr(names, '_QUEUED', 50)
    resolver = names.Names(dns)
    for number in range(500):
        try:
            resolver.look(f'slow-{number}')
        except names.Unresolved as error:
            assert 'too many' in str(error)
        assert len(resolver._names) <= 100
        assert len(resolver._queue) <= 50


def test_without_a_thread_a_name_fails(dns, monkeypatch):
    class NoThread:
        def __init__(self, **kwargs):
            pass

        def start(self):
            raise RuntimeError("can't start new thread")
    with monkeypatch.context() as patch:
        patch.setattr(names.threading, 'Thread', NoThread)
        resolver = names.Names(dns)
        with pytest.raises(names.Unresolved, match='start new thread'):
            resolver.look('node')
    assert not dns.asked


def test_many_threads_ask_for_the_same_name_once(dns, eager_switching):
    resolver, found = names.Names(dns), []
    askers = [threading.Thread(target=lambda: found.append(
        resolver.wait('node', _soon()))) for _ in range(50)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert found == [('10.0.0.4',)] * 50
    assert dns.asked == ['node']


def test_a_forked_child_has_places_of_its_own():
    from tests.support import forks
    from zmq_threaded import places
    before = places.of_process()

    def resolve():
        mine = places.of_process()
        return mine is not before and [
            host for host, _ in mine.wait('tcp://localhost:1', _soon())]
    with before._names._lock:       # which the child would inherit locked
        found = forks.Forked(resolve).result()
    assert '127.0.0.1' in found
