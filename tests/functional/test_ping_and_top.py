# SPDX-License-Identifier: Apache-2.0
"""The verbs ``ping`` and ``top``, with real services."""

import json
import os
import pty
import select
import subprocess
import sys
import time

import pytest

from tests.support import encryption
from tests.support import processes
from tests.support import versions
from tests.support import waiting
from zmq_threaded import endpoints
from zmq_threaded.cli import main

QUICK = {'zmq_target_update': 1, 'zmq_target_expire': 30}


@pytest.fixture
def ask(capsys):
    def run(verb, node, *arguments):
        capsys.readouterr()
        code = main.main([verb, *arguments, '-o', 'json', '--transport-url',
                          node.url()])
        return code, json.loads(capsys.readouterr().out)
    return run


def test_ping_reaches_no_handler(node, ask):
    one, two = node.server(server='one'), node.server(server='two')
    code, rows = ask('ping', node, 'topic', '--count', '3')
    assert code == 0
    assert [row['server'] for row in rows] == ['one', 'two']
    for row in rows:
        assert row['answers'] == '3 of 3'
        assert 0 < row['min'] <= row['p50'] <= row['p99']
    assert not one.endpoint.seen and not two.endpoint.seen
    code, rows = ask('ping', node, 'topic', '--server', 'two')
    assert code == 0 and len(rows) == 1


def test_a_name_finds_the_listeners_of_all_its_priorities(node, ask):
    node.server(topic='notes2')
    node.listener('notes', transport=node.transport())
    code, (row,) = ask('ping', node, 'notes', '--count', '1')
    assert code == 0 and row['answers'] == '1 of 1'
    assert ask('ping', node, 'notes.info', '--count', '1')[0] == 0
    for wanted in ('note', 'notes.', 'notes.i', 'notes.nothing'):
        assert ask('ping', node, wanted, '--count', '1') == (1, [])
    for wanted in ('notes', 'notes.info'):
        instance, = ask('status', node, wanted)[1]['instances']
        assert instance['topic'] == ['notes.info']


@pytest.mark.parametrize('arguments', [
    ('top', '--interval', '-1'), ('top', '--interval', '0'),
    ('top', '--interval', 'nan'), ('top', '--interval', '1e300'),
    ('top', '--interval', 'x'), ('top', '--looks', '0'),
    ('ping', 'topic', '--count', '0'), ('ping', 'topic', '--count', '-1'),
    ('ping', 'topic', '--count', '1.5')])
def test_numbers_that_mean_nothing_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main.main([*arguments, '--transport-url', 'zmq://'])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert arguments[-2] in said and repr(arguments[-1]) in said


def test_ping_says_why_somebody_does_not_answer(node, ask):
    process = node.process()
    process.pause()
    try:
        code, (row,) = ask('ping', node, 'topic', '--count', '1')
    finally:
        process.resume()
    assert code == 1 and row['answers'] == '0 of 1' and row['why not']
    assert ask('ping', node, 'nobody') == (1, [])


def test_ping_goes_through_the_receiver(receiver, node, ask):
    process = node.process()
    code, (row,) = ask('ping', node, 'topic')
    assert code == 0 and str(receiver.port) in row['endpoint']
    process.kill()
    code, (row,) = ask('ping', node, 'topic', '--count', '1')
    assert code == 1 and 'receiver' in row['why not']


@pytest.mark.parametrize('version', ['minor', 'major'])
def test_other_versions_answer(node, ask, version):
    with versions.parties([(node, version, 'one', {})]) as (peer,):
        assert peer
        code, rows = ask('ping', node, 'topic')
        assert code == 0
        assert {row['server'] for row in rows} == {'one'}


def test_two_versions_of_the_protocol_are_named(node, ask):
    node.query = dict(QUICK)
    node.server(server='here')

    def is_named():
        code, found = ask('status', node)
        return 'different_protocol' in {each['kind'] for each
                                        in found['problems']}
    with versions.parties([(node, 'major', 'one', {})]):
        waiting.until(is_named, 30)


def test_top_shows_rates(node, ask):
    node.query = dict(QUICK)
    node.server()
    client = node.client()

    def is_shown():
        for _ in range(30):
            client.call({}, 'echo', value=1)
        code, found = ask('top', node, '--interval', '1.5')
        assert code == 0
        return (found['topics'] and found['topics'][0]['per second'] > 0
                and found['senders'] and found['senders'][0]['calls/s'] > 0)
    waiting.until(is_shown, 30)


def test_top_on_a_terminal_sorts_and_ends_with_q(node, ipc_dir):
    node.query = dict(QUICK)
    node.server()
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, '-m', 'zmq_threaded.cli.main', 'top',
         '--interval', '0.5', '--transport-url', node.url()],
        stdin=its, stdout=its, stderr=subprocess.PIPE,
        env=processes.ENVIRONMENT)
    os.close(its)
    try:
        seen = _read_until(ours, b'TOPICS')
        assert b'sort by' in seen and b'topic' in seen
        os.write(ours, b'n')
        _read_until(ours, b'TOPICS')
        os.write(ours, b'q')
        _read_until(ours, b'\x1b[?1049l')
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
        os.close(ours)


def _read_until(terminal, wanted, seconds=20):
    seen, deadline = b'', time.monotonic() + seconds
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 10_000)
    return seen


@pytest.fixture
def encrypted(node, tmp_path, monkeypatch):
    """A server whose port is encrypted, reached as from another machine; and
    the keys.
    """
    monkeypatch.setattr(endpoints, 'reachable', lambda those: next(
        (each for each in those if each.startswith('tcp:')), None))
    ring = encryption.KeyRing(tmp_path)
    for name in ('a', 'b'):
        ring.make(name)
    ring.make('stranger', is_trusted=False)
    node.query = {**QUICK, 'rpc_zmq_transport': 'tcp',
                  'rpc_zmq_host': '127.0.0.1',
                  'rpc_zmq_bind_address': '127.0.0.1'}
    node.server(transport=node.transport(**ring.query('a')))
    return ring


def test_ping_goes_over_an_encrypted_port(node, encrypted, ask):
    node.query.update(encrypted.query('b'))
    code, (row,) = ask('ping', node, 'topic', '--count', '2')
    assert code == 0 and row['answers'] == '2 of 2'


def test_a_key_that_is_not_trusted_is_named(node, encrypted, ask):
    node.query.update(encrypted.query('stranger'))
    code, (row,) = ask('ping', node, 'topic', '--count', '1')
    assert code == 1 and row['why not']
    code, found = ask('status', node)
    assert code == 1
    text = ' '.join(each['text'] for each in found['problems'])
    assert 'key' in text and '127.0.0.1' in text
