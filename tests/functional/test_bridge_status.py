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

    def wait_for(text):
        waiting.until(lambda: text in ask(), 15, text)
        return json.loads(ask('-o', 'json'))['bridge']
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
    known = status('Step 2 is NOT SAFE')
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
    known = status('1 processes send over the other driver')
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


def test_without_a_bridge_nothing_is_said(node, capsys):
    node.server()
    main.main(['status', '--transport-url', node.url()])
    assert 'ridge' not in capsys.readouterr().out
