# SPDX-License-Identifier: Apache-2.0
"""What any earlier version wrote is understood by this one."""

import json

import pytest
from oslo_messaging._drivers import common

from tests.recordings import samples
from zmq_threaded import payload
from zmq_threaded import wire
from zmq_threaded.receiver import route
from zmq_threaded.registry import record

RECORDED = {path.parent.name: json.loads(path.read_text('utf-8'))
            for path in samples.HERE.glob('*/recordings.json')}
ALL = [(version, name) for version, recorded in sorted(RECORDED.items())
       for name in recorded['messages']]
OF_THIS_VERSION = [(version, name) for version, name in ALL
                   if version == samples.VERSION]
each_message = pytest.mark.parametrize('version, name', ALL)


def recording(version, name):
    found = RECORDED[version]['messages'][name]
    return bytes.fromhex(found['frame']), found['fields'], found['means']


def readable(version):
    return int(version.partition('.')[0]) == wire.MAJOR


def as_fields(message):
    return {'major': message.major, 'minor': message.minor,
            'kind': message.kind, 'flags': message.flags,
            'expiry': repr(message.expiry),
            'instance': message.instance.hex(), 'id': message.id.hex(),
            'client_timeout': message.client_timeout,
            'body': [part.hex() for part in message.body]}


def test_every_kind_and_every_refusal_is_recorded_by_this_version():
    decoded = [wire.decode(recording(*each)[0]) for each in OF_THIS_VERSION]
    assert {message.kind for message in decoded} == wire.KIND_NAMES.keys()
    assert {wire.nack_reason(message)[0] for message in decoded
            if message.kind == wire.NACK} == wire.REASON_NAMES.keys()
    requests = [message for message in decoded
                if message.kind in wire.REQUESTS | {wire.REPLY}]
    assert ({(message.kind, message.flags & wire.MSGPACK)
             for message in requests} == {
        (kind, flag) for kind in wire.REQUESTS | {wire.REPLY}
        for flag in (0, wire.MSGPACK)})


def test_version_one_zero_stays_recorded():
    assert len(RECORDED['1.0']['messages']) >= 36


@each_message
def test_recording_is_decoded(version, name):
    frame, fields, _ = recording(version, name)
    if readable(version):
        assert as_fields(wire.decode(frame)) == fields
    else:
        with pytest.raises(wire.WrongVersion, match=version) as refused:
            wire.decode(frame)
        assert samples.VERSION in str(refused.value)


@each_message
def test_recording_means_what_it_meant(version, name):
    if readable(version):
        frame, _, means = recording(version, name)
        assert meaning(wire.decode(frame)) == means


def meaning(message):
    readers = {wire.REPLY: _of_reply, wire.HEARTBEAT: lambda _: {},
               wire.ACK: _of_ids, wire.QUERY: _of_ids,
               wire.NACK: lambda nack: {'reason': list(
                   wire.nack_reason(nack))},
               wire.STATUS: lambda status: {'states': [
                   [each.hex(), state]
                   for each, state in wire.status_states(status)]}}
    return readers.get(message.kind, _of_request)(message)


def _of_request(message):
    context, body = (payload.load(part, message.flags)
                     for part in wire.context_and_message(message))
    return {'context': context, 'message': body,
            'settled': wire.settled(message).hex(),
            'instances': [each.hex() for each in (samples.INSTANCE,
                                                  samples.OTHER)
                          if wire.is_for(message, each)]}


def _of_reply(message):
    if not wire.has_result(message):
        return {'ending': bool(message.flags & wire.ENDING)}
    if not message.flags & wire.FAILURE:
        return {'result': payload.load(wire.reply_result(message),
                                       message.flags)}
    failure = common.deserialize_remote_exception(
        wire.reply_result(message).decode(), ['builtins'])
    return {'failure': failure.args[0].partition('\n')[0]}


def _of_ids(message):
    ids = (wire.acknowledged_ids if message.kind == wire.ACK
           else wire.queried_ids)
    return {'ids': [each.hex() for each in ids(message)]}


@each_message
def test_receiver_sends_a_recording_where_it_belongs(version, name):
    frame, fields, means = recording(version, name)
    kind, message_id, instances = wire.address(memoryview(frame))
    assert (kind, message_id.hex()) == (fields['kind'], fields['id'])
    assert [each.hex() for each in instances] == means.get(
        'instances', [fields['instance']])


@each_message
def test_receiver_passes_on_requests_and_nothing_else(version, name):
    frame, fields, _ = recording(version, name)
    frames = [b'client', b'\0\0\0\1', b'', frame]
    if fields['kind'] in wire.REQUESTS | {wire.QUERY}:
        assert route.route(frames).id.hex() == fields['id']
    else:
        assert route.is_answer(frames)


@pytest.mark.parametrize('version, name', OF_THIS_VERSION)
def test_recording_of_this_version_is_written_again_byte_for_byte(version,
                                                                  name):
    frame, _, _ = recording(version, name)
    message = wire.decode(frame)
    assert wire.encode(message.kind, message.instance, message.id,
                       message.body, message.flags, message.expiry,
                       message.client_timeout) == frame


def test_what_is_written_changes_only_with_the_version():
    now = json.loads(json.dumps(samples.messages()))
    assert now == RECORDED[samples.VERSION]['messages']


# Records of the registry


@pytest.mark.parametrize('version, name', [
    (version, name) for version, recorded in sorted(RECORDED.items())
    for name in recorded['records']])
def test_record_is_read(version, name):
    found = RECORDED[version]['records'][name]
    fields = {**found['record'], 'id': bytes.fromhex(found['record']['id'])}
    instance, = record.decode({'instances': [fields]})
    assert (instance.id.hex(), list(instance.endpoints), instance.pool,
            instance.receiver, instance.two_messages) == tuple(
        found['fields'][each] for each in (
            'id', 'endpoints', 'pool', 'receiver', 'two_messages'))


def test_record_of_a_later_version_is_read():
    known = {'id': samples.INSTANCE, 'endpoints': ['ipc:///path']}
    later = {**known, 'replies': 1, 'minor': 3, 'weight': [1, {'a': 2}]}
    assert (record.decode({'instances': [later], 'format': 2})
            == record.decode({'instances': [known]}))


def test_records_are_written_as_recorded():
    assert json.loads(json.dumps(samples.records())) == RECORDED[
        samples.VERSION]['records']


# What later versions may send


@pytest.mark.parametrize('part', [samples.SETTLED, b'traceparent-0001'])
def test_unknown_third_part_of_a_call_settles_nothing(part):
    frame = wire.encode(wire.CALL, samples.INSTANCE, samples.IDS[0],
                        [b'{}', b'{}', part])
    assert wire.settled(wire.decode(frame)) == b''


LATER = [(wire.MAJOR, 11), (wire.MAJOR + 1, 11), (wire.MAJOR + 1, wire.ACK)]


@pytest.mark.parametrize('major, kind', LATER)
def test_receiver_passes_on_what_it_does_not_know_for_the_service_to_refuse(
        major, kind):
    frame = bytearray(recording(*OF_THIS_VERSION[0])[0])
    frame[4], frame[6] = major, kind
    request = route.route([b'client', b'', bytes(frame)])
    assert request.instances == [samples.INSTANCE]


# The command


def test_command_writes_what_it_says(tmp_path):
    written = json.loads(samples.write(tmp_path, '9').read_text('utf-8'))
    assert written['written_by'] == {'protocol': samples.VERSION,
                                     'package': '9'}
    assert written['messages'].keys() == samples.messages().keys()


def test_command_never_changes_a_recording(tmp_path):
    path = samples.write(tmp_path, '9')
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        samples.write(tmp_path, '10')
    assert path.read_bytes() == before
