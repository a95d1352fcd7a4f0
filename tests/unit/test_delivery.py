# SPDX-License-Identifier: Apache-2.0
"""What the outbox keeps, and how much of it."""

import dataclasses
import queue
import threading
import time

import pytest

from tests.support import ids
from zmq_threaded import mailbox
from zmq_threaded import topic
from zmq_threaded import wire
from zmq_threaded.client import delivery
from zmq_threaded.client import room
from zmq_threaded.registry import record

TOPIC = topic.rpc('exchange', 'topic', 'server')
OTHER = topic.rpc('exchange', 'other')
INSTANCE = record.Instance(b'i' * 16, ('ipc:///nowhere',))


def a_delivery(**fields):
    return delivery.Delivery(**{
        'id': ids.new_id(),
        'kind': wire.CAST, 'topic': TOPIC, 'body': [b'context', b'message'],
        'flags': wire.MSGPACK, 'expires': 100.0, 'instance': INSTANCE,
        **fields})


# Deliveries


def test_frame_says_what_the_delivery_is():
    made = a_delivery(client_timeout=2.5)
    message = wire.decode(made.frame('ipc:///nowhere'))
    assert (message.kind, message.instance, message.id) == (
        wire.CAST, INSTANCE.id, made.id)
    assert message.flags & wire.MSGPACK
    assert (message.body, message.client_timeout) == (
        [b'context', b'message', b''], 2.5)


def test_on_one_host_the_frame_says_when_it_expires():
    message = wire.decode(a_delivery().frame('ipc:///nowhere'))
    assert message.flags & wire.DEADLINE
    assert message.expiry == 100.0


def test_to_another_host_the_frame_says_the_time_left():
    made = a_delivery(expires=later(30.0))
    message = wire.decode(made.frame('tcp://nowhere:1'))
    assert not message.flags & wire.DEADLINE
    assert 0 < message.expiry <= 30.0


def test_to_another_host_an_expired_message_has_no_time_left():
    made = a_delivery(expires=later(-1.0))
    assert wire.decode(made.frame('tcp://nowhere:1')).expiry == 0


def test_deliveries_have_ids_of_their_own_and_are_never_equal():
    one, other = a_delivery(), a_delivery()
    assert one.id != other.id
    assert one != other
    assert a_delivery(id=one.id) != one


def test_copy_is_pinned_to_its_instance_and_nobody_waits_for_it():
    made = a_delivery(kind=wire.FANOUT, instance=None,
                      waiter=queue.SimpleQueue())
    copy = made.copy_for(INSTANCE)
    assert (copy.instance, copy.pinned, copy.waiter) == (INSTANCE, True, None)
    assert (made.instance, made.pinned) == (None, False)
    copy.tell(delivery.ACKNOWLEDGED)
    assert made.waiter.empty()
    assert (copy.topic, copy.body, copy.expires) == (
        made.topic, made.body, made.expires)


def test_copies_have_all_that_their_original_had_when_it_was_posted():
    made = a_delivery(kind=wire.FANOUT, instance=None, spread=True,
                      attempts=3, waiter=mailbox.Answers(), since=7.0,
                      kept=object(), destination=room.Destination(1))
    group = [made]
    for copy, own in ((made.copy_for(INSTANCE, group), {
            'instance': INSTANCE, 'pinned': True, 'group': group}),
            (made.copy_for_pool(OTHER), {'topic': OTHER})):
        expected = dataclasses.replace(made, **{
            'spread': False, 'attempts': None, 'waiter': None, **own})
        for field in dataclasses.fields(made):
            assert (getattr(copy, field.name)
                    == getattr(expected, field.name)), field.name


def test_frame_for_several_lists_their_ids_and_is_for_nobody_by_itself():
    made = a_delivery(kind=wire.FANOUT)
    message = wire.decode(made.frame('ipc:///nowhere', b'',
                                     [b'i' * 16, b'j' * 16]))
    assert message.instance == wire.NO_ID
    assert message.body[:2] == [b'context', b'message']
    assert wire.split_ids(message.body[2]) == [b'i' * 16, b'j' * 16]
    assert (message.id, message.kind) == (made.id, wire.FANOUT)


def test_copies_of_a_fanout_share_their_group():
    made, group = a_delivery(kind=wire.FANOUT, instance=None), []
    copies = [made.copy_for(INSTANCE, group) for _ in range(3)]
    group += copies
    assert all(copy.group is group for copy in copies)
    assert {copy.id for copy in copies} == {made.id}


@pytest.mark.parametrize('reason, receiver, is_final', [
    (wire.STOPPING, False, True), (wire.STOPPING, True, True),
    (wire.GONE, False, True), (wire.GONE, True, False),
    (wire.BUSY, False, False), (wire.BUSY, True, False)])
def test_a_receiver_that_says_gone_may_be_wrong(reason, receiver, is_final):
    instance = record.Instance(b'i' * 16, ('ipc:///x',), '', receiver)
    assert delivery.is_final(reason, instance) is is_final


def test_a_watched_call_is_lost_when_it_is_unknown_twice_in_a_row():
    watch = delivery.Watch(INSTANCE, b'm' * 16)
    for known in (False, True, False):
        watch.heard(known)
        assert not watch.is_lost
    watch.heard(False)
    assert watch.is_lost


def test_copy_for_a_pool_goes_to_its_topic_and_nobody_waits_for_it():
    pool = topic.rpc('exchange', 'pool')
    made = a_delivery(kind=wire.NOTIFY, instance=None, spread=True,
                      attempts=3, waiter=queue.SimpleQueue())
    copy = made.copy_for_pool(pool)
    assert (copy.topic, copy.instance, copy.pinned) == (pool, None, False)
    assert (copy.spread, copy.waiter, copy.attempts) == (False, None, None)
    assert (made.topic, made.spread, made.attempts) == (TOPIC, True, 3)
    assert (copy.body, copy.expires) == (made.body, made.expires)


def test_waiter_is_told_what_happened():
    made = a_delivery(waiter=queue.SimpleQueue())
    made.tell(delivery.TAKEN)
    made.tell(delivery.FAILED, 'why')
    assert made.waiter.get_nowait() == (delivery.TAKEN, None)
    assert made.waiter.get_nowait() == (delivery.FAILED, 'why')


def test_text_names_kind_id_and_topic():
    made = a_delivery()
    assert str(made) == f'CAST {made.id.hex()} for server of topic ' \
                        '(exchange exchange)'


# Destinations


def full(limit=1):
    destination = room.Destination(limit)
    destination.add(limit)
    return destination


def waiters(destination, count):
    admissions = [room.Admission() for _ in range(count)]
    for admission in admissions:
        destination.wait(admission)
    return admissions


def is_called(admission):
    return admission.wait(deadline=0.0)


def later(seconds=20.0):
    return time.monotonic() + seconds


@pytest.mark.parametrize('limit', [1, 3])
def test_full_at_its_limit(limit):
    destination = room.Destination(limit)
    for _ in range(limit):
        assert not destination.is_full()
        destination.add(1)
    assert destination.is_full()
    destination.finish()
    assert not destination.is_full()


def test_copies_of_a_fanout_may_exceed_the_limit():
    destination = room.Destination(2)
    destination.add(5)
    for _ in range(3):
        destination.finish()
        assert destination.is_full()
    destination.finish()
    assert not destination.is_full()


def test_nobody_is_called_without_room():
    admission, = waiters(full(), 1)
    started = time.monotonic()
    assert not admission.wait(started + 0.1)
    assert 0.1 <= time.monotonic() - started < 10


def test_a_deadline_in_the_past_does_not_wait():
    assert not room.Admission().wait(deadline=0.0)


def test_a_waiting_thread_is_called():
    destination = full()
    admission, = waiters(destination, 1)
    outcome = queue.SimpleQueue()
    thread = threading.Thread(
        target=lambda: outcome.put(admission.wait(later())), daemon=True)
    thread.start()
    destination.finish()
    assert outcome.get(timeout=10)


def test_who_comes_when_there_is_room_again_is_called_at_once():
    # A sender saw it full; before the outbox thread heard of that, the last
    # message was acknowledged, and no other one will be.
    destination = full()
    destination.finish()
    admission, = waiters(destination, 1)
    assert is_called(admission)


def test_each_end_calls_one_sender_in_turn():
    destination = full()
    admissions = waiters(destination, 4)
    for admission in admissions:
        destination.finish()
        assert is_called(admission)
        destination.add(1)
    assert destination.pending == 1


def test_each_end_calls_no_more_than_one():
    destination = full()
    admissions = waiters(destination, 3)
    destination.finish()
    assert [is_called(admission) for admission in admissions] == [
        True, False, False]


def test_senders_are_called_only_below_the_limit():
    destination = room.Destination(2)
    destination.add(4)
    called = []
    destination.wait(room.Admission(called.append))
    for count in 0, 0, 1:
        destination.finish()
        assert len(called) == count


def test_a_sender_that_gave_up_takes_no_place_in_the_queue():
    destination = full()
    *gone, admission = waiters(destination, 4)
    for each in gone:
        assert not is_called(each)
    destination.finish()
    assert is_called(admission)


def test_senders_that_gave_up_are_not_kept_for_ever():
    destination = full()
    for admission in waiters(destination, 100):
        assert not is_called(admission)
    destination.finish()
    assert not destination._waiting


def test_a_admission_is_either_answered_or_given_up():
    for _ in range(200):
        admission, outcome = room.Admission(), []
        thread = threading.Thread(
            target=lambda: outcome.append(admission.admit()))
        thread.start()
        was_called = admission.wait(0.0)
        thread.join()
        assert outcome == [was_called] != [admission.abandoned]


def test_a_admission_is_answered_once():
    admission = room.Admission()
    assert admission.admit()
    admission.refuse('too late')
    assert not admission.abandon()
    assert admission.wait(0.0) and admission.refusal is None


def test_all_who_wait_can_be_refused():
    destination = full()
    admissions = waiters(destination, 3)
    destination.refuse_all('because')
    assert destination.pending == 1
    for admission in admissions:
        assert admission.wait(0.0) and admission.refusal == 'because'


def test_who_looks_again_may_find_it_full_again():
    destination, looked = full(), []
    admission = room.Admission(looked.append)
    destination.wait(admission)
    destination.call_next()
    assert looked == [admission] and not is_called(admission)


def test_idle_with_nothing_under_way_and_nobody_waiting():
    destination = full()
    assert not destination.is_idle()
    waiters(destination, 1)
    destination._limit = 0
    destination.add(-1)
    assert not destination.is_idle()
    destination.call_next()
    assert destination.is_idle()


def test_senders_that_gave_up_do_not_pile_up():
    destination = room.Destination(1)
    destination.add(1)
    for _ in range(100):
        admission = room.Admission()
        destination.wait(admission)
        assert not admission.wait(0.0)
    assert len(destination._waiting) < 2
    # Who still waits is called
    admission = room.Admission()
    destination.wait(admission)
    destination.finish()
    assert admission.wait(0.0)
