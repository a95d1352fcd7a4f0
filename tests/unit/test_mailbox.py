# SPDX-License-Identifier: Apache-2.0
"""What a thread gets from others, and how it is woken."""

import collections
import contextlib
import os
import queue
import select
import signal
import threading
import time

import pytest

from tests.support import signals
from tests.support import waiting
from zmq_threaded import finished
from zmq_threaded import mailbox
from zmq_threaded.client import room
from zmq_threaded.journal import steps

DEADLINE = 20.0


class Interrupted(BaseException):
    pass


# The wake-up


def test_a_set_that_was_interrupted_silences_no_later_one(
        wakeup, epoll, monkeypatch):
    def interrupted(*_):
        raise Interrupted
    with monkeypatch.context() as patch:
        patch.setattr(os, 'eventfd_write', interrupted)
        with pytest.raises(Interrupted):
            wakeup.set()
    wakeup.clear_if(epoll.poll(0))
    wakeup.set()
    assert epoll.poll(DEADLINE)


@pytest.fixture
def wakeup():
    made = mailbox.Wakeup()
    yield made
    made.close()


@pytest.fixture
def epoll(wakeup):
    with select.epoll() as made:
        made.register(wakeup.fd, select.EPOLLIN)
        yield made


def test_any_number_of_sets_is_one_event(wakeup, epoll):
    for _ in range(2):
        assert epoll.poll(0) == []
        for _ in range(3):
            wakeup.set()
        ready = epoll.poll(DEADLINE)
        assert ready == [(wakeup.fd, select.EPOLLIN)]
        wakeup.clear_if(ready)


def test_only_its_own_event_is_cleared(wakeup, epoll):
    wakeup.set()
    wakeup.clear_if([])
    wakeup.clear_if([(wakeup.fd + 1, select.EPOLLIN)])
    assert epoll.poll(DEADLINE)


@pytest.mark.parametrize('moment', ['before', 'after'])
def test_a_set_during_the_clearing_blocks_no_later_one(
        wakeup, epoll, monkeypatch, moment):
    read = os.eventfd_read

    def read_and_be_set(fd):
        if moment == 'before':
            wakeup.set()
        read(fd)
        if moment == 'after':
            wakeup.set()
    monkeypatch.setattr(os, 'eventfd_read', read_and_be_set)
    wakeup.set()
    wakeup.clear_if(epoll.poll(DEADLINE))
    # That one's work was in place; the next one needs an event of its own.
    wakeup.set()
    assert epoll.poll(0)


def test_set_after_close_writes_to_nobody():
    wakeup = mailbox.Wakeup()
    number = wakeup.fd
    wakeup.close()
    successor = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        assert successor == number
        wakeup.set()
        wakeup.close()
        with pytest.raises(BlockingIOError):
            os.eventfd_read(successor)
    finally:
        os.close(successor)


def test_descriptor_is_not_inherited(wakeup):
    assert not os.get_inheritable(wakeup.fd)


def read_all(wakeup, epoll, items, expected):
    """What arrives; the wait for it fails when a wake-up is lost."""
    seen = []
    while len(seen) < expected:
        ready = epoll.poll(DEADLINE)
        assert ready, f'a wake-up was lost after {len(seen)} items'
        wakeup.clear_if(ready)
        while items:
            seen.append(items.popleft())
    return seen


def test_no_wakeup_is_lost(wakeup, epoll, eager_switching):
    items = collections.deque()

    def send(first):
        for number in range(first, first + 25_000):
            items.append(number)
            wakeup.set()

    senders = [threading.Thread(target=send, args=(first,))
               for first in range(0, 100_000, 25_000)]
    for sender in senders:
        sender.start()
    try:
        seen = read_all(wakeup, epoll, items, 100_000)
    finally:
        for sender in senders:
            sender.join(DEADLINE)
    assert sorted(seen) == list(range(100_000))


def test_no_wakeup_is_lost_one_by_one(wakeup, epoll, eager_switching):
    items, taken = collections.deque(), threading.Semaphore(1)

    def send():
        for number in range(5000):
            taken.acquire()
            items.append(number)
            wakeup.set()
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    for number in range(5000):
        assert read_all(wakeup, epoll, items, 1) == [number]
        taken.release()
    sender.join(DEADLINE)


def test_set_is_safe_in_a_signal_handler(wakeup, epoll):
    items, signals = collections.deque(), []

    def handle(*_):
        signals.append(1)
        items.append('signal')
        wakeup.set()

    seen = []
    reader = threading.Thread(target=lambda: seen.extend(
        iter(lambda: read_all(wakeup, epoll, items, 1), ['end'])), daemon=True)
    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        reader.start()
        while len(signals) < 300:
            wakeup.set()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    waiting.until(lambda: sum(map(len, seen)) == len(signals))
    items.append('end')
    wakeup.set()
    reader.join(DEADLINE)
    assert not reader.is_alive()


# Both kinds of mailbox


class Plain:
    """A Mailbox, and a way to wait for it that both kinds have."""

    def __init__(self):
        self.mailbox = mailbox.Mailbox()

    def receive(self, seconds):
        return self.mailbox.take(seconds, 100)

    def close(self):
        pass


class Polled:
    """As Plain, for a PolledMailbox."""

    def __init__(self):
        self.mailbox = mailbox.PolledMailbox()

    def receive(self, seconds):
        self.mailbox.wait(seconds)
        items = self.mailbox.items
        return [items.popleft() for _ in range(len(items))]

    def close(self):
        self.mailbox.close()


@pytest.fixture(params=[Plain, Polled])
def owner(request):
    made = request.param()
    yield made
    made.close()


def test_items_come_in_their_order(owner):
    for number in range(5):
        owner.mailbox.put(number)
    assert len(owner.mailbox) == 5
    assert owner.receive(DEADLINE) == [0, 1, 2, 3, 4]
    assert len(owner.mailbox) == 0
    assert owner.receive(0) == []


@pytest.mark.parametrize('item', [None, 0, '', ()])
def test_an_item_may_be_anything(owner, item):
    owner.mailbox.put(item)
    assert owner.receive(DEADLINE) == [item]


def later(act):
    """A thread that does something in a moment."""
    thread = threading.Timer(0.05, act)
    thread.start()
    return thread


@pytest.mark.parametrize('what', ['wake', 'put'])
def test_the_owner_is_woken(owner, what):
    acts = {'wake': owner.mailbox.wake,
            'put': lambda: owner.mailbox.put('item')}
    began, thread = time.monotonic(), later(acts[what])
    assert owner.receive(DEADLINE) == ['item'][:what == 'put']
    assert time.monotonic() - began < DEADLINE / 2
    thread.join(DEADLINE)


def test_the_owner_waits_no_longer_than_it_wants(owner):
    began = time.monotonic()
    assert owner.receive(0.05) == []
    assert 0.04 <= time.monotonic() - began < DEADLINE / 2


def test_a_mailbox_gives_as_many_items_as_are_wanted():
    made = mailbox.Mailbox()
    for number in range(5):
        made.put(number)
    assert made.take(0) == [0]
    assert made.take(0, 3) == [1, 2, 3]
    assert made.take(None, 3) == [4]


def collect(owner, expected):
    """What arrives; a wait to its end means that a wake-up was lost.

    A short one may bring nothing: its item was found by the wait before.
    """
    seen = []
    while len(seen) < expected:
        began = time.monotonic()
        seen.extend(owner.receive(DEADLINE))
        assert time.monotonic() - began < DEADLINE, 'a wake-up was lost'
    return seen


def test_no_item_is_lost_or_doubled(owner, eager_switching):
    def send(sender):
        for number in range(3000):
            owner.mailbox.put((sender, number))
    senders = [threading.Thread(target=send, args=(sender,))
               for sender in range(4)]
    for sender in senders:
        sender.start()
    seen = collect(owner, 4 * 3000)
    for sender in senders:
        sender.join(DEADLINE)
    for sender in range(4):
        assert [number for each, number in seen if each == sender] == list(
            range(3000))


def test_a_signal_handler_may_put_and_wake(owner):
    signals = []

    def handle(*_):
        signals.append(1)
        owner.mailbox.put('signal')
        owner.mailbox.wake()
    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    seen = []
    try:
        while len(signals) < 200:
            owner.mailbox.put('thread')
            seen.extend(owner.receive(0))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    while len(owner.mailbox):
        seen.extend(owner.receive(0))
    assert seen.count('signal') == len(signals)


def test_a_watched_descriptor_ends_the_wait_of_a_polled_mailbox():
    made = mailbox.PolledMailbox()
    reading, writing = os.pipe()
    try:
        made.watch(reading)
        assert made.wait(0) == []
        os.write(writing, b'1')
        assert made.wait(DEADLINE) == [(reading, select.EPOLLIN)]
        made.unwatch(reading)
        assert made.wait(0) == []
    finally:
        made.close()
        os.close(reading)
        os.close(writing)


def test_a_closed_polled_mailbox_keeps_what_is_put_and_wakes_nobody():
    made = mailbox.PolledMailbox()
    made.close()
    made.put('item')
    made.wake()
    made.close()
    assert list(made.items) == ['item']


def test_a_polled_mailbox_that_cannot_be_made_leaves_no_descriptor(
        monkeypatch):
    def fail():
        raise OSError('out of descriptors')
    before = sorted(os.listdir('/proc/self/fd'))
    monkeypatch.setattr(select, 'epoll', fail)
    with pytest.raises(OSError, match='out of descriptors'):
        mailbox.PolledMailbox()
    assert sorted(os.listdir('/proc/self/fd')) == before


# Questions to another thread


def test_the_answer_to_a_question_is_returned():
    made = mailbox.Mailbox()

    def answer():
        question, = made.take(DEADLINE)
        question()
    thread = threading.Thread(target=answer)
    thread.start()
    assert mailbox.ask(made.put, lambda: 'answer', DEADLINE) == 'answer'
    thread.join(DEADLINE)


def test_without_an_answer_in_time_there_is_the_default():
    made = mailbox.Mailbox()
    assert mailbox.ask(made.put, lambda: 'answer', 0.01) is None
    assert mailbox.ask(made.put, lambda: 'answer', 0.01, 'late') == 'late'
    for question in made.take(0, 10):
        question()      # a late answer harms nobody


# Answers


def a_moment():
    time.sleep(0.05)


def test_answers_come_in_their_order():
    answers = mailbox.Answers()
    for number in None, 1, 2:
        answers.put(number)
    soon = time.monotonic() + DEADLINE
    assert [answers.get(soon) for _ in range(3)] == [None, 1, 2]
    with pytest.raises(queue.Empty):
        answers.get(time.monotonic())


def test_who_waits_for_an_answer_is_woken():
    answers = mailbox.Answers()
    began = time.monotonic()
    for number in range(3):
        thread = later(lambda: answers.put(number))
        assert answers.get(began + DEADLINE) == number
        thread.join(DEADLINE)
    assert time.monotonic() - began < DEADLINE / 2


def test_an_answer_is_waited_for_until_the_deadline():
    began = time.monotonic()
    with pytest.raises(queue.Empty):
        mailbox.Answers().get(began + 0.05)
    assert 0.04 <= time.monotonic() - began < DEADLINE / 2


def test_no_answer_is_lost_between_threads():
    answers, count = mailbox.Answers(), 2000
    found = []

    def take():
        for _ in range(count):
            found.append(answers.get(time.monotonic() + DEADLINE))
    takers = [threading.Thread(target=take) for _ in range(2)]
    began = time.monotonic()
    for thread in takers:
        thread.start()
    for number in range(2 * count):
        answers.put(number)
    for thread in takers:
        thread.join(2 * DEADLINE)
    assert sorted(found) == list(range(2 * count))
    # Nobody waited for what was there.
    assert time.monotonic() - began < DEADLINE / 2


@pytest.mark.timeout(60)
@pytest.mark.parametrize('wait', [
    lambda until: mailbox.Answers().get(until),
    lambda until: mailbox.ask(lambda question: None, dict, 0.2, queue.Empty),
    lambda until: room.Admission().wait(until),
    lambda until: steps.Keep(None).wait(until),
    lambda until: finished.Finished().wait(until)])
def test_a_slow_signal_handler_lets_nobody_wait_for_ever(wait):
    """The queue of CPython 3.11 does."""
    began = time.monotonic()
    with signals.interrupting(a_moment, lambda: time.sleep(0.4)):
        with contextlib.suppress(queue.Empty):
            assert wait(began + 0.2) in (False, queue.Empty)
    assert time.monotonic() - began < DEADLINE


def test_a_signal_handler_may_give_the_answer():
    answers = mailbox.Answers()
    with signals.interrupting(a_moment, lambda: answers.put('here')):
        assert answers.get(time.monotonic() + DEADLINE) == 'here'
