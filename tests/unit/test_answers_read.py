# SPDX-License-Identifier: Apache-2.0
"""What the frames of instances and receivers say. No socket, no registry."""

import pytest

from tests.support import ids
from zmq_threaded import wire
from zmq_threaded.client import answers

INSTANCE = b'i' * 16
ID, OTHER = ids.new_id(), ids.new_id()


def read(kind, message_id=wire.NO_ID, body=(), flags=0, from_receiver=False):
    message = answers.decode(
        [b'', wire.encode(kind, INSTANCE, message_id, body, flags)])
    assert message.instance == INSTANCE
    return answers.read(message, from_receiver)


def test_an_acknowledgement_names_messages():
    answer = read(wire.ACK, body=(ID + OTHER,))
    assert answer == ([ID, OTHER],)
    assert isinstance(answer, answers.Acknowledged)


def test_a_result_is_a_reply():
    answer = read(wire.REPLY, ID, (b'result',), wire.ENDING)
    assert isinstance(answer, answers.Replied)
    assert (answer.message.id, answer.message.body) == (ID, [b'result'])
    assert answer.message.flags & wire.ENDING


def test_an_ending_without_a_result_is_a_sign_of_life():
    answer = read(wire.REPLY, ID, (wire.NO_RESULT,), wire.ENDING)
    assert answer == answers.Alive(ID)
    assert isinstance(answer, answers.Alive)


def test_a_heartbeat_is_a_sign_of_life():
    assert read(wire.HEARTBEAT, ID) == answers.Alive(ID)


def test_a_status_says_the_state_of_each_message():
    states = [(ID, wire.KNOWN), (OTHER, wire.UNKNOWN)]
    message = answers.decode([b'', wire.encode_status(INSTANCE, states)])
    assert answers.read(message, False) == answers.States(states)


@pytest.mark.parametrize('from_receiver', [False, True])
def test_a_refusal_of_a_message_says_why(from_receiver):
    assert read(wire.NACK, ID, (bytes((wire.BUSY,)), b'full'),
                from_receiver=from_receiver) == answers.Refused(
                    ID, wire.BUSY, 'full')


def test_a_receiver_speaks_for_an_instance():
    body = (bytes((wire.GONE,)), b'')
    answer = read(wire.NACK, body=body, from_receiver=True)
    assert answer == answers.InstanceAbsent(wire.GONE)
    with pytest.raises(wire.Malformed):
        read(wire.NACK, body=body)


@pytest.mark.parametrize('kind, body', [
    (wire.ACK, (b'short',)), (wire.STATUS, (ID, b'')),
    (wire.NACK, (b'', b'text'))])
def test_what_does_not_fit_together_is_malformed(kind, body):
    with pytest.raises(wire.Malformed):
        read(kind, ID, body)


@pytest.mark.parametrize('frames', [[], [b''], [b'', b'junk']])
def test_junk_is_malformed(frames):
    with pytest.raises(wire.Malformed):
        answers.decode(frames)


@pytest.mark.parametrize('kind', [wire.CALL, wire.CAST, wire.NOTIFY])
def test_requests_are_not_for_a_client(kind):
    with pytest.raises(wire.Malformed):
        read(kind, ID, (b'{}', b'{}', b''))
