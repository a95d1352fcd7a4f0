# SPDX-License-Identifier: Apache-2.0
"""The frames, as the table of zmq_threaded.wire has them."""

import math
import struct
import threading

import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st

from zmq_threaded import wire

# Parts that a kind cannot do without.
LEAST = {wire.CALL: 2, wire.CAST: 2, wire.FANOUT: 2, wire.NOTIFY: 2,
         wire.REPLY: 1, wire.HEARTBEAT: 0, wire.ACK: 1, wire.NACK: 2,
         wire.QUERY: 1, wire.STATUS: 2}
# Places in the frame.
MAJOR_AT, MINOR_AT, KIND_AT, PARTS_AT, EXPIRY_AT = 4, 5, 6, 7, 10
CLIENT_TIMEOUT_AT, LENGTHS_AT = 50, 58
FIXED_SIZE = 50
INSTANCE, ID = b'i' * 16, b'm' * 16

kinds = st.sampled_from(sorted(LEAST))
ids = st.binary(min_size=16, max_size=16)
parts = st.lists(st.binary(max_size=300), max_size=6)
flags = st.integers(0, 0xffff)
expiries = st.floats(min_value=0, allow_nan=False)
timeouts = st.floats(min_value=0, max_value=wire.LONGEST_TIMEOUT)


def encode(kind=wire.CAST, body=(b'context', b'message'), **fields):
    return wire.encode(kind, INSTANCE, ID, body, **fields)


def with_double(frame, at, value):
    return frame[:at] + struct.pack('!d', value) + frame[at + 8:]


def with_byte(frame, at, value):
    return frame[:at] + bytes((value,)) + frame[at + 1:]


def assert_refused_as_specified(frame):
    """Decoding gives a message or one of two errors, and nothing else."""
    try:
        message = wire.decode(frame)
    except (wire.Malformed, wire.WrongVersion) as error:
        assert isinstance(error, ValueError)
    else:
        assert len(message.body) >= LEAST[message.kind]
        assert_body_is_read_as_specified(message)


def assert_body_is_read_as_specified(message):
    readers = {wire.NACK: wire.nack_reason, wire.STATUS: wire.status_states,
               wire.ACK: wire.acknowledged_ids,
               wire.QUERY: wire.queried_ids}
    try:
        readers.get(message.kind, bool)(message)
    except wire.Malformed:
        pass


@given(kinds, ids, ids, parts, flags, expiries, timeouts)
def test_round_trip(kind, instance, message_id, more, flag, expiry, timeout):
    body = [b'part'] * LEAST[kind] + more
    message = wire.decode(wire.encode(kind, instance, message_id, body, flag,
                                      expiry, timeout))
    assert message == wire.Message(wire.MAJOR, wire.MINOR, kind, flag, expiry,
                                   instance, message_id, timeout, body)


@pytest.mark.parametrize('kind', sorted(LEAST))
def test_what_is_not_said_means_for_ever_and_no_heartbeats(kind):
    message = wire.decode(encode(kind, [b''] * LEAST[kind]))
    assert (message.flags, message.client_timeout) == (0, 0)
    assert message.expiry == math.inf
    assert message.body == [b''] * LEAST[kind]


@pytest.mark.parametrize('kind', [kind for kind in LEAST if LEAST[kind]])
def test_too_few_parts_are_malformed(kind):
    with pytest.raises(wire.Malformed, match=wire.KIND_NAMES[kind]):
        wire.decode(encode(kind, [b'part'] * (LEAST[kind] - 1)))


def test_every_kind_and_reason_has_a_name():
    assert wire.KIND_NAMES.keys() == LEAST.keys()
    assert wire.REASON_NAMES.keys() >= {wire.GONE, wire.STOPPING, wire.BUSY,
                                        wire.VERSION, wire.EXPIRED}
    assert wire.KIND_NAMES.keys() > wire.REQUESTS


@pytest.mark.parametrize('kind', [0, 11, 255])
def test_unknown_kind_is_of_another_version(kind):
    with pytest.raises(wire.WrongVersion, match=f'kind {kind}') as raised:
        wire.decode(with_byte(encode(), KIND_AT, kind))
    assert raised.value.header.id


def test_as_many_parts_as_a_byte_counts():
    body = [bytes((number,)) for number in range(255)]
    assert wire.decode(encode(body=body)).body == body


def test_the_place_of_every_field_is_that_of_the_table():
    frame = encode(flags=0x0102, expiry=1.5, client_timeout=2.5)
    assert frame == (
        b'ZMQT\1\0\2\2\1\2' + struct.pack('!d', 1.5) + INSTANCE + ID
        + struct.pack('!d', 2.5) + b'\0\0\0\7\0\0\0\7' b'contextmessage')


# What is no message


@given(st.binary(max_size=500))
def test_arbitrary_bytes_are_refused(frame):
    assert_refused_as_specified(frame)


@given(st.binary(max_size=500))
def test_arbitrary_bytes_behind_the_magic_are_refused(tail):
    assert_refused_as_specified(b'ZMQT' + tail)


@given(kinds, st.binary(max_size=400))
@example(wire.CAST, b'\xff' * 400)
def test_arbitrary_bytes_behind_magic_version_and_kind_are_refused(kind, tail):
    assert_refused_as_specified(
        b'ZMQT' + bytes((wire.MAJOR, wire.MINOR, kind)) + tail)


@given(kinds, parts, st.integers(0), st.integers(0, 255))
def test_one_damaged_byte(kind, more, at, value):
    frame = encode(kind, [b'p' * 16] * LEAST[kind] + more)
    assert_refused_as_specified(with_byte(frame, at % len(frame), value))


@pytest.mark.parametrize('kind', sorted(LEAST))
def test_every_truncation_is_malformed(kind):
    frame = encode(kind, [b'first', b'', b'third'])
    for length in range(len(frame)):
        with pytest.raises(wire.Malformed):
            wire.decode(frame[:length])


def test_a_table_of_lengths_that_promises_gigabytes_is_malformed():
    frame = encode(body=[b''] * 255)
    with pytest.raises(wire.Malformed, match='cut short'):
        wire.decode(frame[:LENGTHS_AT] + b'\xff' * 4 * 255)


@pytest.mark.parametrize('at', [EXPIRY_AT, CLIENT_TIMEOUT_AT])
@pytest.mark.parametrize('value', [math.nan, -math.inf, -1.0, -1e-300])
def test_expiry_and_client_timeout_are_durations(at, value):
    with pytest.raises(wire.Malformed, match='duration'):
        wire.decode(with_double(encode(), at, value))


def test_only_expiry_may_be_infinite():
    assert wire.decode(encode(expiry=math.inf)).expiry == math.inf
    with pytest.raises(wire.Malformed, match='duration'):
        wire.decode(encode(client_timeout=math.inf))


@pytest.mark.parametrize('seconds', [1e308, wire.LONGEST_TIMEOUT + 1])
def test_a_client_timeout_of_ages_is_malformed(seconds):
    with pytest.raises(wire.Malformed, match='duration'):
        wire.decode(encode(client_timeout=seconds))
    assert wire.decode(encode(client_timeout=wire.LONGEST_TIMEOUT))


# Versions


@given(st.integers(0, 255).filter(lambda major: major != wire.MAJOR),
       ids, ids, st.binary(max_size=50))
def test_another_major_version_is_refused_by_name(major, instance, message_id,
                                                  tail):
    frame = with_byte(wire.encode(wire.CALL, instance, message_id,
                                  (b'', b'')), MAJOR_AT, major)
    with pytest.raises(wire.WrongVersion, match=f'{major}.0') as raised:
        wire.decode(frame[:FIXED_SIZE] + tail)
    assert isinstance(raised.value, ValueError)
    header = raised.value.header
    assert (header.major, header.instance, header.id) == (
        major, instance, message_id)


def test_another_major_version_may_have_other_kinds():
    frame = with_byte(with_byte(encode(), MAJOR_AT, 7), KIND_AT, 250)
    with pytest.raises(wire.WrongVersion) as raised:
        wire.decode(frame)
    assert raised.value.header.kind == 250


def test_another_major_version_cut_short_is_malformed():
    frame = with_byte(encode(), MAJOR_AT, 7)
    for length in range(FIXED_SIZE):
        with pytest.raises(wire.Malformed):
            wire.decode(frame[:length])


@given(st.integers(0, 255))
def test_any_minor_version_is_only_reported(minor):
    message = wire.decode(with_byte(encode(), MINOR_AT, minor))
    assert message.minor == minor


def test_unknown_flags_are_kept():
    assert wire.decode(encode(flags=0xffff)).flags == 0xffff


def test_parts_that_a_later_minor_version_adds_do_no_harm():
    frame = encode(body=(b'context', b'message', b'new', b'newer'))
    assert wire.decode(frame).body[:2] == [b'context', b'message']
    nack = wire.decode(wire.encode(
        wire.NACK, INSTANCE, ID, (bytes((wire.BUSY,)), b'why', b'new')))
    assert wire.nack_reason(nack) == (wire.BUSY, 'why')
    status = wire.decode(wire.encode(wire.STATUS, INSTANCE, ID,
                                     (ID, b'\2', b'new')))
    assert wire.status_states(status) == [(ID, wire.ACKNOWLEDGED)]


def test_bytes_behind_the_last_part_are_ignored():
    assert wire.decode(encode() + b'more') == wire.decode(encode())


# Envelopes

nonempty = st.binary(min_size=1, max_size=20)


@given(st.lists(nonempty, max_size=5), st.binary(max_size=20),
       st.lists(st.binary(max_size=5), max_size=3))
def test_envelope_ends_with_the_first_empty_frame(routing, frame, later):
    assert wire.split_envelope([*routing, b'', frame, *later]) == (
        [*routing, b''], frame)


@given(st.lists(nonempty, max_size=5), st.booleans())
def test_no_envelope_or_no_message_is_malformed(frames, ends):
    with pytest.raises(wire.Malformed):
        wire.split_envelope([*frames, b''] if ends else frames)


# Ids, refusals and states


@given(st.lists(ids, max_size=20))
def test_ids_round_trip(some):
    assert wire.split_ids(wire.join_ids(some)) == some


def test_too_many_ids_in_a_query_are_malformed():
    def query(count):
        return wire.encode(wire.QUERY, INSTANCE, ID, [bytes(16) * count])
    assert len(wire.decode(query(1000)).body[0]) == 16000
    with pytest.raises(wire.Malformed, match='more than 1000 ids'):
        wire.decode(query(1001))


def test_too_many_ids_in_a_part_are_malformed():
    assert len(wire.split_ids(bytes(16) * 4096)) == 4096
    with pytest.raises(wire.Malformed, match='more than 4096 ids'):
        wire.split_ids(bytes(16) * 4097)


@given(st.binary().filter(lambda part: len(part) % 16))
def test_ids_of_an_odd_length_are_malformed(part):
    with pytest.raises(wire.Malformed):
        wire.split_ids(part)


@given(ids, ids, st.sampled_from(sorted(wire.REASON_NAMES)), st.text())
def test_nack_round_trip(instance, message_id, reason, text):
    message = wire.decode(wire.encode_nack(instance, message_id, reason,
                                           text))
    assert (message.kind, message.instance, message.id) == (
        wire.NACK, instance, message_id)
    assert wire.nack_reason(message) == (reason, text)


def nack(*body):
    return wire.decode(encode(wire.NACK, body))


def test_nack_text_that_is_no_utf_8_is_still_read():
    assert wire.nack_reason(nack(b'\1', b'\xff ok'))[1] == '\ufffd ok'


@pytest.mark.parametrize('reason', [b'', b'\1\2'])
def test_nack_reason_is_one_byte(reason):
    with pytest.raises(wire.Malformed):
        wire.nack_reason(nack(reason, b''))


states = st.sampled_from((wire.UNKNOWN, wire.KNOWN, wire.ACKNOWLEDGED))


@given(ids, st.lists(st.tuples(ids, states), max_size=20))
def test_status_round_trip(instance, known):
    message = wire.decode(wire.encode_status(instance, known))
    assert (message.kind, message.instance) == (wire.STATUS, instance)
    assert wire.status_states(message) == known


@pytest.mark.parametrize('body', [(ID, b''), (ID, b'\0\0'), (ID[1:], b'\0')])
def test_status_has_one_state_for_each_id(body):
    with pytest.raises(wire.Malformed):
        wire.status_states(wire.decode(encode(wire.STATUS, body)))


# The other kinds


requests = st.sampled_from(sorted(wire.REQUESTS))


@given(requests, ids, ids, st.binary(), st.binary(), flags, expiries,
       timeouts, ids)
def test_request_round_trip(kind, instance, message_id, context, body, flag,
                            expiry, timeout, settled):
    message = wire.decode(wire.encode_request(
        kind, instance, message_id, [context, body], flag, expiry, timeout,
        settled))
    assert (message.kind, message.instance, message.id) == (
        kind, instance, message_id)
    assert (message.flags, message.expiry, message.client_timeout) == (
        flag, expiry, timeout)
    assert wire.context_and_message(message) == [context, body]
    assert wire.settled(message) == (
        b'' if kind == wire.CALL else settled)
    assert wire.is_for(message, instance)


@given(st.lists(ids, min_size=1, max_size=20), ids)
def test_a_request_to_several_is_a_fanout_that_lists_them(instances, settled):
    frame = wire.encode_request(
        wire.FANOUT, wire.NO_ID, ID, [b'context', b'message'],
        settled=settled, instances=instances)
    assert wire.address(frame) == (wire.FANOUT, ID, instances)
    message = wire.decode(frame)
    assert all(wire.is_for(message, each) for each in instances)
    assert wire.settled(message) == settled


@given(ids, ids, st.binary(min_size=1), flags)
def test_reply_round_trip(instance, message_id, result, flag):
    message = wire.decode(wire.encode_reply(instance, message_id, [result],
                                            flag))
    assert (message.kind, message.instance, message.id, message.flags) == (
        wire.REPLY, instance, message_id, flag)
    assert wire.has_result(message)
    assert wire.reply_result(message) == result


def test_an_ending_has_no_result():
    message = wire.decode(wire.encode_ending(INSTANCE, ID))
    assert (message.kind, message.id, message.flags) == (
        wire.REPLY, ID, wire.ENDING)
    assert not wire.has_result(message)


def test_a_heartbeat_says_whose_it_is():
    message = wire.decode(wire.encode_heartbeat(INSTANCE, ID))
    assert (message.kind, message.instance, message.id) == (
        wire.HEARTBEAT, INSTANCE, ID)
    assert message.body == []


@given(ids, st.lists(ids, max_size=20))
def test_ack_round_trip(instance, acknowledged):
    message = wire.decode(wire.encode_ack(instance, acknowledged))
    assert (message.kind, message.instance) == (wire.ACK, instance)
    assert wire.acknowledged_ids(message) == acknowledged


@given(ids, st.lists(ids, max_size=20), st.sampled_from((0, wire.OBSERVE)))
def test_query_round_trip(instance, asked, flag):
    message = wire.decode(wire.encode_query(instance, asked, flag))
    assert (message.kind, message.instance, message.flags) == (
        wire.QUERY, instance, flag)
    assert wire.queried_ids(message) == asked


# New ids


def test_new_ids_are_unique_across_threads():
    made, new_id = [], wire.id_maker()
    threads = [threading.Thread(target=lambda: made.extend(
        new_id() for _ in range(5000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(made)) == len(made) == 8 * 5000
    assert {len(each) for each in made} == {wire.ID_SIZE}
    assert wire.NO_ID not in made


def test_ids_tell_their_maker_and_their_order():
    one, other = wire.id_maker(), wire.id_maker()
    ids_of_one = [one() for _ in range(300)]
    assert ids_of_one == sorted(ids_of_one)
    assert {wire.maker(each) for each in ids_of_one} == {ids_of_one[0][:8]}
    assert wire.maker(other()) != wire.maker(one())


# Where a message wants to go, as a receiver reads it


def fanout(instances, message=b'message', **fields):
    return wire.encode(wire.FANOUT, wire.NO_ID, ID,
                       [b'context', message, wire.join_ids(instances)],
                       **fields)


@given(kinds, ids, ids, parts)
def test_address_is_in_the_fixed_part(kind, instance, message_id, more):
    frame = wire.encode(kind, instance, message_id,
                        [b'part'] * LEAST[kind] + more)
    if kind == wire.FANOUT and instance == wire.NO_ID:
        return
    assert wire.address(frame) == (kind, message_id, [instance])
    assert wire.address(memoryview(frame)) == (kind, message_id, [instance])


@given(st.lists(ids, max_size=20), st.binary(max_size=300),
       st.lists(st.binary(max_size=30), max_size=3))
def test_address_of_a_fanout_to_several(instances, message, unknown):
    frame = wire.encode(wire.FANOUT, wire.NO_ID, ID, [
        b'context', message, wire.join_ids(instances), *unknown])
    assert wire.address(memoryview(frame)) == (wire.FANOUT, ID, instances)
    decoded = wire.decode(frame)
    for instance in (*instances, INSTANCE, wire.NO_ID):
        assert wire.is_for(decoded, instance) == (
            instance in instances or instance == wire.NO_ID)


@given(st.lists(ids, min_size=1), st.integers(0, 1000))
def test_a_cut_fanout_goes_nowhere_else(instances, cut):
    frame = fanout(instances)
    try:
        _, _, found = wire.address(frame[:-1 - cut % len(frame)])
    except wire.Malformed:
        return
    assert found == instances[:len(found)]


@given(kinds, ids, ids, st.integers(0, 255).filter(
    lambda major: major != wire.MAJOR), st.binary(max_size=100))
def test_another_version_is_routed_by_its_fixed_part(kind, instance,
                                                     message_id, major, rest):
    frame = wire.encode(kind, instance, message_id, [b''] * LEAST[kind])
    frame = with_byte(frame, MAJOR_AT, major)[:FIXED_SIZE] + rest
    assert wire.address(frame) == (kind, message_id, [instance])


@given(st.binary(max_size=200))
@example(b'')
@example(b'ZMQT')
def test_no_bytes_make_address_fail_in_another_way(noise):
    try:
        kind, message_id, instances = wire.address(memoryview(noise))
    except wire.Malformed:
        return
    assert len(message_id) == 16
    assert all(len(each) == 16 for each in instances)


@given(st.integers(0, 10000), st.integers(0, 255), st.integers(1, 5))
def test_no_byte_makes_the_address_of_a_fanout_fail_in_another_way(
        at, value, count):
    frame = fanout([bytes((n,)) * 16 for n in range(count)])
    damaged = with_byte(frame, at % len(frame), value)
    try:
        _, _, instances = wire.address(damaged)
    except wire.Malformed:
        return
    assert all(len(each) == 16 for each in instances)


def test_only_a_fanout_is_for_the_instances_that_it_lists():
    body = [b'context', b'message', INSTANCE]
    for kind in (wire.CALL, wire.CAST, wire.NOTIFY):
        frame = wire.encode(kind, wire.NO_ID, ID, body)
        assert not wire.is_for(wire.decode(frame), INSTANCE)
        assert wire.address(frame) == (kind, ID, [wire.NO_ID])


def test_a_fanout_for_another_is_not_for_those_that_it_lists():
    frame = wire.encode(wire.FANOUT, b'o' * 16, ID, [b'', b'', INSTANCE])
    assert not wire.is_for(wire.decode(frame), INSTANCE)
    assert wire.address(frame) == (wire.FANOUT, ID, [b'o' * 16])


@given(st.binary(max_size=60))
def test_whatever_a_fanout_lists_it_is_for_somebody_or_malformed(part):
    message = wire.decode(wire.encode(wire.FANOUT, wire.NO_ID, ID,
                                      [b'', b'', part]))
    try:
        wire.is_for(message, INSTANCE)
    except wire.Malformed:
        assert len(part) % 16
