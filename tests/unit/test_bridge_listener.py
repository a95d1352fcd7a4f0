# SPDX-License-Identifier: Apache-2.0
"""What the listener of the other driver does when that driver fails."""

import threading
import time

import pytest
from oslo_config import cfg

from tests.support import waiting
from zmq_threaded.bridge import other as others
from zmq_threaded.bridge import other_listener
from zmq_threaded.bridge import patience as patiences

pytestmark = pytest.mark.usefixtures('no_leaks')


class Listener:
    """Of a driver that fails some times to start.

    :ivar did: what was asked of it
    """

    def __init__(self, failures=0):
        self.failures, self.did = failures, []
        self.released = threading.Event()
        self.released.set()

    def start(self, callback):
        self.did.append('start')
        if self.failures:
            self.failures -= 1
            raise RuntimeError("can't start new thread")

    def stop(self):
        self.released.wait(30)
        self.did.append('stop')

    def cleanup(self):
        self.did.append('cleanup')


@pytest.fixture
def other():
    made = others.Other(cfg.CONF, 'fake://', None, None)
    yield made
    made.cleanup()


def closed(*listening):
    for each in listening:
        each.begin_stop()
        each.wait_until_stopped()
        each.begin_cleanup()
        each.wait_until_closed()


def test_a_listener_that_did_not_start_is_closed_and_made_again(other):
    listener = Listener(failures=1)
    listening = other_listener.OtherListener('it', other, lambda: listener)
    listening.start(print)
    assert not listening.listens
    waiting.until(lambda: listening.listens, 5)
    assert listener.did == ['start', 'cleanup', 'start']
    closed(listening)
    assert not listening.listens
    assert listener.did[3:] == ['stop', 'cleanup']


def test_an_error_of_any_kind_is_tried_again(other, monkeypatch):
    said = [UnicodeError('label empty or too long')]

    def why():
        if said:
            raise said.pop()
        return ''
    monkeypatch.setattr(other, 'why_unreachable', why)
    listening = other_listener.OtherListener('it', other, Listener)
    listening.start(print)
    waiting.until(lambda: listening.listens, 5)
    closed(listening)


def test_a_name_that_is_none_is_unreachable():
    other = others.Other(cfg.CONF, 'rabbit://h1..example/', None, None)
    assert 'h1..example' in other.why_unreachable()
    other.cleanup()


def test_all_listeners_of_a_driver_that_hangs_have_one_deadline(
        other, monkeypatch):
    monkeypatch.setattr(patiences, 'LIMIT', 0.5)
    made = [Listener() for _ in range(5)]
    for each in made:
        each.released.clear()
    listening = [other_listener.OtherListener('it', other, lambda each=each:
                                              each) for each in made]
    for each in listening:
        each.start(print)
    began = time.monotonic()
    closed(*listening)
    assert 0.4 < time.monotonic() - began < 3
    for each in made:
        each.released.set()
    waiting.until(lambda: all('cleanup' in each.did for each in made), 5)


def test_a_wait_that_was_long_enough_gives_the_next_one_all_its_time(
        monkeypatch):
    monkeypatch.setattr(patiences, 'LIMIT', 1.0)
    patience = patiences.Patience()
    for _ in range(3):
        until = time.monotonic() + 0.4
        assert patience.wait(lambda until=until: time.monotonic() > until)
    assert not patience.wait(lambda: False)
    began = time.monotonic()
    assert not patience.wait(lambda: False)
    assert patience.wait(lambda: True)
    assert time.monotonic() - began < 0.8
    monkeypatch.setattr(patiences, '_MEMORY', 0.0)
    assert not patience.wait(lambda: False)
    assert time.monotonic() - began > 0.9
