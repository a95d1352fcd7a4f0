# SPDX-License-Identifier: Apache-2.0
"""What oslo-messaging-zmq custody shows of journals, and drops."""

import json
import os
import subprocess
import sys

import pytest

from tests.functional import test_journal
from tests.support import journaled
from tests.support import processes
from tests.support import waiting
from zmq_threaded.cli import custody
from zmq_threaded.cli import main
from zmq_threaded.journal import locks
from zmq_threaded.journal import place
from zmq_threaded.journal import survey
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
    assert len(os.listdir(os.path.join(durable.ipc_dir, place.FOLDER))) == 5


def test_a_living_process_drops_what_an_operator_does_not_want(
        durable, capsys, caplog):
    transport = durable.transport()
    client = durable.client(transport)
    other = durable.client(transport, topic='other')
    client.cast({}, 'note', value=1)
    other.cast({}, 'note', value=2)
    code, found = run(capsys, durable, 'drop', 'topic')
    assert code == 0 and found[0]['dropped'] == 1
    assert '1 message was dropped' in found[0]['outcome']
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
    assert found[0]['alive'] is False
    code, found = run(capsys, durable, 'drop', 'nothing')
    assert code == 1 and found[0]['dropped'] == 0
    assert found[0]['outcome'] == "it has nothing of the topic 'nothing'"
    code, found = run(capsys, durable, 'drop', 'topic')
    assert code == 0 and found[0]['outcome'] == '1 message was dropped'
    durable.server()
    waiting.until(lambda: not journaled.names(durable))


def test_a_living_owner_is_not_asked_for_what_is_not_there(durable, capsys):
    client = durable.client()
    client.cast({}, 'note', value=1)
    for arguments in ('typo',), ('topic', '--pool', 'typo'):
        code, found = run(capsys, durable, 'drop', *arguments)
        assert code == 1 and found[0]['dropped'] == 0
        assert "it has nothing of the" in found[0]['outcome']
    code = main.main(['custody', 'drop', 'typo', '--directory', os.path.join(
        durable.ipc_dir, place.FOLDER)])
    assert "Nothing was dropped: the topic 'typo' is in no journal" in (
        capsys.readouterr().out)
    assert run(capsys, durable, 'list')[1][0]['count'] == 1


def test_an_owner_that_does_not_answer_is_not_said_to_have_dropped(
        durable, capsys, monkeypatch):
    monkeypatch.setattr(custody, '_ANSWER', 0.5)
    sender = journaled.sender(durable)
    test_journal.tell(sender, do='cast', method='note', args={'value': 1})
    sender.pause()
    try:
        code, found = run(capsys, durable, 'drop', 'topic')
    finally:
        sender.resume()
    assert code == 0 and found[0]['dropped'] == 0
    assert 'has not answered yet' in found[0]['outcome']
    waiting.until(lambda: run(capsys, durable, 'list')[1][0]['count'] == 0)


@pytest.mark.skipif(os.getuid() != 0, reason='only root makes namespaces')
def test_an_owner_in_another_pid_namespace_lives(durable, capsys):
    durable.client().cast({}, 'note', value=1)
    done = subprocess.run(
        ['unshare', '--pid', '--fork', '--mount-proc', sys.executable, '-m',
         'zmq_threaded.cli.main', 'custody', 'list', '--directory',
         os.path.join(durable.ipc_dir, place.FOLDER), '-o', 'json'],
        env=processes.ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found, = json.loads(done.stdout)
    assert found['owner'] == locks.UNNAMED and found['alive'] is True


def test_a_pool_is_forgotten(durable, capsys):
    transport = durable.notification_transport()
    notifier = durable.notifier(transport=transport)
    listeners = {pool: durable.listener(pool=pool) for pool in 'ab'}
    notifier.info({}, 'event', 1)
    waiting.until(lambda: all(each.seen for each in listeners.values()))
    waiting.until(lambda: run(capsys, durable, 'list')[1][0]['count'] == 0)
    durable.stop(listeners['b'])
    notifier.info({}, 'event', 2)
    waiting.until(lambda: _copies(durable) == {'a': 0, 'b': 1})
    assert len(run(capsys, durable, 'list')[1][0]['pools']) == 2
    code, found = run(capsys, durable, 'drop', 'notes.info', '--pool', 'b')
    assert code == 0 and found[0]['dropped'] == 1
    assert ('1 copy was dropped, and the pool is forgotten'
            in found[0]['outcome'])
    waiting.until(lambda: run(capsys, durable, 'list')[1][0]['count'] == 0)
    assert len(run(capsys, durable, 'list')[1][0]['pools']) == 1
    notifier.info({}, 'event', 3)
    waiting.until(lambda: listeners['a'].seen == [1, 2, 3])
    waiting.until(lambda: run(capsys, durable, 'list')[1][0]['count'] == 0)


def test_copies_of_a_dead_process_are_counted_by_pool(durable, capsys):
    sender = journaled.sender(durable)
    # Whoever has no services and keeps nothing himself adopts nothing.
    listeners = [durable.listener(
        pool=pool, transport=durable.notification_transport(
            rpc_zmq_custody='memory')) for pool in 'ab']
    test_journal.tell(sender, do='notify', payload=1)
    waiting.until(lambda: all(each.seen for each in listeners))
    waiting.until(lambda: run(capsys, durable, 'list')[1][0]['count'] == 0)
    for each in listeners:
        durable.stop(each)
    for number in 2, 3:
        test_journal.tell(sender, do='notify', payload=number)
    waiting.until(lambda: _copies(durable) == {'a': 2, 'b': 2})
    sender.kill()
    code, found = run(capsys, durable, 'drop', 'notes.info', '--pool', 'b')
    assert code == 0 and [each['outcome'] for each in found] == [
        '2 copies were dropped, and the pool is forgotten']
    # The messages are there for the other pool.
    assert run(capsys, durable, 'list')[1][0]['count'] == 2
    code, found = run(capsys, durable, 'drop', 'notes.info', '--pool', 'b')
    assert code == 1 and found[0]['dropped'] == 0


def _copies(node):
    found, = survey.survey(os.path.join(node.ipc_dir, place.FOLDER))
    return {pool: survey.stock(found.path, 'notes.info', pool).count
            for pool in 'ab'}


def test_a_directory_without_journals(durable, capsys):
    os.mkdir(os.path.join(durable.ipc_dir, place.FOLDER))
    assert run(capsys, durable, 'list') == (0, [])
    assert run(capsys, durable, 'drop', 'topic') == (1, [])


def test_a_directory_that_is_not_there(durable, capsys):
    for action in ('list',), ('drop', 'topic'):
        assert main.main(['custody', *action, '--directory',
                          '/nonexistent/j']) == 2
        assert 'no directory /nonexistent/j' in capsys.readouterr().err
    # The configuration may name one that nobody has used yet.
    url = ('--transport-url', durable.url())
    assert main.main(['custody', 'list', *url]) == 0
    assert 'not yet' in capsys.readouterr().out
    assert main.main(['custody', 'drop', 'topic', *url]) == 1
    assert 'not yet' in capsys.readouterr().out


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
