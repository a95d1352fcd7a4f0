# SPDX-License-Identifier: Apache-2.0
"""The document of facts: bounded when it is written, read with distrust."""

import json
import os
import random
import subprocess
import sys
import time
import zlib

import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import strategies

from zmq_threaded.registry import stamps
from zmq_threaded.status import fact_files
from zmq_threaded.status import facts
from zmq_threaded.status import histogram
from zmq_threaded.status import meters
from zmq_threaded.status import processes
from zmq_threaded.status import recent


def service(number):
    full = {'counts': [random.randrange(10 ** 9)] * histogram.SIZE,
            'sum': 1e9}
    return {'id': f'{number:032x}', 'kind': 'rpc', 'server': 's' * 255,
            'topics': [['e' * 255, 't' * 255]] * 20, 'waiting': full,
            'running': full}


def document(**fields):
    return {'format': facts.FORMAT, 'kind': 'runtime', 'id': 'a',
            'process': {'pid': 1}, **fields}


def test_what_is_written_is_read():
    found = facts.decode(facts.encode(document(
        seq=3, services=[{'id': 'x', 'busy': 2, 'topics': [['e', 't']],
                          'waiting': {'counts': [0, 3], 'sum': 0.25}}])))
    assert found['seq'] == 3 and found['process']['pid'] == 1
    listening, = found['services']
    assert listening['busy'] == 2 and listening['topics'] == [['e', 't']]
    assert listening['waiting'] == {'counts': [0, 3], 'sum': 0.25}
    # What it does not say.
    assert listening['running'] == {'counts': [], 'sum': 0.0}
    assert listening['other_half'] is None
    assert listening['workers'] is None and found['server_at'] is None
    assert found['receiver'] == {'expected': False, 'there': False,
                                 'endpoint': ''}


def test_what_is_compressed_is_read():
    packed = facts.encode(document(services=[service(1)] * 10))
    compressed = facts.compress(packed)
    assert len(compressed) < len(packed) / 2
    assert facts.decode(compressed) == facts.decode(packed)


def test_a_process_with_a_thousand_topics_is_cut_and_says_so():
    many = document(
        services=[service(number) for number in range(1000)],
        pending=[{'topic': 'x' * 255, 'count': 1}] * 1000,
        sent=[{'topic': 'x' * 255}] * 1000,
        findings=[{'text': 'x' * 400}] * 1000)
    packed = facts.encode(many)
    assert len(packed) <= facts.LONGEST_WRITTEN
    found = facts.decode(packed)
    assert len(found['services']) + found['left_out']['services'] == 1000
    assert found['left_out']['histograms']
    assert found['services'] and found['pending'] and found['findings']
    assert len(many['services']) == 1000


@pytest.mark.parametrize('packed', [
    b'', b'null', b'[]', b'{}', b'{"format": 2}', b'\xff', b'[' * 100_000,
    b' ' * (facts.LONGEST_READ + 1), zlib.compress(b'[]'), zlib.compress(b'x'),
    zlib.compress(json.dumps(document()).encode())[:-1],
    zlib.compress(b'{"format": 1%s}' % (b' ' * (1 << 24)))])
def test_what_is_no_document_is_refused(packed):
    with pytest.raises(facts.Malformed):
        facts.decode(packed)


_JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers()
    | strategies.floats(allow_nan=False) | strategies.text(max_size=5),
    lambda inner: strategies.lists(inner, max_size=3)
    | strategies.dictionaries(strategies.text(max_size=5), inner,
                              max_size=3), max_leaves=10)


@example({'services': [{'topics': [[], ['a'], ['a', 1], list('abc'), 5]}]})
@given(strategies.fixed_dictionaries({}, optional={
    name: _JSON for name in ('process', 'services', 'sent', 'pending',
                             'receiver', 'registry', 'counts', 'seq', 'at',
                             'stamp', 'findings', 'left_out')}))
def test_a_hostile_document_has_the_types_that_readers_rely_on(fields):
    found = facts.decode(json.dumps(
        {'format': facts.FORMAT, **fields}).encode())
    assert isinstance(found['process']['pid'], (int, float))
    assert isinstance(found['stamp'], str)
    for each in found['services']:
        assert all(len(topic) == 2 and all(isinstance(part, str)
                                           for part in topic)
                   for topic in each['topics'])
        assert isinstance(each['waiting']['counts'], list)
    assert isinstance(found['receiver']['there'], bool)


def test_percentiles_are_within_their_bucket():
    times = histogram.Histogram()
    for _ in range(99):
        times.add(0.003)
    times.add(20.0)
    assert 0.0016 <= histogram.percentile(times.counts, 0.5) <= 0.0032
    assert histogram.percentile(times.counts, 1.0) > 10
    assert histogram.percentile([], 0.5) is None
    assert times.document()['sum'] == pytest.approx(20.297)
    assert histogram.total(times.document()['counts']) == 100
    times.add(1e9)
    assert histogram.percentile(times.counts, 1.0) == histogram.BOUNDS[-1]
    assert sum(histogram.added([times.counts, [1]])) == 102


def test_the_topics_of_a_sender_are_bounded():
    from zmq_threaded import topic as topics
    sent = meters.Sent()
    for number in range(1000):
        trips = sent.of(topics.rpc('', 'one', str(number)))
        trips.casts.add(0.001)
    assert [sum(each.casts.counts) for each in sent.all()] == [1000]
    for number in range(1000):
        sent.of(topics.rpc('', str(number))).calls.add(0.001)
    assert len(sent.all()) <= 201
    assert sum(sum(each.calls.counts) for each in sent.all()) == 1000


def test_the_growth_of_a_minute():
    growth = recent.Recent()
    assert growth.growth(0.0, {'a': 3}) == {'a': 3}
    assert growth.growth(50.0, {'a': 5, 'b': 1}) == {'a': 5, 'b': 1}
    assert growth.growth(61.0, {'a': 6, 'b': 1}) == {'a': 3, 'b': 1}
    assert growth.growth(200.0, {'a': 6, 'b': 1}) == {}


# Processes and files

def test_the_states_of_processes():
    child = subprocess.Popen([sys.executable, '-c', 'input()'],
                             stdin=subprocess.PIPE)
    mine = processes.myself()
    its = {**mine, 'pid': child.pid,
           'began': processes._stat(child.pid)[1]}
    try:
        assert processes.state(mine) == processes.RUNS
        assert processes.state(its) == processes.RUNS
        assert processes.state({**its, 'began': 7}) == processes.GONE
        assert processes.state({**its, 'pid_space': 1}) == processes.UNKNOWN
        child.kill()
        child.wait()
        assert processes.state(its) == processes.GONE
        assert processes.state({}) == processes.UNKNOWN
    finally:
        child.stdin.close()
        child.kill()
        child.wait()


def written(ipc_dir, name, **process):
    file = fact_files.File(ipc_dir, name)
    file.write(facts.encode(document(
        stamp=stamps.now().hex(),
        process={**processes.myself(), **process})))
    return os.path.join(ipc_dir, 'facts', f'{name}.json')


def test_files_of_the_dead_are_swept_after_a_while(ipc_dir, monkeypatch):
    alive = written(ipc_dir, 'alive')
    dead = written(ipc_dir, 'dead', began=7)
    fact_files.sweep(ipc_dir)
    assert os.path.exists(alive) and os.path.exists(dead)
    monkeypatch.setattr(fact_files, '_MOURNING', -1.0)
    fact_files.sweep(ipc_dir)
    assert os.path.exists(alive) and not os.path.exists(dead)


def test_what_is_no_document_is_skipped_and_swept(ipc_dir):
    path = written(ipc_dir, 'one')
    with open(path, 'wb') as file:
        file.write(b'nonsense')
    os.symlink('/etc/passwd', os.path.join(ipc_dir, 'facts', 'two.json'))
    os.mkfifo(os.path.join(ipc_dir, 'facts', 'three.json'))
    assert not list(fact_files.read(ipc_dir))
    fact_files.sweep(ipc_dir)
    assert os.path.exists(path)
    os.utime(path, (time.time() - 10_000,) * 2)
    fact_files.sweep(ipc_dir)
    assert not os.path.exists(path)


def test_a_file_is_as_open_to_others_as_the_directory(ipc_dir):
    os.chmod(ipc_dir, 0o2770)
    path = written(ipc_dir, 'one')
    assert os.stat(path).st_mode & 0o777 == 0o660
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o770
