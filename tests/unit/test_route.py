# SPDX-License-Identifier: Apache-2.0
"""What a receiver reads of a multipart."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmq_threaded import wire
from zmq_threaded.receiver import address
from zmq_threaded.receiver import route

INSTANCE, ID = b'i' * 16, b'm' * 16
KINDS = (*sorted(wire.REQUESTS), wire.QUERY)
MAJOR_AT = 4

envelopes = st.lists(st.binary(min_size=1, max_size=20), min_size=1,
                     max_size=4).map(lambda frames: [*frames, b''])
frames_of_any_kind = st.lists(st.binary(max_size=120), max_size=6)


def request(kind=wire.CALL, instance=INSTANCE):
    return wire.encode(kind, instance, ID, (b'context', b'message'))


@pytest.mark.parametrize('kind', KINDS)
@given(envelope=envelopes, more=st.lists(st.binary(max_size=9), max_size=3))
def test_all_frames_go_on_to_the_instance(kind, envelope, more):
    frames = [*envelope, request(kind), *more]
    routed = route.route(frames)
    assert routed.frames is frames
    assert (routed.kind, routed.id, routed.instances) == (kind, ID, [INSTANCE])


@pytest.mark.parametrize('kind', [wire.REPLY, wire.HEARTBEAT, wire.ACK,
                                  wire.NACK, wire.STATUS])
def test_what_a_service_sends_is_not_routed_to_a_service(kind):
    frame = wire.encode(kind, INSTANCE, ID, (b'a', b'b'))
    with pytest.raises(wire.Malformed):
        route.route([b'client', b'', frame])


@pytest.mark.parametrize('frames', [
    [], [b'client'], [b'client', b''], [b''], [b'client', request()],
    [b'client', b'', b''], [b'client', b'', b'', request()]])
def test_no_envelope_or_no_message_is_malformed(frames):
    with pytest.raises(wire.Malformed):
        route.route(frames)


@given(frames_of_any_kind)
def test_no_bytes_make_anything_else(frames):
    try:
        route.route([b'client', *frames])
    except wire.Malformed:
        pass


@given(st.sampled_from(KINDS), st.integers(2, 255), st.binary(max_size=99))
def test_another_major_version_is_routed(kind, major, rest):
    frame = request(kind)
    frame = frame[:MAJOR_AT] + bytes((major,)) + frame[5:50] + rest
    assert route.route([b'client', b'', frame]).instances == [INSTANCE]


def test_a_fanout_is_routed_to_all_that_it_lists():
    ids = [bytes((number,)) * 16 for number in range(1, 6)]
    frame = wire.encode(wire.FANOUT, wire.NO_ID, ID,
                        (b'', b'', wire.join_ids(ids)))
    assert route.route([b'client', b'', frame]).instances == ids


def test_a_fanout_goes_once_to_each_however_often_it_is_listed():
    one, other = b'a' * 16, b'b' * 16
    frame = wire.encode(wire.FANOUT, wire.NO_ID, ID, (
        b'', b'', wire.join_ids([one, other, one] * 1000)))
    assert route.route([b'client', b'', frame]).instances == [one, other]


def test_a_fanout_to_more_than_a_node_has_is_malformed():
    frame = wire.encode(wire.FANOUT, wire.NO_ID, ID, (
        b'', b'', wire.join_ids([INSTANCE] * 4097)))
    with pytest.raises(wire.Malformed, match='more services'):
        route.route([b'client', b'', frame])


@given(envelopes)
def test_a_refusal_goes_back_by_the_envelope_and_names_its_instance(envelope):
    routed = route.route([*envelope, request(), b'more'])
    *back, frame = route.refusal(routed, INSTANCE, wire.GONE)
    assert back == envelope
    message = wire.decode(frame)
    assert (message.kind, message.instance, message.id) == (
        wire.NACK, INSTANCE, ID)
    assert wire.nack_reason(message) == (wire.GONE, '')


def test_each_instance_of_a_fanout_is_refused_by_itself():
    ids = [b'a' * 16, b'b' * 16]
    routed = route.route([b'client', b'', wire.encode(
        wire.FANOUT, wire.NO_ID, ID, (b'', b'', wire.join_ids(ids)))])
    refused = [wire.decode(route.refusal(routed, each, wire.GONE)[-1]).instance
               for each in ids]
    assert refused == ids


@pytest.mark.parametrize('frames, is_answer', [
    ([b'client', b'', b'message'], True), ([b'c', b'r', b'', b'm'], True),
    ([b'', b'message'], False), ([b'client', b''], False),
    ([b'client', b'message'], False), ([], False), ([b''], False)])
def test_an_answer_has_a_client(frames, is_answer):
    assert route.is_answer(frames) is is_answer


@given(st.binary(min_size=16, max_size=16))
def test_no_id_leads_out_of_the_directory(instance):
    path = address.service_path('/directory', instance)
    assert os.path.dirname(os.path.normpath(path)) == '/directory'
    assert os.path.basename(path) == f'{instance.hex()}.sock'
