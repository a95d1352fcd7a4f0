# SPDX-License-Identifier: Apache-2.0
"""What oslo-messaging-zmq custody shows of journals, and drops."""

import json
import os

import pytest

from tests.functional import test_journal
from tests.support import journaled
from tests.support import waiting
from zmq_threaded.cli import main
from zmq_threaded.journal import place
from zmq_threaded.status import journals

CUSTODY = {'rpc_zmq_custody': 'process'}


@pytest.fixture
def durable(node):
    node.query = CUSTODY
    return node


def run(capsys, node, *arguments):
    code = main.main(['custody', *arguments, '--directory', os.path.join(
        node.ipc_dir, place.FOLDER), '-o', 'json'])
    return code, json.loads(capsys.readouterr().out)


def test_a_journal_of_a_living_process_is_shown(durable, capsys):
    client = durable.client()
    for number in range(3):
        client.cast({}, 'note', value=number)
    code, found = run(capsys, durable, 'list')
    assert code == 0
    assert found[0]['owner'] == os.getpid()
    assert found[0]['count'] == 3
    assert found[0]['bytes'] > 100
    assert list(found[0]['topics'].values()) == [3]
    # To look at it has not ended its lock.
    waiting.until(lambda: run(capsys, durable, 'list')[1][0]['owner']
                  == os.getpid())
    assert len(os.listdir(os.path.join(durable.ipc_dir, place.FOLDER))) == 4


def test_a_living_process_drops_what_an_operator_does_not_want(
        durable, capsys, caplog):
    transport = durable.transport()
    client = durable.client(transport)
    other = durable.client(transport, topic='other')
    client.cast({}, 'note', value=1)
    other.cast({}, 'note', value=2)
    code, found = run(capsys, durable, 'drop', 'topic')
    assert code == 0 and 'its owner drops' in found[0]['outcome']
    waiting.until(lambda: test_journal.counters(transport).get(
        'dropped_by_hand') == 1)
    assert 'an operator dropped it' in caplog.text
    server = durable.server(topic='other')
    waiting.until(lambda: server.endpoint.seen == [2])
    waiting.until(lambda: run(capsys, durable, 'list')[1][0]['count'] == 0)


def test_what_a_dead_process_has_left_is_dropped_at_once(durable, capsys):
    sender = journaled.sender(durable)
    test_journal.tell(sender, do='cast', method='note', args={'value': 1})
    sender.kill()
    code, found = run(capsys, durable, 'list')
    assert (code, found[0]['owner'], found[0]['count']) == (0, None, 1)
    code, found = run(capsys, durable, 'drop', 'nothing')
    assert found[0]['outcome'] == '0 messages were dropped'
    code, found = run(capsys, durable, 'drop', 'topic')
    assert code == 0 and found[0]['outcome'] == '1 messages were dropped'
    durable.server()
    waiting.until(lambda: not journaled.names(durable))


def test_a_pool_is_forgotten(durable, capsys):
    transport = durable.notification_transport()
    notifier = durable.notifier(transport=transport)
    listeners = {pool: durable.listener(pool=pool) for pool in 'ab'}
    notifier.info({}, 'event', 1)
    waiting.until(lambda: all(each.seen for each in listeners.values()))
    durable.stop(listeners['b'])
    notifier.info({}, 'event', 2)
    waiting.until(lambda: run(capsys, durable, 'list')[1][0]['count'] == 1)
    assert len(run(capsys, durable, 'list')[1][0]['pools']) == 2
    run(capsys, durable, 'drop', 'notes.info', '--pool', 'b')
    waiting.until(lambda: run(capsys, durable, 'list')[1][0]['count'] == 0)
    assert len(run(capsys, durable, 'list')[1][0]['pools']) == 1
    notifier.info({}, 'event', 3)
    waiting.until(lambda: listeners['a'].seen == [1, 2, 3])
    waiting.until(lambda: run(capsys, durable, 'list')[1][0]['count'] == 0)


def test_a_directory_without_journals(durable, capsys):
    assert run(capsys, durable, 'list') == (0, [])
    assert run(capsys, durable, 'drop', 'topic') == (0, [])


def test_a_directory_that_cannot_be_read_is_no_empty_one(durable, capsys,
                                                         tmp_path):
    (tmp_path / 'file').touch()
    for action in ('list',), ('drop', 'topic'):
        assert main.main(['custody', *action, '--directory',
                          str(tmp_path / 'file')]) == 2
        assert 'cannot be read' in capsys.readouterr().err


def test_status_shows_journals_and_names_those_without_an_owner(
        durable, capsys, monkeypatch):
    monkeypatch.setattr(journals, '_OLD', 0.0)
    monkeypatch.setattr(journals, '_ADOPTED_WITHIN', 1.0)

    def status():
        capsys.readouterr()
        main.main(['status', '--no-ask', '-o', 'json',
                   '--transport-url', durable.url()])
        document = json.loads(capsys.readouterr().out)
        row, = document['journals']
        return row, {each['kind'] for each in document['problems']}
    sender = journaled.sender(durable)
    test_journal.tell(sender, do='cast', method='note', args={'value': 1})
    row, kinds = status()
    assert row['owner'] == sender.pid and row['alive']
    assert row['messages'] == 1 and row['bytes'] > 0 and row['oldest'] > 0
    assert 'journal_without_owner' not in kinds
    sender.kill()
    row, kinds = status()
    assert not row['alive'] and 'journal_without_owner' in kinds
