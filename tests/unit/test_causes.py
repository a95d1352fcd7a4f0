# SPDX-License-Identifier: Apache-2.0
"""A cause is named once, and what merely follows from it is not."""

from tests.unit import test_problems as clouds
from zmq_threaded.cli import overview
from zmq_threaded.status import probe
from zmq_threaded.status import problems
from zmq_threaded.status import processes

ID, NOW = clouds.ID, clouds.NOW
cloud_of, document, kinds = clouds.cloud_of, clouds.document, clouds.kinds
service = clouds.service
SENDER = {'process': {'host': 'node-2', 'pid': 8}}
INSTANCE = f'n1 on node-1 (instance {ID.hex()})'
BEHIND = {'receiver': {'expected': True, 'there': True,
                       'endpoint': 'tcp://node-1:9501'}}
RECEIVER = {'kind': 'receiver', **BEHIND, 'process': {'pid': 9}}


def finding(kind, subject):
    return {'kind': kind, 'subject': subject, 'text': kind, 'since': 5.0}


def of_one_receiver():
    """A service, a sender, and what both say when the receiver of the
    service stands still.
    """
    pending = {'exchange': 'ex', 'topic': 'compute', 'server': 'n1',
               'count': 6, 'oldest': 36.0}
    return (
        document('a', services=[service()], **BEHIND, findings=[
            finding('unreachable', 'tcp://node-1:9501'),
            finding('others_cannot_reach', 'tcp://node-1:9501')]),
        document('b', **SENDER, findings=[
            finding('cannot_reach', 'tcp://node-1:9501'),
            finding('unanswered', INSTANCE)], pending=[
                {**pending, 'where': 'in_flight', 'to': INSTANCE},
                {**pending, 'where': 'waiting', 'server': ''}]))


def test_a_stopped_receiver_is_named_and_not_what_follows():
    cloud = cloud_of(*of_one_receiver(), document('c', **RECEIVER))
    cloud.processes[2].state = processes.STOPPED
    outcomes = {ID: probe.Outcome(probe.SILENT, why='no answer')}
    found, = problems.of(cloud, outcomes)
    assert found.kind == 'stopped' and 'kill -CONT 9' in found.remedy
    assert 'nobody reaches the 1 services on it: compute.n1' in found.text
    rows = {row['node']: row for row in overview.nodes(cloud)}
    assert rows['node-1']['receiver'] == 'STOPPED'


def test_a_receiver_that_stands_still_elsewhere_is_named_once():
    cloud = cloud_of(*of_one_receiver())
    outcomes = {ID: probe.Outcome(probe.SILENT, why='no answer')}
    found, = problems.of(cloud, outcomes)
    assert found.kind == 'receiver_silent' and found.host == 'node-1'
    assert 'compute.n1' in found.text
    row = overview.nodes(cloud)[0]
    assert row['receiver'] == 'NO ANSWER'
    assert [*row][:2] == ['node', 'receiver']


def test_a_receiver_that_answers_others_is_not_blamed():
    cloud = cloud_of(*of_one_receiver())
    answers = {ID: probe.Outcome(probe.ANSWERED, 0.1)}
    assert kinds(cloud, answers) == ['unreachable', 'unanswered',
                                     'old_messages', 'no_listener']


def test_a_receiver_is_not_blamed_for_its_name():
    lost = {**finding('unreachable', 'tcp://node-1:9501'),
            'text': 'the name leads nowhere'}
    cloud = cloud_of(document(services=[service()], **BEHIND,
                              findings=[lost]))
    outcomes = {ID: probe.Outcome(probe.UNREACHABLE, why='no such name')}
    assert kinds(cloud, outcomes) == ['unreachable']


def test_of_one_endpoint_one_problem_is_named():
    cloud = cloud_of(
        document(services=[service()]), document('b', **SENDER, findings=[
            finding('cannot_reach', 'tcp://node-1:9501')]))
    outcomes = {ID: probe.Outcome(probe.UNREACHABLE, why='no route')}
    assert kinds(cloud) == ['cannot_reach']
    assert kinds(cloud, outcomes) == ['no_answer']


def test_calls_to_who_is_named_already_are_not_named():
    sender = document('b', **SENDER,
                      findings=[finding('unanswered', INSTANCE)])
    stuck = service(busy=8, longest=100.0, oldest=90.0, backlog=5)
    assert kinds(cloud_of(document(services=[stuck]),
                          sender)) == ['stuck_workers']
    assert kinds(cloud_of(document(services=[service()]),
                          sender)) == ['unanswered']
    stopped = cloud_of(document(services=[service()]), sender)
    stopped.processes[0].state = processes.STOPPED
    assert kinds(stopped) == ['stopped']


def test_who_waits_for_the_registry_is_not_late():
    waiting = document(services=[service()], server_at=NOW - 18, at=NOW - 18,
                       findings=[finding('unlisted', 'registry')])
    cloud = cloud_of(waiting)
    assert kinds(cloud) == ['silent']
    cloud.trouble = 'no answer'
    assert kinds(cloud) == ['registry']
    # It is there again, and the process has not said so yet.
    said = {**waiting, 'registry': {'answers': False, 'failing': 9.0}}
    assert kinds(cloud_of(said)) == ['registry']
    late = cloud_of({**said, 'server_at': NOW - 40, 'at': NOW - 40})
    late.trouble = 'no answer'
    assert kinds(late) == ['registry', 'silent']
