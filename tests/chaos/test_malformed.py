# SPDX-License-Identifier: Apache-2.0
"""Nothing that a peer sends may stop a service or change what it does."""

import math
import os

import hypothesis
import pytest
import zmq
from hypothesis import strategies as st

from tests.support import ids
from tests.support import soaks
from tests.support import waiting
from zmq_threaded import payload
from zmq_threaded import sockets
from zmq_threaded import topic
from zmq_threaded import wire
from zmq_threaded.service import executors

# Multiparts in each example of hypothesis.
_BURST = 100

_ids = st.binary(min_size=16, max_size=16)


@pytest.fixture
def service(node):
    """A service that answers with what it was sent, and a raw peer of it."""
    parts = node.runtime()
    listening = parts.service([topic.rpc('exchange', 'fuzzed')])
    executor = executors.load('threading', max_workers=2)
    listening.start(executors.submitting(executor, lambda ctxt, msg: msg))
    listening.counters = parts.counters
    context = zmq.Context()
    listening.peer = sockets.Sockets(context, node.settings()).dealer(
        listening.instance.endpoints[0])
    assert listening.peer.poll(20000, zmq.POLLOUT)
    yield listening
    listening.peer.close()
    context.term()
    executor.shutdown()
    listening.cleanup()
    parts.forget(listening)


def _almost(instance):
    """Messages that are nearly right."""
    body, _ = payload.dump(({}, {'n': 1}), 'json')
    good = wire.encode(wire.CAST, instance, ids.new_id(), body)
    return st.one_of(
        st.builds(lambda at, byte: good[:at] + bytes((byte,)) + good[at + 1:],
                  st.integers(0, len(good)), st.integers(0, 255)),
        st.builds(lambda at: good[:at], st.integers(0, len(good))),
        st.builds(
            wire.encode, st.integers(0, 255), st.just(instance) | _ids, _ids,
            st.lists(st.binary(max_size=40), max_size=4),
            st.integers(0, 65535),
            st.floats(allow_nan=True) | st.just(math.inf),
            st.floats(allow_nan=True)))


def _multiparts(instance):
    frame = st.one_of(st.binary(max_size=80), _almost(instance))
    return st.one_of(
        st.lists(frame, min_size=1, max_size=5),
        st.builds(lambda each: [b'', each], _almost(instance)),
        st.builds(lambda each, more: [b'', each, *more], _almost(instance),
                  st.lists(st.binary(max_size=10), max_size=3)))


def _serves(service, number):
    """The next good call is answered."""
    body, _ = payload.dump(({}, {'n': number}), 'json')
    # No id of which a mutated message may have become a copy.
    call = os.urandom(wire.ID_SIZE)
    service.peer.send_multipart([b'', wire.encode(
        wire.CALL, service.instance.id, call, body)])
    while service.peer.poll(30000):
        # An envelope comes back as it went, with whatever was in it.
        _, frame = wire.split_envelope(service.peer.recv_multipart())
        message = wire.decode(frame)
        if message.id == call:
            assert message.kind == wire.REPLY
            assert payload.load(message.body[0], 0) == {'n': number}
            return
    raise AssertionError('the service no longer answers')


@pytest.mark.parametrize('examples', soaks.sizes(200, 1000))
def test_the_next_good_call_is_served_after_any_multiparts(service, examples):
    sent = 0

    @hypothesis.settings(max_examples=examples, deadline=None, database=None,
                         suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(st.lists(_multiparts(service.instance.id), min_size=1,
                               max_size=8), st.randoms(use_true_random=False))
    def burst(multiparts, rng):
        nonlocal sent
        for _ in range(_BURST):
            service.peer.send_multipart(_mutated(rng.choice(multiparts), rng))
            sent += 1
        _serves(service, sent)

    burst()
    assert sent >= examples * _BURST
    counts = service.counters.snapshot()
    print(counts)
    assert counts['malformed'] + counts['wrong_version'] > sent / 10, counts
    assert 'loop_errors' not in counts


def _mutated(frames, rng):
    """Now and then one more random byte, so that no two bursts are alike."""
    at = rng.randrange(len(frames))
    frame = frames[at]
    if frame and rng.random() < 0.5:
        place = rng.randrange(len(frame))
        frame = (frame[:place] + bytes((rng.randrange(256),))
                 + frame[place + 1:])
    return [*frames[:at], frame, *frames[at + 1:]]


@pytest.mark.parametrize('noise', [
    b'GET / HTTP/1.1\r\n\r\n', b'\xff' * 64, b'\x00' * 9, b''])
def test_peers_that_do_not_speak_zeromq_are_survived(service, noise):
    import socket
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(service.instance.endpoints[0][6:])
            stranger.sendall(noise)
    _serves(service, 1)


def test_another_major_version_is_refused_by_name(service):
    good = wire.encode(wire.CALL, service.instance.id, ids.new_id(),
                       payload.dump(({}, {}), 'json')[0])
    service.peer.send_multipart([b'', good[:4] + b'\x09' + good[5:]])
    assert service.peer.poll(20000)
    refusal = wire.decode(service.peer.recv_multipart()[1])
    reason, text = wire.nack_reason(refusal)
    assert reason == wire.VERSION
    assert '9.' in text and f'{wire.MAJOR}.{wire.MINOR}' in text


def test_a_message_for_another_instance_is_refused(service):
    service.peer.send_multipart([b'', wire.encode(
        wire.CAST, os.urandom(16), ids.new_id(),
        payload.dump(({}, {}), 'json')[0])])
    assert service.peer.poll(20000)
    refusal = wire.decode(service.peer.recv_multipart()[1])
    assert wire.nack_reason(refusal)[0] == wire.GONE


def test_no_payload_is_logged(service, caplog):
    secret = 'correct horse battery staple'
    body = [b'{}', f'["{secret}"]'.encode()]
    service.peer.send_multipart([b'', wire.encode(
        wire.CAST, service.instance.id, ids.new_id(), body)])
    waiting.until(lambda: service.counters.snapshot().get('malformed'))
    # The thread zmq-log writes it a moment later.
    waiting.until(lambda: caplog.text)
    assert secret not in caplog.text
