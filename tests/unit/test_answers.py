# SPDX-License-Identifier: Apache-2.0
"""What becomes of a call whose answers come in one message, in two, late,
twice, in the wrong order or not at all.

Everything is real but the wire: the connection's socket has no peer, and the
answers are handed over as they would be read.
"""

import collections
import contextlib
import dataclasses
import itertools
import queue
import time

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oslo_config import cfg

from tests.support import ids
from zmq_threaded import counters
from zmq_threaded import mailbox
from zmq_threaded import options
from zmq_threaded import payload
from zmq_threaded import sockets
from zmq_threaded import topic
from zmq_threaded import wire
from zmq_threaded.client import custody
from zmq_threaded.client import dealer_connection
from zmq_threaded.client import delivery
from zmq_threaded.client import in_doubt
from zmq_threaded.client import room
from zmq_threaded.registry import engines
from zmq_threaded.registry import record
from zmq_threaded.registry import registry as registries

TOPIC = topic.rpc('exchange', 'topic')
INSTANCE = record.Instance(b'i' * 16, ('tcp://127.0.0.1:1',),
                               two_messages=True)
RESULT, OTHER = (payload.dump((value,), 'json')[0]
                 for value in ('result', 'other'))
ENDING = ((wire.NO_RESULT,), wire.ENDING)
END = {'one': [(RESULT, wire.ENDING)], 'two': [(RESULT, 0), ENDING]}


class Desk:
    """Calls that were sent to one instance, and a place for its answers."""

    def __init__(self, context, ipc_dir, polled):
        settings = options.read(cfg.CONF, {'rpc_zmq_ipc_dir': ipc_dir})
        self.counters = counters.Counters()
        known = registries.Registry(
            engines.embedded(ipc_dir, 30), settings.update,
            settings.expire, self.counters, 'zmq-test-directory')
        made = sockets.Sockets(context, settings)
        self._known = known
        self._custody = custody.Custody(made, settings, known,
                                        self.counters, polled, self._not_told)
        self._on_message = self._custody._evidence.on_message
        self._connection = dealer_connection.Connection(
            made, INSTANCE.endpoints, INSTANCE.endpoints[0],
            False, self.counters, in_doubt.InDoubt(b""), self._on_message)
        self.queue = self._connection.queue(INSTANCE)
        self.custody._connections._queues[INSTANCE.id] = self.queue

    @property
    def custody(self):
        return self._custody

    @staticmethod
    def _not_told(task):
        raise AssertionError('nothing is to be looked up')

    def call(self, kind=wire.CALL, pinned=False):
        """A message that was sent."""
        sent = delivery.Delivery(
            id=ids.new_id(), kind=kind, topic=TOPIC, body=[b'{}', b'{}'],
            flags=0, expires=time.monotonic() + 60, instance=INSTANCE,
            pinned=pinned,
            waiter=queue.SimpleQueue(), destination=room.Destination(9))
        sent.destination.add(1)
        self.custody.store.all[sent] = None
        self.queue.push(sent)
        self.queue.head_was_sent(time.monotonic())
        return sent

    def answer(self, sent, body, flags=0, kind=wire.REPLY):
        self.read(wire.encode(kind, INSTANCE.id, sent.id, body, flags))

    def read(self, frame):
        self._on_message(self._connection, [b'', frame, b'trailing'])

    def close(self):
        self._connection.close()
        self._custody.close()
        self._known.stop()


class ToldDesk(Desk):
    """A desk in whose custody everything really is."""

    def __init__(self, context, ipc_dir, polled, receiver):
        self._instance = dataclasses.replace(INSTANCE, receiver=receiver)
        self.tasks, self.posted = collections.deque(), []
        super().__init__(context, ipc_dir, polled)
        self._connection.close()
        self.custody._connections._queues.clear()
        # Nobody is there, and nobody is looked for.
        self._known.ask = lambda *args: None
        self._open()

    def _open(self):
        self.queue = self.custody._connections.to(self._instance)
        self._connection = self.queue.connection

    def _not_told(self, task):
        self.tasks.append(task)

    def post(self, kind):
        self._open()
        self.posted.append(self.call(kind, pinned=kind == wire.FANOUT))

    def read_frames(self, frames):
        """:returns: False if it closed the socket that is being read"""
        self._open()
        self._connection._on_message(self._connection, frames)
        return not self._connection._socket.closed

    def read(self, frame):
        return self.read_frames([b'', frame])

    def do_tasks(self):
        while self.tasks:
            self.tasks.popleft()()

    def kept(self):
        """All that is in custody, wherever that is."""
        self.do_tasks()
        return set(self.custody.store)

    def forget_all(self):
        for each in self.posted:
            self.custody.withdraw(each)
        self.posted.clear()
        assert not self.kept()

    def close(self):
        self.custody.close()
        self._known.stop()


@contextlib.contextmanager
def _open_desk(ipc_dir, kind=Desk, *args):
    settings = options.read(cfg.CONF, {'rpc_zmq_ipc_dir': ipc_dir})
    context, polled = sockets.new_context(settings), mailbox.PolledMailbox()
    made = kind(context, ipc_dir, polled, *args)
    try:
        yield made
    finally:
        made.close()
        polled.close()
        context.term()


@pytest.fixture
def desk(no_leaks, ipc_dir):
    with _open_desk(ipc_dir) as made:
        yield made


@pytest.fixture(scope='module')
def shared_desk(tmp_path_factory):
    """For hypothesis: examples differ by their calls alone."""
    with _open_desk(str(tmp_path_factory.mktemp('desk'))) as made:
        yield made


@pytest.fixture(scope='module', params=[False, True],
                ids=['direct', 'receiver'])
def told_desk(request, tmp_path_factory):
    with _open_desk(str(tmp_path_factory.mktemp('told')), ToldDesk,
                    request.param) as made:
        yield made


def events(sent):
    """All that the caller was told so far."""
    told = []
    while not sent.waiter.empty():
        told.append(sent.waiter.get_nowait())
    return told


def results(sent):
    return [(detail.body, detail.flags) for event, detail in events(sent)
            if event == delivery.REPLIED]


def is_in_custody(desk, sent):
    return sent.id in desk.queue.in_flight


# One message, two messages


@pytest.mark.parametrize('form', END)
def test_call_ends_with_its_result(desk, form):
    sent = desk.call()
    for body, flags in END[form]:
        desk.answer(sent, body, flags)
    assert results(sent) == [(RESULT, END[form][0][1])]
    assert sent.destination.pending == 0
    assert not is_in_custody(desk, sent)


def test_result_without_its_ending_ends_the_call_at_once(desk):
    sent = desk.call()
    desk.answer(sent, RESULT)
    assert results(sent) == [(RESULT, 0)]
    assert sent.destination.pending == 0


def test_ending_does_not_end_a_call_whose_result_is_late(desk):
    sent = desk.call()
    desk.answer(sent, *ENDING)
    assert is_in_custody(desk, sent)
    assert delivery.REPLIED not in dict(events(sent))
    desk.answer(sent, RESULT)
    assert results(sent) == [(RESULT, 0)]


def test_ending_is_a_sign_of_life(desk):
    sent = desk.call()
    desk.answer(sent, *ENDING)
    assert events(sent) == [(delivery.HEARTBEAT, None)]


def test_first_of_several_results_counts(desk):
    sent = desk.call()
    for body in (RESULT, RESULT, OTHER):
        desk.answer(sent, body)
    assert results(sent) == [(RESULT, 0)]
    assert sent.destination.pending == 0


def test_ending_that_comes_after_the_end_is_told_to_nobody(desk):
    sent = desk.call()
    desk.answer(sent, RESULT)
    events(sent)
    desk.answer(sent, *ENDING)
    desk.answer(sent, *ENDING)
    assert events(sent) == []
    assert sent.destination.pending == 0


@pytest.mark.parametrize('form', END)
def test_failure_is_a_result(desk, form):
    sent = desk.call()
    for number, (body, flags) in enumerate(END[form]):
        desk.answer(sent, body, flags | (0 if number else wire.FAILURE))
    assert results(sent) == [(RESULT, END[form][0][1] | wire.FAILURE)]


def test_empty_answer_of_an_endpoint_is_a_result(desk):
    body, _ = payload.dump((None,), 'json')
    sent = desk.call()
    desk.answer(sent, body)
    assert results(sent) == [(body, 0)]


def test_answers_to_a_call_that_was_withdrawn_are_dropped(desk):
    sent = desk.call()
    desk.queue.take_back(sent.id)
    for body, flags in END['two']:
        desk.answer(sent, body, flags)
    assert events(sent) == []


def test_answers_of_a_later_version_are_understood(desk):
    sent = desk.call()
    desk.answer(sent, [], 0xff00, wire.HEARTBEAT)
    desk.answer(sent, [*RESULT, b'new', b''], 0xff00 | wire.ENDING)
    assert dict(events(sent)).keys() == {delivery.HEARTBEAT, delivery.REPLIED}


steps = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(
    [(RESULT, 0), (RESULT, wire.ENDING), (OTHER, 0), ENDING])), max_size=15)


@given(steps)
def test_each_call_has_its_first_result_whatever_comes_in_whatever_order(
        shared_desk, answered):
    calls = [shared_desk.call() for _ in range(3)]
    for number, (body, flags) in answered:
        shared_desk.answer(calls[number], body, flags)
    for number, sent in enumerate(calls):
        first = [(body, flags) for each, (body, flags) in answered
                 if each == number and body[0]][:1]
        assert results(sent) == first
        assert is_in_custody(shared_desk, sent) == (not first)
        assert sent.destination.pending == 1 - len(first)


@pytest.mark.parametrize('order', list(
    itertools.permutations(range(3))))
def test_result_ending_and_a_second_result_in_every_order(desk, order):
    said = [(RESULT, 0), (RESULT, wire.ENDING), ENDING]
    sent = desk.call()
    for number in order:
        desk.answer(sent, *said[number])
    assert [body for body, _ in results(sent)] == [RESULT]


# Answers of another version


def of_another_version(frame, major=wire.MAJOR + 1, kind=None):
    kind = frame[6] if kind is None else kind
    return frame[:4] + bytes((major, 0, kind)) + frame[7:]


def reason(sent):
    (event, text), = events(sent)
    assert event == delivery.FAILED
    return text


@pytest.mark.parametrize('kind', [wire.CALL, wire.CAST, wire.NOTIFY])
def test_refusal_by_another_major_version_ends_a_message_by_name(
        desk, kind, caplog):
    sent = desk.call(kind)
    desk.read(of_another_version(wire.encode_nack(
        INSTANCE.id, sent.id, wire.VERSION, 'in a form that nobody knows')))
    assert_names_both_versions(reason(sent))
    assert_names_both_versions(caplog.text)
    assert desk.counters.snapshot()['wrong_version'] == 1
    assert sent.destination.pending == 0


def assert_names_both_versions(text):
    assert f'protocol {wire.MAJOR + 1}.0' in text
    assert f'{wire.MAJOR}.{wire.MINOR}' in text


def test_reply_of_another_major_version_ends_its_call_by_name(desk):
    sent = desk.call()
    desk.read(of_another_version(wire.encode(
        wire.REPLY, INSTANCE.id, sent.id, RESULT, wire.ENDING)))
    assert_names_both_versions(reason(sent))


def test_question_that_another_major_version_refuses_ends_what_it_was_about(
        desk):
    # Its refusal has the id of the question, which is none.
    sent = desk.call(wire.FANOUT)
    desk.read(of_another_version(wire.encode_nack(
        INSTANCE.id, wire.NO_ID, wire.VERSION)))
    assert_names_both_versions(reason(sent))


def test_refusal_for_its_version_ends_a_call_with_the_servers_text(desk):
    sent = desk.call()
    desk.read(wire.encode_nack(INSTANCE.id, sent.id, wire.VERSION,
                               'protocol 2.0 here, 1.0 there'))
    assert_names_both_versions(reason(sent))


# Answers of a broken or hostile service


def state(desk):
    """What has to fit together, whatever was read."""
    unfinished = [each for each in desk.posted
                  if each.destination.pending == 1]
    assert all(each.destination.pending in (0, 1) for each in desk.posted)
    assert desk.kept() == set(unfinished)
    in_flight = desk.queue.in_flight
    assert all(in_flight[each].id == each for each in in_flight)
    assert all(each.where is delivery.Where.IN_FLIGHT
               for each in in_flight.values())


kinds = st.sampled_from([*wire.KIND_NAMES, *4 * [wire.NACK, wire.STATUS],
                         0, 77, 255])
words = st.binary(max_size=40) | st.sampled_from(
    [b'', b'\0' * 16, b'i' * 16, bytes((wire.GONE,)), bytes((wire.BUSY,)),
     bytes((wire.STOPPING,)), bytes((wire.REQUEUED,)), b'\xff', b'[]'])


@st.composite
def hostile_frames(draw):
    """Frames about message number `n` of the desk, sound or not."""
    number = draw(st.integers(0, 4))
    kind, body = draw(kinds), draw(st.lists(words, max_size=3))
    if draw(st.booleans()):
        body = [*draw(st.sampled_from([[b'ID'], [b'ID', b'\0'], [b'ID', b'\1'],
                                       [b'ID', b'\2'], [b'\1', b'text'],
                                       [b'\3', b''], [b'\6', b'']])), *body]
    return (number, kind, body, draw(st.integers(0, 0xffff)),
            draw(st.sampled_from(['mine', 'none', 'other'])),
            draw(st.sampled_from([INSTANCE.id, wire.NO_ID, b'o' * 16])),
            draw(st.none() | st.tuples(st.integers(0, 80),
                                       st.integers(0, 255))))


def frame_of(desk, number, kind, body, flags, which, instance, flaw):
    message_id = desk.posted[number].id
    body = [message_id if part == b'ID' else part for part in body]
    named = {'mine': message_id, 'none': wire.NO_ID,
             'other': b'o' * 16}[which]
    frame = bytearray(wire.encode(kind, instance, named, body, flags))
    if flaw and flaw[0] < len(frame):
        frame[flaw[0]] = flaw[1]
    return bytes(frame)


@given(st.lists(hostile_frames(), max_size=8))
@hypothesis.example([(0, wire.NACK, [bytes((wire.GONE,)), b''], 0, 'none',
                      INSTANCE.id, None)])
@hypothesis.example([(0, wire.NACK, [bytes((wire.UNREACHABLE,)), b''], 0,
                      'none', INSTANCE.id, None)])
@hypothesis.settings(deadline=None, max_examples=300)
def test_no_answer_breaks_custody(told_desk, answers):
    for kind in (wire.CALL, wire.CAST, wire.NOTIFY, wire.FANOUT, wire.CAST):
        told_desk.post(kind)
    for each in answers:
        assert told_desk.read(frame_of(told_desk, *each))
        state(told_desk)
    told_desk.forget_all()


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_no_frames_break_custody(told_desk, frames):
    told_desk.post(wire.CAST)
    assert told_desk.read_frames(frames)
    state(told_desk)
    told_desk.forget_all()


def test_a_call_ends_with_its_reply_although_it_was_acknowledged(desk):
    sent = desk.call()
    desk.read(wire.encode(wire.ACK, INSTANCE.id, wire.NO_ID, (sent.id,)))
    assert is_in_custody(desk, sent)
    desk.answer(sent, RESULT)
    assert results(sent) == [(RESULT, 0)]


def test_malformed_answers_are_counted_and_seldom_logged(desk, caplog):
    for _ in range(2000):
        desk.read(b'junk')
        desk.read(of_another_version(wire.encode_nack(
            b'o' * 16, wire.NO_ID, wire.VERSION)))
    assert desk.counters.snapshot()['malformed'] == 2000
    assert desk.counters.snapshot()['wrong_version'] == 2000
    assert len(caplog.records) == 2


@pytest.mark.parametrize('why', [wire.VERSION, wire.MALFORMED])
def test_texts_of_refusals_are_cut_and_escaped(desk, caplog, why):
    sent = desk.call(wire.CAST)
    desk.read(wire.encode_nack(INSTANCE.id, sent.id, why,
                               'x\nCRITICAL \x1b[2J' + 'A' * 1_000_000))
    for text in (reason(sent), caplog.records[-1].getMessage()):
        assert len(text) < 2000 and 'x\\nCRITICAL \\x1b[2J' in text
        assert '\n' not in text and '\x1b' not in text
