# SPDX-License-Identifier: Apache-2.0
"""What is named as wrong with a cloud, and what is not."""

import json
import time

import pytest

from zmq_threaded.cli import details
from zmq_threaded.cli import overview
from zmq_threaded.cli import rates
from zmq_threaded.registry import record
from zmq_threaded.registry import shared_facts
from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import facts
from zmq_threaded.status import probe
from zmq_threaded.status import problems
from zmq_threaded.status import processes

ID = bytes(range(16))
NOW = 1_000_000.0


def service(**fields):
    return {'id': ID.hex(), 'kind': 'rpc', 'topics': [['ex', 'compute']],
            'server': 'n1', 'listed': True, 'up': 100.0, 'workers': 8,
            'busy': 0, **fields}


def document(identity='a', process=(), **fields):
    return {'format': 1, 'kind': 'runtime', 'id': identity, 'seq': 5,
            'every': 10.0, 'at': NOW - 4, 'server_at': NOW - 4,
            'process': {'name': 'nova', 'pid': 7, 'host': 'node-1',
                        'version': '1', 'protocol': '1.0',
                        'encryption': 'none', 'up': 100.0, **dict(process)},
            'registry': {'answers': True}, **fields}


def cloud_of(*documents, listed=None, expired=(), now=NOW, host='node-1'):
    """As the registry has it, with the one service that documents tell of."""
    instance = record.Instance(ID, ('tcp://node-1:9501',), host=host,
                               server='n1')
    records = {'rpc:ex:compute': {b'm': record.encode([instance])},
               'rpc:ex:compute:n1': {b'm': record.encode([instance])}}
    return clouds.put_together('redis', [], shared_facts.Everything(
        {str(number).encode(): json.dumps(each).encode()
         for number, each in enumerate(documents)},
        records if listed is None else listed,
        frozenset(map(bytes, expired)), now))


def kinds(cloud, outcomes=None):
    return [each.kind for each in problems.of(cloud, outcomes)]


def test_nothing_is_wrong():
    assert kinds(cloud_of(document(services=[service()]))) == []


def test_a_cloud_without_anybody_is_not_well():
    assert kinds(clouds.Cloud('redis')) == ['nobody']


def test_a_record_without_facts_is_of_an_older_release():
    cloud = cloud_of(document())
    found, = problems.of(cloud)
    assert found.kind == 'older_release' and 'compute.n1' in found.text
    row, = overview.topics(cloud)
    assert row['servers'] == 1 and row['topic'] == 'compute'
    assert overview.nodes(cloud)[0]['version'] == ['1', 'older']


def test_a_process_that_left_services_out_is_not_taken_for_older():
    cloud = cloud_of(document(left_out={'services': 3}))
    assert kinds(cloud) == []
    assert overview.nodes(cloud)[0]['version'] == ['1']
    row, = details.instances(cloud, details.Chosen())
    assert (row['server'], row['version']) == ('n1', '')


def test_services_that_a_process_left_out_are_counted():
    others = [record.Instance(bytes([number]) * 16, ('tcp://node-1:9501',),
                              host='node-1', server=f'n{number}')
              for number in range(2, 5)]
    own = record.Instance(ID, ('tcp://node-1:9501',), host='node-1')
    cloud = cloud_of(
        document(services=[service()], left_out={'services': 3}),
        listed={'rpc:ex:compute': {b'm': record.encode([own, *others])}})
    assert overview.topics(cloud)[0]['servers'] == 4
    assert overview.nodes(cloud)[0]['services'] == 4
    assert len(details.instances(cloud, details.Chosen())) == 4


def test_who_is_late_is_named_by_the_clock_of_the_registry():
    late = document(services=[service(busy=3)], server_at=NOW - 60,
                    at=NOW - 60)
    found, = problems.of(cloud_of(late))
    assert found.kind == 'silent'
    assert 'has said nothing for 60 s' in found.text
    assert '3 busy workers' in found.text


def test_a_node_of_which_nothing_is_heard_is_named_once():
    silent = {'server_at': NOW - 60, 'at': NOW - 60}
    cloud = cloud_of(*(
        document(name, services=[service()], process={'host': 'node-2'},
                 **silent) for name in 'abc'), document('d'), listed={})
    found, = problems.of(cloud)
    assert found.kind == 'node_silent' and found.subject == 'node-2'
    assert '3 processes' in found.text and 'compute.n1' in found.text


def test_a_wrong_clock_is_no_hang():
    wrong = document('b', at=NOW - 3600, services=[service()],
                     process={'host': 'node-2'})
    found, = problems.of(cloud_of(document(), wrong, document('c')))
    assert found.kind == 'clock' and found.subject == 'node-2'
    assert '3596 s behind' in found.text


def test_the_clock_of_the_registry_may_be_the_wrong_one():
    cloud = cloud_of(*(document(name, at=NOW + 996, services=[service()])
                       for name in 'abc'))
    found, = problems.of(cloud)
    assert found.kind == 'clock' and 'The clock of the registry' in found.text
    assert '1000 s behind' in found.text


def test_an_age_by_two_clocks_is_not_believed():
    unsure = document(server_at=None, at=time.time() - 10_000,
                      services=[service()])
    cloud = cloud_of(unsure, now=None)
    assert kinds(cloud) == []
    cloud.processes[0].is_sure = True
    assert kinds(cloud) == ['silent']


@pytest.mark.parametrize('field, values', [
    ('protocol', ('1.0', '2.0')), ('encryption', ('none', 'curve'))])
def test_what_differs_between_nodes_is_named(field, values):
    cloud = cloud_of(*(
        document(value, {field: value, 'host': f'node-{value}'},
                 services=[service()] if value == values[0] else [])
        for value in values))
    found, = problems.of(cloud)
    assert found.kind == f'different_{field}'
    assert all(f'{value} on node-{value}' in found.text for value in values)


def _with_modes(*modes):
    found, = problems.of(cloud_of(*(
        document(mode, {'encryption': mode, 'host': f'node-{mode}'},
                 services=[service()] if mode == modes[0] else [])
        for mode in modes)))
    return found


@pytest.mark.parametrize('modes', [
    ('disabled', 'connect'), ('connect', 'serve'), ('serve', 'required')])
def test_neighbouring_modes_of_encryption_are_as_they_should_be(modes):
    found = _with_modes(*modes)
    assert 'it is as it should be' in found.remedy
    assert 'use the TCP ports' not in found.text


@pytest.mark.parametrize('modes, harm, remedy', [
    (('disabled', 'required'),
     ['processes with disabled cannot use the TCP ports of those with '
      'required', 'processes with required do not use the TCP ports of those '
      'with disabled'], 'serve and the keys for the processes that have '
     'disabled'),
    (('disabled', 'serve'), ['with disabled cannot'],
     'connect and the keys for the processes that have disabled'),
    (('connect', 'required'), ['with required do not'],
     'serve and the keys for the processes that have connect'),
    (('disabled', 'connect', 'serve'), ['with disabled cannot'],
     'connect and the keys for the processes that have disabled'),
    (('disabled', 'connect', 'serve', 'required'),
     ['those with serve or required', 'those with disabled or connect'],
     'serve and the keys for the processes that have disabled or connect')])
def test_modes_of_encryption_that_cannot_talk_are_wrong(modes, harm, remedy):
    found = _with_modes(*modes)
    assert found.kind == 'different_encryption'
    assert all(each in found.text for each in harm)
    assert found.text.count('use the TCP ports') == (
        2 if len(harm) == 2 else 1)
    assert f'rpc_zmq_encryption = {remedy}, and restart' in found.remedy
    assert 'as it should be' not in found.remedy


def test_a_dead_process_is_named_by_what_is_lost():
    dead = document(services=[service()], unacknowledged=3)
    found, = problems.of(cloud_of(dead, expired=[b'0', b'm']))
    assert found.kind == 'silent' and 'compute.n1' in found.text
    assert '3 messages' in found.text
    # One that serves the same took its place.
    replaced = document('b', services=[service(id='0' * 32)])
    dead = document(services=[service()])
    assert kinds(cloud_of(dead, replaced, expired=[b'0', b'm'],
                          listed={})) == ['unlisted']


@pytest.mark.parametrize('listed, is_named', [(None, True), ({}, False)])
def test_a_process_that_ended_right_after_its_registration_is_named(
        listed, is_named):
    cloud = cloud_of(document(services=[service(listed=False)]), document('b'),
                     listed=listed)
    cloud.processes[0].state = processes.GONE
    assert ('died' in kinds(cloud)) == is_named


def test_a_receiver_is_named_once_and_not_what_is_behind_it():
    behind = document(services=[service()], receiver={
        'expected': True, 'there': False, 'endpoint': 'tcp://node-1:9501'},
        findings=[{'kind': 'unreachable', 'subject': 'x', 'text': 'y'}])
    outcomes = {ID: probe.Outcome(probe.UNREACHABLE, why='refused')}
    found, = problems.of(cloud_of(behind), outcomes)
    assert found.kind == 'receiver_down' and found.host == 'node-1'


def test_findings_of_many_processes_are_named_once():
    finding = {'kind': 'wrong_name', 'subject': 'node-1', 'since': 5.0,
               'text': 'the name leads nowhere', 'remedy': 'mend it'}
    cloud = cloud_of(document(services=[service()], findings=[finding]),
                     document('b', findings=[finding]))
    found, = problems.of(cloud)
    assert found.kind == 'wrong_name' and found.remedy == 'mend it'
    assert '1 other processes' in found.text


@pytest.mark.parametrize('outcome, is_full, is_named', [
    (probe.Outcome(probe.ANSWERED, 0.1), False, False),
    (probe.Outcome(probe.SILENT, why='no answer'), False, True),
    (probe.Outcome(probe.SILENT, why='no answer'), True, False),
    (probe.Outcome(probe.ABSENT, why='gone'), True, True),
    (probe.Outcome(probe.UNREACHABLE, why='refused'), False, True)])
def test_who_does_not_answer_is_named(outcome, is_full, is_named):
    cloud = cloud_of(document(services=[service(full=is_full)]))
    found = problems.of(cloud, {ID: outcome})
    assert [each.kind for each in found] == ['no_answer'] * is_named
    assert all('tcp://node-1:9501' in each.text for each in found)


def test_workers_that_are_stuck_are_named():
    stuck = service(busy=8, longest=100.0, oldest=90.0, backlog=5)
    assert kinds(cloud_of(document(services=[stuck]))) == ['stuck_workers']
    # Its process says so better, of this service alone.
    said = {'kind': 'stuck_workers', 'text': 't',
            'subject': f'n1 on node-1 (instance {ID.hex()}) of ex.compute'}
    found, = problems.of(cloud_of(document(services=[stuck],
                                           findings=[said])))
    assert found.kind == 'stuck_workers' and found.text.startswith('t;')
    other = service(**{**stuck, 'id': '0' * 32, 'server': 'n2',
                       'listed': False})
    first, second = problems.of(cloud_of(document(services=[stuck, other],
                                                  findings=[said])))
    assert first.kind == second.kind == 'stuck_workers'
    assert 'compute.n2' in second.text
    one_is_free = service(busy=7, longest=100.0, oldest=90.0)
    assert kinds(cloud_of(document(services=[one_is_free]))) == []


@pytest.mark.parametrize('seconds, limit, is_named', [
    (50.0, 30.0, True), (90.0, 120.0, False), (50.0, None, False),
    (90.0, None, True)])
def test_workers_are_stuck_after_the_limit_of_their_process(
        seconds, limit, is_named):
    told = {} if limit is None else {'stuck_after': limit}
    stuck = service(busy=8, longest=seconds, oldest=seconds, backlog=5)
    cloud = cloud_of(document(services=[stuck], **told))
    assert kinds(cloud) == ['stuck_workers'] * is_named


def test_messages_that_wait_are_named_by_destination():
    pending = {'exchange': 'ex', 'topic': 'volume', 'server': 'n3',
               'count': 6, 'oldest': 36.0, 'where': 'waiting'}
    cloud = cloud_of(document(services=[service()], pending=[pending]),
                     document('b', {'pid': 8}, pending=[pending]))
    found, = problems.of(cloud)
    assert found.kind == 'no_listener' and found.subject == 'volume.n3'
    assert '12 messages have waited for up to 40 s' in found.text
    rows = overview.senders(cloud)
    assert [row['count'] for row in rows] == [6, 6]
    # By now it is perhaps acknowledged.
    young = document(services=[service()], server_at=NOW - 13, at=NOW - 13,
                     pending=[{**pending, 'oldest': 0.1}])
    assert kinds(cloud_of(young)) == []


def test_a_registry_that_does_not_answer_hides_no_other_problem():
    stopped = document(services=[service()])
    cloud = clouds.put_together('redis', [facts.decode(
        json.dumps(stopped).encode())], shared_facts.Everything())
    cloud.trouble = 'no answer'
    cloud.processes[0].state = processes.STOPPED
    cloud.processes[0].is_sure = True
    assert kinds(cloud) == ['registry', 'stopped']


def test_hostile_records_and_facts_hide_nothing():
    good = document(services=[service()])
    cloud = clouds.put_together('redis', [], shared_facts.Everything(
        {b'1': b'nonsense', b'2': json.dumps(good).encode(),
         b'3': json.dumps(document('c', services=[
             service(topics=[[], ['a'], ['b', 'c', 'd']], id='zz',
                     listed=True)])).encode()},
        {'rpc:ex:compute': {b'm': b'\xc1', b'n': record.encode(
            [record.Instance(ID, ('tcp://h:1',))])}, 'rpc:': {},
         'other': {b'x': 1}}, frozenset(), NOW))
    assert cloud.bad == 2
    assert problems.of(cloud, {}) is not None
    assert overview.document(cloud)['topics']
    assert details.document(cloud, details.Chosen('compute'))['instances']


def test_rates_are_those_between_two_documents():
    grown = rates.Rates()
    times = {'counts': [0, 4], 'sum': 1.0}
    grown.note(cloud_of(document(services=[service(taken=10)], sent=[
        {'exchange': 'ex', 'topic': 't', 'calls': times}])))
    assert grown.topics()[0]['per second'] == 0
    grown.note(cloud_of(document(
        seq=6, process={'up': 110.0},
        services=[service(taken=60, running=times)],
        sent=[{'exchange': 'ex', 'topic': 't',
               'calls': {'counts': [0, 4, 20], 'sum': 2.0}}])))
    topic, = grown.topics()
    assert topic['per second'] == 5 and topic['running p50'] > 0.0001
    sender, = grown.senders()
    assert sender['calls/s'] == 2 and 0.0002 < sender['p50'] <= 0.0004
