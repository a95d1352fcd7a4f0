# SPDX-License-Identifier: Apache-2.0
"""The load tool as a user runs it, and its counting over real processes."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from load import contestant as contestants
from load import options
from load import progress
from load import rounds

from tests.support import processes

TOOL = pathlib.Path(__file__).parents[2] / 'tools' / 'rpc_load.py'
SHORT = [
    '--seconds',
    '1',
    '--warmup',
    '0.2',
    '--threads',
    '4',
    '--timeout',
    '10',
]
DEADLINE = 60
PNG_MAGIC = b'\x89PNG\r\n\x1a\n'


# One after the other: what they leave behind is looked for everywhere.
pytestmark = pytest.mark.xdist_group('rpc_load')


@pytest.fixture
def url(ipc_dir):
    """A transport of its own for each test."""
    return f'zmq://?rpc_zmq_ipc_dir={ipc_dir}'


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments],
        cwd='/',
        text=True,
        capture_output=True,
        timeout=DEADLINE,
        env={**os.environ, **environment},
    )


def run_soundly(*arguments):
    """Run with --json -, and return the report.

    The run must have succeeded.
    """
    done = run(*arguments, *SHORT, '--json', '-')
    assert done.returncode == 0, done.stderr
    assert 'warning' not in done.stderr
    return json.loads(done.stdout)


def assert_refused(done, exit_code, text):
    assert done.returncode == exit_code, done.stderr
    assert done.stderr.count('\n') == 1
    assert text in done.stderr
    assert done.stdout == ''


def assert_nothing_amiss(entry):
    assert entry['operations'] > 0
    assert [
        entry[name] for name in ('lost', 'duplicated', 'failed', 'wrong')
    ] == [0] * 4
    assert entry['trouble'] is None


@pytest.mark.parametrize(
    'mode, servers',
    [('call', 1), ('call', 2), ('cast', 2), ('fanout', 2), ('notify', 2)],
)
def test_every_mode_over_zmq(url, mode, servers):
    report = run_soundly(url, '--mode', mode, '--servers', str(servers))
    entry, = report['contestants']
    assert report['sound'] and report['settings']['mode'] == mode
    assert_nothing_amiss(entry)
    assert entry['delivered'] == entry['sent'] * (
        servers if mode == 'fanout' else 1
    )
    assert 0 < entry['latency_ms']['p50'] <= entry['latency_ms']['max']
    assert len(entry['resources']['servers']) == servers


def test_pinned_processes_tell_what_a_call_costs(url):
    made = run_soundly(url, '--pin')
    costs = made['contestants'][0]['cost_per_operation']
    assert made['settings']['pin']
    for party in 'client', 'servers':
        assert costs[party]['cpu_seconds'] > 0
        assert costs[party]['voluntary_switches'] > 0


def test_count_is_exact(url):
    report = run_soundly(url, '--count', '103')
    assert report['contestants'][0]['operations'] == 103


def test_contestants_take_turns_and_are_compared(url):
    report = run_soundly('one=' + url, 'two=' + url, '--raw', '--rounds', '2')
    assert [entry['name'] for entry in report['contestants']] == [
        'one',
        'two',
        'raw',
    ]
    for entry in report['contestants']:
        assert_nothing_amiss(entry)
        assert len(entry['rounds']) == 2
    assert report['contestants'][1]['ratio']['ops_per_second'] == 1
    assert report['contestants'][0]['ratio']['p99'] > 0


def test_plot_and_table(url, tmp_path):
    picture = tmp_path / 'latencies.png'
    done = run(url, *SHORT, '--plot', str(picture))
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(PNG_MAGIC)
    assert 'p99.9' in done.stdout and 'nothing lost' in done.stdout


@pytest.mark.parametrize('bad, text', [
    ('nosuchdriver://', 'nosuchdriver'), ('zmq', 'not a transport URL'),
    ('rabbit://127.0.0.1/?no_such_option=1', 'no_such_option'),
    ('rabbit://127.0.0.1:port/', 'port')])
def test_bad_url_is_one_line(bad, text):
    assert_refused(run(bad, *SHORT), 2, text)


def test_dead_broker_is_one_line():
    done = run('rabbit://guest:secret@127.0.0.1:1/', *SHORT)
    assert_refused(done, 3, 'no broker at 127.0.0.1:1')
    assert 'secret' not in done.stderr


@pytest.mark.parametrize('mode', ['call', 'notify'])
@pytest.mark.parametrize('query, said', [
    ('rpc_zmq_ipc_dir=/proc/nowhere', '/proc/nowhere'),
    ('rpc_zmq_ipc_dir={ipc_dir}/' + 80 * 'x', 'rpc_zmq_ipc_dir'),
    ('rpc_zmq_ipc_dir={ipc_dir}&rpc_zmq_transport=tcp'
     '&rpc_zmq_bind_address=no-such-name', 'no-such-name'),
    ('rpc_zmq_ipc_dir={ipc_dir}&rpc_zmq_transport=tcp'
     '&rpc_zmq_min_port={taken}&rpc_zmq_max_port={taken}', '{taken}')])
def test_server_that_cannot_listen_says_why(ipc_dir, mode, query, said):
    with socket.create_server(('', 0)) as server:
        taken = server.getsockname()[1]
        names = {'ipc_dir': ipc_dir, 'taken': taken}
        done = run(f'zmq://?{query.format(**names)}', '--mode', mode, *SHORT)
    assert_refused(done, 3, said.format(**names))
    assert 'rpc_zmq_' in done.stderr.partition(' server load0: ')[2]
    assert 'AttributeError' not in done.stderr


def test_help_says_it_all():
    done = run('--help')
    assert done.returncode == 0
    for text in ('examples:', 'exit code:', '--mode', '--drain', '--baseline'):
        assert text in done.stdout


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_interruption_leaves_no_process(url, name):
    with subprocess.Popen(
        [sys.executable, str(TOOL), url, '--raw', *SHORT, '--seconds', '50'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=processes.restore_signals,
    ) as tool:
        children = wait_for(lambda: children_of(tool.pid))
        tool.send_signal(getattr(signal, name))
        output, complaints = tool.communicate(timeout=DEADLINE)
    assert (tool.returncode, output) == (130, '')
    assert complaints == 'rpc_load: interrupted\n'
    wait_for(lambda: not any(map(alive, children)))


def test_killed_tool_leaves_no_process():
    with subprocess.Popen(
        [
            sys.executable,
            '-c',
            'import time\n' + START_RAW + '\ntime.sleep(99)',
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=TOOL.parent,
    ) as tool:
        child = int(tool.stdout.readline())
        assert alive(child)
        tool.kill()
    wait_for(lambda: not alive(child))


START_RAW = """
from load import contestant, options
parsed = options.parse(['--raw', '--threads', '1'])
raw = contestant.Contestant(parsed.entries[-1], parsed)
raw.start_servers()
raw.connect(time.monotonic() + 20)
print(raw.servers[0].pid, flush=True)
"""


@pytest.fixture
def raw():
    """A raw contestant whose faults a test makes up in its client."""
    parsed = options.parse(
        [
            '--raw',
            '--threads',
            '2',
            '--warmup',
            '0',
            '--count',
            '60',
            '--servers',
            '2',
            '--timeout',
            '5',
        ]
    )
    contestant = contestants.Contestant(parsed.entries[-1], parsed)
    contestant.start_servers()
    yield contestant
    for server in contestant.servers:
        server.kill()


def run_with(contestant, spoil):
    """Run one round in which spoil() takes the place of the operation.

    The arguments of spoil are the operation, the identity of the message,
    and the payload.
    """
    make = contestant._client.operation

    def make_spoiled(thread):
        operation = make(thread)
        return lambda ident, payload: spoil(operation, ident, payload)
    contestant._client.operation = make_spoiled
    contestant.connect(time.monotonic() + DEADLINE)
    rounds.run_round(contestant, progress.LineProgress())
    assert contestant.stop() == []
    return contestant.tally


def test_counting_over_processes_finds_nothing_where_nothing_is(raw):
    tally = run_with(
        raw, lambda operation, ident, payload: operation(ident, payload)
    )
    assert (tally.delivered, tally.lost, tally.duplicated) == (60, 0, 0)
    assert raw.sound()


def test_counting_over_processes_finds_what_was_lost(raw):
    tally = run_with(raw, lambda operation, ident, payload:
                     ident % 10 == 0 or operation(ident, payload))
    assert (tally.delivered, tally.lost, tally.duplicated) == (54, 6, 0)
    assert not raw.sound()


def test_counting_over_processes_finds_duplicates(raw):
    def twice(operation, ident, payload):
        return operation(ident, payload) and (
            ident % 10 or operation(ident, payload)
        )

    tally = run_with(raw, twice)
    assert (tally.delivered, tally.lost, tally.duplicated) == (60, 0, 6)
    assert not raw.sound()


def test_counting_over_processes_finds_damaged_messages(raw):
    tally = run_with(
        raw,
        lambda operation, ident, payload: operation(
            ident, payload if ident % 10 else payload + b'!'
        ),
    )
    assert (tally.delivered, tally.lost, raw.wrong()) == (54, 6, 6)


def test_dead_server_ends_the_contestant(raw):
    raw.connect(time.monotonic() + DEADLINE)
    os.kill(raw.servers[1].pid, signal.SIGKILL)
    complaints = raw.stop()
    assert len(complaints) == 1 and 'exit code -9' in complaints[0]


def wait_for(condition, seconds=20):
    """Return the condition's first true value."""
    deadline, tick = time.monotonic() + seconds, threading.Event()
    while not (value := condition()):
        assert time.monotonic() < deadline
        tick.wait(0.02)
    return value


def children_of(pid):
    try:
        text = pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text(
            encoding='ascii'
        )
    except FileNotFoundError:
        return []
    return [int(child) for child in text.split()]


def alive(pid):
    try:
        status = pathlib.Path(f'/proc/{pid}/stat').read_text(encoding='ascii')
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(')')[2].split()[0] != 'Z'


# Through a receiver


def test_a_url_of_the_receiver_topology_gets_a_receiver(url):
    report = run_soundly('direct=' + url, 'receiver=zmq://?rpc_zmq_topology=receiver',
                         '--baseline', 'direct', '--rounds', '2')
    direct, behind = report['contestants']
    assert_nothing_amiss(direct)
    assert_nothing_amiss(behind)
    assert 0 < behind['ratio']['ops_per_second'] < 10


@pytest.mark.parametrize('mode', ['cast', 'fanout', 'notify'])
def test_other_modes_through_a_receiver(mode):
    report = run_soundly(
        'zmq://?use_router_proxy=true', '--mode', mode, '--servers', '2'
    )
    assert_nothing_amiss(report['contestants'][0])


def test_receiver_that_cannot_start_is_named(ipc_dir):
    with socket.create_server(('', 0)) as taken:
        port = taken.getsockname()[1]
        done = run('zmq://?rpc_zmq_topology=receiver'
                   f'&rpc_zmq_ipc_dir={ipc_dir}&rpc_zmq_port={port}', *SHORT)
    assert_refused(done, 3, f'rpc_zmq_port {port}')


def test_receiver_of_the_tool_leaves_nothing(ipc_dir):
    done = run('zmq://?rpc_zmq_topology=receiver', *SHORT, TMPDIR=ipc_dir)
    assert done.returncode == 0, done.stderr
    assert not list(pathlib.Path(ipc_dir).glob('rpc_load-*'))


def test_receiver_against_a_bare_proxy():
    done = subprocess.run(
        [
            sys.executable,
            str(TOOL.with_name('receiver_load.py')),
            '--rounds',
            '1',
            '--seconds',
            '0.5',
        ],
        text=True,
        capture_output=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(
        r'receiver forwards \d+\.\d+ times what zmq.proxy does', done.stdout
    )


def test_receiver_below_the_bar_fails_the_run():
    done = subprocess.run(
        [
            sys.executable,
            str(TOOL.with_name('receiver_load.py')),
            '--rounds',
            '1',
            '--seconds',
            '0.3',
            '--least',
            '100',
        ],
        text=True,
        capture_output=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 1, done.stderr
