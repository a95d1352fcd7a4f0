# SPDX-License-Identifier: Apache-2.0
"""Services that follow each other: no failure leaves an old key for ever."""

import threading

import pytest

from tests.support import waiting
from zmq_threaded import threads
from zmq_threaded.net import binding
from zmq_threaded.net import descriptors
from zmq_threaded.security import keys
from zmq_threaded.service import succession as successions

OLD, NEW = keys.Pair(b'old', b'secret'), keys.Pair(b'new', b'secret')


class Service:
    """Stands for a service, of which it has the interface."""

    def __init__(self, pair, failures):
        self.pair, self.work, self.instance = pair, None, 'a service'
        self._failures = failures
        self.is_registered = self.is_closed = False

    def start(self, on_incoming, workers, may_share, in_place_of=None):
        if self._failures:
            raise self._failures.pop()
        self.is_registered = True
        if in_place_of is not None:
            in_place_of.is_registered = False

    def stop(self):
        self.is_registered = False

    def cleanup(self):
        self.stop()
        self.is_closed = True

    def taken(self):
        return 0

    def unanswered(self):
        return 0


class Made:
    """A succession, and all services that it made."""

    def __init__(self):
        self.pair, self.services, self.forgotten = OLD, [], []
        self.make_failures, self.start_failures = [], []
        self.succession = successions.Succession(
            self._make, lambda service: None, self.forgotten.append, 0)

    def _make(self):
        if self.make_failures:
            raise self.make_failures.pop()
        self.services.append(Service(self.pair, self.start_failures))
        return self.services[-1]

    def start(self):
        self.succession.start(lambda messages: None)

    def follow_until(self, is_done):
        def is_done_now():
            self.succession.follow(self.pair)
            return is_done()
        waiting.until(is_done_now, 5)

    def has_followed(self):
        living = [each for each in self.services if not each.is_closed]
        return ([each.pair for each in living] == [self.pair]
                and living[0].is_registered
                and not self.succession._is_renewing)


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr(successions, '_TRY_AGAIN', 0.01)
    monkeypatch.setattr(successions, '_LOOK_EVERY', 0.01)
    monkeypatch.setattr(successions, '_MORE', 0.05)
    made = Made()
    yield made
    made.succession.cleanup()


def test_a_new_key_is_followed_once(made):
    made.start()
    made.pair = NEW
    made.follow_until(made.has_followed)
    made.succession.follow(NEW)
    assert len(made.services) == 2
    assert made.forgotten == made.services[:1]


def test_a_key_that_changes_before_the_start_is_followed_after_it(made):
    made.pair = NEW
    made.succession.follow(NEW)
    assert len(made.services) == 1
    made.start()
    made.follow_until(made.has_followed)


def test_it_is_tried_until_a_port_can_be_bound(made, caplog):
    made.start()
    made.pair = NEW
    made.make_failures += [binding.BindError('no port')] * 20
    made.follow_until(made.has_followed)
    assert caplog.text.count('keeps its old key') == 1


@pytest.mark.parametrize('failure', [descriptors.Short('none'),
                                     RuntimeError('of no expected kind')])
def test_a_start_that_fails_leaves_one_registered(made, failure):
    made.start()
    made.pair = NEW
    made.start_failures.append(failure)
    made.follow_until(lambda: len(made.services) == 2
                      and made.services[1].is_closed)
    assert made.services[0].is_registered
    assert made.services[1] in made.forgotten
    made.follow_until(made.has_followed)


def test_a_want_of_threads_passes(made, monkeypatch):
    made.start()
    made.pair = NEW

    def none(*args):
        raise descriptors.Short('no thread')
    monkeypatch.setattr(threads, 'started', none)
    made.succession.follow(NEW)
    monkeypatch.undo()
    monkeypatch.setattr(successions, '_LOOK_EVERY', 0.01)
    monkeypatch.setattr(successions, '_MORE', 0.05)
    made.follow_until(made.has_followed)


def test_one_renewal_at_a_time(made):
    made.start()
    made.pair = NEW
    release, make = threading.Event(), made.succession._make

    def slow():
        release.wait(5)
        return make()
    made.succession._make = slow
    for _ in range(20):
        made.succession.follow(NEW)
    release.set()
    made.follow_until(made.has_followed)
    assert len(made.services) == 2


def test_nothing_is_made_after_the_end(made):
    made.start()
    made.pair = NEW
    made.succession.cleanup()
    made.succession.follow(NEW)
    assert len(made.services) == 1
