# SPDX-License-Identifier: Apache-2.0
"""The verb ``status`` of a cloud that moves over a bridge."""

import json
import os
import re
import shlex
import subprocess
import threading
import uuid

import oslo_messaging
import pytest
from oslo_config import cfg

from tests.support import rabbit
from tests.support import rpc
from tests.support import waiting
from zmq_threaded.cli import main

pytestmark = pytest.mark.xdist_group('rabbit')
ASK = 'NOT KNOWN whether step 3 (without a bridge)'


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
        if expected and not known['topics']:
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


class Slow(rpc.Notes):
    """It handles nothing until it is released."""

    def __init__(self):
        super().__init__()
        self.release = threading.Event()

    def info(self, *arguments):
        super().info(*arguments)
        self.release.wait(60)


def plain_notifications(node, broker):
    transport = oslo_messaging.get_notification_transport(cfg.CONF,
                                                          broker.url)
    node.closing(transport.cleanup)
    return transport


def plain(node, broker):
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, broker.url)
    node.closing(transport.cleanup)
    return transport


def rabbitmqctl(broker, *arguments):
    return subprocess.run(
        [os.path.join(os.path.dirname(broker._binary), 'rabbitmqctl'),
         *arguments], env=broker._environment, check=True, timeout=60,
        capture_output=True, text=True).stdout


def counted(broker, known):
    """Messages by queue, by the command that status names."""
    command = re.search('`(rabbitmqctl .*)`', ' '.join(known['verdict']))[1]
    lines = rabbitmqctl(broker, *shlex.split(command)[1:]).splitlines()
    cells = [line.split('\t') for line in lines if '\t' in line]
    return {name: int(count) for name, count in cells[1:]}


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
    status(ASK)
    cloud.stop(server)
    client.cast({}, 'note', value=1)
    other = cloud.server(
        topic, 'b', transport=cloud.transport(rpc_zmq_bridge='',
                                              rpc_zmq_bridge_send='zmq'))
    known = status('Step 3 is NOT SAFE')
    assert row(known, topic)['ready on the other'] == 1
    cloud.stop(other)
    server = cloud.server(
        topic, transport=cloud.transport(rpc_zmq_bridge_send='zmq'))
    waiting.until(lambda: server.endpoint.seen == [1])
    status(ASK)


def test_what_listeners_hold_is_left_to_the_broker_to_say(
        broker, cloud, status, topic):
    endpoint, queue = Slow(), f'{topic}.info'
    cloud.listener(topic, endpoint=endpoint,
                   transport=cloud.notification_transport(
                       rpc_zmq_bridge_send='zmq'))
    cloud.closing(endpoint.release.set)
    notifier = cloud.notifier(topic, plain_notifications(cloud, broker))
    for value in range(9):
        notifier.info({}, 'event', value)
    waiting.until(lambda: endpoint.seen and broker.messages(queue) == 0)
    known = status(ASK, on_both=1, ready_on_the_other=0)
    assert queue in known['verdict'][0]
    assert counted(broker, known)[queue] == 9
    endpoint.release.set()
    waiting.until(lambda: counted(broker, known)[queue] == 0, 20)


def test_the_command_is_of_the_virtual_host(broker, cloud, status, topic):
    rabbitmqctl(broker, 'add_vhost', 'a b')
    rabbitmqctl(broker, 'set_permissions', '-p', 'a b', 'guest', '.*', '.*',
                '.*')
    cloud.query |= {'rpc_zmq_bridge': broker.url + 'a%20b',
                    'rpc_zmq_bridge_send': 'zmq'}
    cloud.server(topic, 'one')
    known = status(ASK, on_both=1)
    assert "rabbitmqctl list_queues -p 'a b' name messages" in (
        ' '.join(known['verdict']))
    assert {topic, f'{topic}.one'} <= set(counted(broker, known))


def test_nobody_on_zmq_is_never_safe(cloud, status, topic):
    cloud.client(topic=topic).cast({}, 'note', value=1)
    known = status('Step 2 is NOT SAFE')
    assert 'nobody listens over zmq' in known['verdict'][0]
    assert not any(row['on both'] for row in known['topics'])


def test_what_is_sent_over_the_other_side_is_looked_up(broker, cloud, status,
                                                       topic):
    """Also where everybody seen on zmq is at step 1."""
    behind = cloud.server(topic, 'behind', transport=plain(cloud, broker))
    cloud.server(f'{topic}-bridged')
    client = cloud.client(topic=topic)
    assert client.call({}, 'echo', value=1) == 1
    known = status(f'Step 2 is NOT SAFE yet: some listen only on the other '
                   f'driver: {topic}.')
    assert row(known, topic)['only on the other'] == 1
    assert row(known, topic)['bridged senders'] == 1
    cloud.stop(behind)
    cloud.server(topic, 'behind')
    known = status('Step 2 (rpc_zmq_bridge_send=zmq) is safe', on_both=1)
    assert row(known, topic)['bridged senders'] == 1


def test_a_notification_over_the_other_side_is_looked_up(broker, cloud,
                                                         status, topic):
    cloud.listener(topic, transport=plain_notifications(cloud, broker))
    cloud.notifier(topic).info({}, 'event', 1)
    known = status(f'only on the other driver: {topic}.info')
    assert row(known, f'{topic}.info')['bridged senders'] == 1


def test_a_topic_that_only_a_sender_tells_of_is_looked_up(
        broker, cloud, status, topic):
    cloud.server(topic, 'behind', transport=plain(cloud, broker))
    client = cloud.client(topic=topic, timeout=1, transport=cloud.transport(
        rpc_zmq_bridge_send='zmq'))
    with pytest.raises(oslo_messaging.MessagingTimeout):
        client.call({}, 'echo', value=1)
    known = status('Step 2 is NOT SAFE', only_on_the_other=1)
    assert topic in known['verdict'][0]
    assert row(known, topic)['bridged senders'] == 1
    assert row(known, topic)['on both'] == 0


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
