# SPDX-License-Identifier: Apache-2.0
"""Records of the registry, into which anybody may have written anything."""

import contextlib
import itertools
import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from tooz import utils as tooz_utils

from zmq_threaded.registry import record

ID = bytes(range(16))
GOOD = {'id': ID, 'endpoints': ['tcp://127.0.0.1:1']}
INSTANCE = record.Instance(ID, ('tcp://127.0.0.1:1',))


def instances(*fields):
    return msgpack.packb({'instances': list(fields)})


def test_what_is_encoded_is_decoded():
    instance = record.Instance(ID, ('ipc:///a/b.sock', 'tcp://[::1]:5'),
                               'pööl', True, True, 'host', 'server')
    packed = tooz_utils.dumps(record.encode([instance]))
    assert record.sift(packed) == ([instance], [])


def test_unknown_fields_are_those_of_a_later_release():
    packed = instances({**GOOD, 'later': [1, {}], 'receiver': 1})
    assert record.sift(packed)[0][0].receiver is True


MALFORMED = {
    'endless list': tooz_utils.dumps({'instances': itertools.count(0)}),
    'nested': b'\x91' * 100_000 + b'\xc0', 'nothing': b'', 'none': b'\xc0',
    'no msgpack': b'\xc1', 'list': b'\x90', 'more behind': b'\x80\x80',
    'text': instances()[:-1] + b'\xa1x',
    'many': msgpack.packb({'instances': 100_000 * [1]}),
    'long': instances({**GOOD, 'pool': 10_000_000 * 'x'}),
    'no text': b'\x81\xa9instances\x91\x81\xa2id\xa1\xff',
    'number as key': b'\x81\x01\x90'}


@pytest.mark.parametrize('what', MALFORMED)
def test_record_that_is_of_no_use_says_why(what):
    with pytest.raises(record.Malformed, match='it '):
        record.sift(MALFORMED[what])


BAD = {
    'no fields': 'x', 'none': None, 'no id': {'endpoints': ['ipc:///x']},
    'short id': {**GOOD, 'id': b'x'}, 'id of text': {**GOOD, 'id': 16 * 'x'},
    'no endpoint': {**GOOD, 'endpoints': []},
    'many endpoints': {**GOOD, 'endpoints': 17 * GOOD['endpoints']},
    'endpoints of text': {**GOOD, 'endpoints': 'tcp://h:1'},
    'pool of a number': {**GOOD, 'pool': 5},
    'pool of a dict': {**GOOD, 'pool': {'a': 1}},
    'long server': {**GOOD, 'server': 5000 * 'x'},
    'host of bytes': {**GOOD, 'host': b'h'}}


@pytest.mark.parametrize('what', BAD)
def test_instance_that_is_of_no_use_does_not_hide_another(what):
    good, bad = record.sift(instances(BAD[what], GOOD))
    assert good == [INSTANCE]
    assert len(bad) == 1 and str(bad[0])


def test_endless_iterator_is_not_made():
    packed = tooz_utils.dumps({'instances': [
        {**GOOD, 'endpoints': itertools.count(0)}]})
    assert record.sift(packed)[0] == []


@pytest.mark.parametrize('endpoint', [
    'ipc:///run/x.sock', 'ipc:///run/ünï code.sock', 'tcp://node-1:1',
    'tcp://node-17.example.org:65535', 'tcp://10.0.0.1:9501',
    'tcp://[::1]:5', 'tcp://[fe80::1%eth0]:5', 'tcp://under_score:5'])
def test_usable_endpoint(endpoint):
    assert record.problem_of(endpoint) == ''


@pytest.mark.parametrize('endpoint', [
    '', 'x', 5, None, b'ipc:///x', 'inproc://x', 'udp://127.0.0.1:5',
    'pgm://eth0;239.0.0.1:5', 'ws://h:1', 'ipc://', 'ipc://@abstract',
    'ipc://relative', 'ipc:///a\0b', 'ipc:///' + 107 * 'x', 'ipc:///a\nb',
    'tcp://', 'tcp://h', 'tcp://h:', 'tcp://:5', 'tcp://*:5', 'tcp://*:*',
    'tcp://h:0', 'tcp://h:65536', 'tcp://h:²', 'tcp://h:-1', 'tcp://h:1;x',
    'tcp://8.8.8.8:0;127.0.0.1:9', 'tcp://a;b:9', 'tcp://0.0.0.0:5',
    'tcp://[::]:5', 'tcp://[x]:5', 'tcp://::1:5', 'tcp://h o:5',
    'tcp://h/x:5', 'tcp://u@h:5', 'tcp://' + 300 * 'x' + ':5'])
def test_useless_endpoint_is_refused_and_costs_no_other(endpoint):
    assert record.problem_of(endpoint)
    good, _ = record.sift({'instances': [
        {'id': ID, 'endpoints': [endpoint, 'tcp://127.0.0.1:1']}]})
    assert good == [INSTANCE]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2**63, 2**64 - 1) | st.floats()
    | st.text() | st.binary() | st.sampled_from([
        ID, 'instances', 'ipc:///x', 'tcp://h:1']),
    lambda each: st.lists(each) | st.dictionaries(
        st.sampled_from(['instances', 'id', 'endpoints', 'pool', 'x']), each),
    max_leaves=20)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.fixed_dictionaries(
    {}, optional={'id': ANYTHING | st.just(ID), 'endpoints': ANYTHING,
                  'pool': ANYTHING, 'host': ANYTHING, 'replies': ANYTHING})
    | ANYTHING))
def test_nearly_right_records_give_instances_or_reasons(listed):
    good, bad = record.sift(msgpack.packb({'instances': [*listed, GOOD]}))
    assert INSTANCE in good
    assert len(good) + len(bad) == len(listed) + 1
    assert all(not map(record.problem_of, each.endpoints) or each.id
               for each in good)


@settings(max_examples=300, deadline=None)
@given(st.binary() | ANYTHING.map(msgpack.packb))
def test_any_bytes_give_instances_or_malformed(raw):
    try:
        good, _ = record.sift(raw)
    except record.Malformed:
        return
    assert all(isinstance(each, record.Instance) for each in good)


def test_a_record_cannot_take_much_memory():
    worst = record.LONGEST // 2 * b'\x91' + b'\x90'
    many = msgpack.packb({'instances': [[[]] * 250] * 900})[:record.LONGEST]
    tracemalloc.start()
    try:
        for raw in (worst, many):
            with contextlib.suppress(record.Malformed):
                assert record.sift(raw)[0] == []
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


# Keys

KEY = b'Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID'


def test_key_of_a_port_comes_through():
    instance = record.Instance(bytes(16), ('tcp://h:1',), key=KEY)
    assert record.decode(record.encode([instance])) == [instance]


def test_open_port_has_no_key_in_its_record():
    instance = record.Instance(bytes(16), ('tcp://h:1',))
    assert 'key' not in record.encode([instance])['instances'][0]


@pytest.mark.parametrize('key', [
    KEY[:-1], KEY + b'0', KEY.decode(), 0, None, False, b' ' * 40,
    b'"' * 40, [KEY], {}, b'0' * 32])
def test_key_that_cannot_be_read_is_never_an_open_port(key):
    raw = record.encode([record.Instance(bytes(16), ('tcp://h:1',))])
    raw['instances'][0]['key'] = key
    good, bad = record.sift(raw)
    assert good == [] and 'public key' in str(bad[0])
