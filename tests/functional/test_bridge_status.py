# SPDX-License-Identifier: Apache-2.0
"""The verb ``status`` of a cloud that moves over a bridge."""

import json
import uuid

import oslo_messaging
import pytest
from oslo_config import cfg

from tests.support import rabbit
from tests.support import waiting
from zmq_threaded.cli import main

pytestmark = pytest.mark.xdist_group('rabbit')


@pytest.fixture(scope='module')
def broker():
    with rabbit.open_broker() as broker:
        yield broker


@pytest.fixture
def cloud(broker, node):
    node.query = {'zmq_target_update': 1, 'zmq_target_expire': 3,
                  'rpc_zmq_bridge': broker.url}
    return node


@pytest.fixture
def status(cloud, capsys):
    def ask(*arguments):
        capsys.readouterr()
        main.main(['status', *arguments, '--transport-url', cloud.url()])
        return capsys.readouterr().out

    def told(text, **expected):
        known = json.loads(ask('-o', 'json')).get('bridge')
        if not known or text not in ' '.join(known['verdict']):
            return None
        return known if all(row[name.replace('_', ' ')] == value
                            for row in known['topics']
                            for name, value in expected.items()) else None

    def wait_for(text, **expected):
        """:param expected: by the column, of each topic"""
        return waiting.until(lambda: told(text, **expected), 15, text)
    return wait_for


@pytest.fixture
def topic():
    return f'topic-{uuid.uuid4().hex}'


def plain(node, broker):
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, broker.url)
    node.closing(transport.cleanup)
    return transport


def row(known, topic):
    return next(each for each in known['topics'] if each['topic'] == topic)


def test_who_listens_only_on_the_other_side(broker, cloud, status, topic):
    cloud.server(topic, 'bridged')
    behind = cloud.server(topic, 'behind', transport=plain(cloud, broker))
    known = status('Step 2 is NOT SAFE', on_both=1)
    assert topic in known['verdict'][0]
    assert row(known, topic)['only on the other'] == 1
    assert row(known, topic)['on both'] == 1
    cloud.stop(behind)
    cloud.server(topic, 'behind')
    known = status('Step 2 (rpc_zmq_bridge_send=zmq) is safe')
    assert row(known, topic)['on both'] == 2
    assert known['sends'] == {'other': 2, 'zmq': 0, 'without': 0}


def test_a_client_that_sends_over_the_other_side_is_seen(cloud, status,
                                                         topic):
    cloud.server(topic, transport=cloud.transport(rpc_zmq_bridge_send='zmq'))
    client = cloud.client(topic=topic)
    assert client.call({}, 'echo', value=1) == 1
    known = status('Step 2', on_both=1)
    assert known['sends'] == {'other': 1, 'zmq': 1, 'without': 0}


def test_step_three_waits_for_the_messages_of_the_broker(
        broker, cloud, status, topic):
    server = cloud.server(
        topic, transport=cloud.transport(rpc_zmq_bridge_send='zmq'))
    client = cloud.client(plain(cloud, broker), topic=topic)
    status('Step 3 (without a bridge) is safe')
    cloud.stop(server)
    client.cast({}, 'note', value=1)
    other = cloud.server(
        topic, 'b', transport=cloud.transport(rpc_zmq_bridge='',
                                              rpc_zmq_bridge_send='zmq'))
    known = status('Step 3 is NOT SAFE')
    assert row(known, topic)['messages on the other'] == 1
    cloud.stop(other)
    server = cloud.server(
        topic, transport=cloud.transport(rpc_zmq_bridge_send='zmq'))
    waiting.until(lambda: server.endpoint.seen == [1])
    status('Step 3 (without a bridge) is safe')


def test_a_service_that_is_left_behind_is_named(cloud, status, topic):
    cloud.server(topic, 'bridged')
    cloud.server(topic, 'zmq', transport=cloud.transport(rpc_zmq_bridge=''))
    known = status('WRONG')
    assert topic in known['verdict'][0]


def test_a_broker_that_is_down_is_said(cloud, topic, status):
    cloud.query['rpc_zmq_bridge'] = 'rabbit://127.0.0.1:1/'
    cloud.server(topic)
    known = status('The other side cannot be asked')
    assert row(known, topic)['only on the other'] is None
    assert row(known, topic)['on both'] == 0
    assert row(known, topic)['not on the other now'] == 1
    assert 'do not listen on the other driver at the moment' in (
        known['verdict'][0])


def test_a_listener_that_does_not_listen_yet_hides_nobody(broker, cloud,
                                                          status, topic):
    cloud.server(topic, 'deaf', transport=cloud.transport(
        rpc_zmq_bridge='rabbit://127.0.0.1:1/'))
    cloud.server(topic, 'behind', transport=plain(cloud, broker))
    known = status('Step 2 is NOT SAFE', not_on_the_other_now=1)
    assert row(known, topic)['only on the other'] == 1


def test_with_fewer_consumers_than_there_should_be_nothing_is_known(
        broker, cloud, status, topic):
    transport = cloud.transport()
    server = cloud.server(topic, transport=transport)
    status('Step 2 (rpc_zmq_bridge_send=zmq) is safe', on_both=1)
    half = server.listener._other
    half._is_stopping = True
    half._woken.put(None)
    waiting.until(lambda: half._has_stopped)
    half.listens = True         # as of one whose connection has just broken
    known = status('NOT KNOWN whether step 2', on_both=1)
    assert topic in known['verdict'][0]


def test_without_a_bridge_nothing_is_said(node, capsys):
    node.server()
    main.main(['status', '--transport-url', node.url()])
    assert 'ridge' not in capsys.readouterr().out
