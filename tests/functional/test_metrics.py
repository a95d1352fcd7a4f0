# SPDX-License-Identifier: Apache-2.0
"""The metrics of a node: right, and to Prometheus's taste."""

import collections
import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request

import pytest

from tests.support import cli
from tests.support import ports
from tests.support import processes
from tests.support import waiting
from zmq_threaded.metrics import families
from zmq_threaded.metrics import serving
from zmq_threaded.status import fact_files

parser = pytest.importorskip('prometheus_client.parser')
FAST = {'zmq_target_update': 1, 'zmq_target_expire': 3}
CALLS = 20


def samples(text):
    """The values of all samples: dict of (name, labels)."""
    found = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, f'{key} is there twice'
            found[key] = sample.value
    return found


def total(found, name, **labels):
    return sum(value for (each, its), value in found.items()
               if each == f'zmq_threaded_{name}'
               and labels.items() <= dict(its).items())


def _printed(node):
    done = cli.run('metrics', '--transport-url', node.url())
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def busy(node):
    """A node with a server process that was called."""
    node.query.update(FAST)
    node.busy = node.process()
    transport = node.transport()
    client = node.client(transport)
    for number in range(CALLS):
        client.call({}, 'echo', value=number)
    node.client(transport, topic='nobody').cast({}, 'note', value=1)
    node.printed = waiting.until(lambda: (
        text := _printed(node)) and total(
            samples(text), 'service_running_seconds_count') >= CALLS
        and total(samples(text), 'pending_messages') and text, 30)
    return node


@pytest.mark.skipif(not shutil.which('promtool'), reason='no promtool')
def test_promtool_has_nothing_against_them(busy):
    checked = subprocess.run(['promtool', 'check', 'metrics'],
                             input=busy.printed, capture_output=True,
                             text=True)
    assert checked.returncode == 0 and not checked.stderr, checked
    assert not checked.stdout


def test_they_say_what_happened(busy):
    found = samples(busy.printed)
    server = {'pid': str(busy.busy.pid), 'process': 'server_main.py'}
    service = {**server, 'topic': 'topic', 'server': 'server',
               'exchange': 'openstack'}
    for name in ('service_running_seconds_count',
                 'service_waiting_seconds_count', 'service_taken_total'):
        assert total(found, name, **service) == CALLS, name
    assert total(found, 'service_listed', **service) == 1
    assert total(found, 'service_workers', **service) == 64
    assert total(found, 'call_seconds_count', topic='topic') == CALLS
    assert total(found, 'sent_total', pid=str(os.getpid())) == CALLS
    assert total(found, 'pending_messages', topic='nobody') == 1
    assert total(found, 'unacknowledged') == 1
    assert total(found, 'registry_answers', **server) == 1
    assert total(found, 'deaf_services') == 0
    assert total(found, 'process_info', **server) == 1


def test_the_buckets_begin_with_100_us_and_add_up(busy):
    found = samples(busy.printed)
    buckets = collections.defaultdict(dict)
    for (name, labels), value in found.items():
        if name.endswith('_bucket'):
            labels = dict(labels)
            bound = float(labels.pop('le'))
            buckets[name, frozenset(labels.items())][bound] = value
    assert len(buckets) >= 3
    for (name, labels), counts in buckets.items():
        assert min(counts) == 0.0001
        ordered = [counts[bound] for bound in sorted(counts)]
        assert ordered == sorted(ordered)
        assert ordered[-1] == found[name.replace('_bucket', '_count'), labels]


def test_two_drivers_of_a_process_are_one(node):
    node.query.update(FAST)
    first, second = node.transport(), node.transport()
    node.server(transport=first)
    node.server(transport=second, topic='other')
    text = waiting.until(lambda: (made := serving.text(node.ipc_dir))
                         and total(samples(made), 'service_listed') == 2
                         and made, 30)
    assert total(samples(text), 'sockets') >= 2


@pytest.mark.parametrize('order', [1, -1])
def test_of_two_drivers_of_a_process_the_silent_one_counts(node, order):
    node.query.update(FAST)
    node.server()
    young = waiting.until(lambda: next(fact_files.read(node.ipc_dir), None))
    silent = {**young, 'silent': young['silent'] + 5}
    ages = [sample.value
            for family in families.families([young, silent][::order])
            for sample in family.samples
            if sample.name == 'zmq_threaded_facts_age_seconds']
    assert len(ages) == 1 and ages[0] >= 5


def test_what_others_wrote_does_no_harm(node):
    node.query.update(FAST)
    node.server()
    folder = os.path.join(node.ipc_dir, fact_files.FOLDER)
    document = waiting.until(lambda: next(
        (each for each in fact_files.read(node.ipc_dir)
         if each['services'] and each['services'][0]['listed']), None))
    document['process']['name'] = 'a"b\nc\\'
    document['counts']['x y"} 1\n'] = 7
    document['services'][0]['waiting'] = {'counts': [1] * 500, 'sum': -1}
    for topics in [], [['exchange']], [['one', 'two', 'many']]:
        document['services'][0]['topics'] = topics
        with open(os.path.join(folder, 'strange.json'), 'w') as file:
            json.dump(document, file)
        found = samples(serving.text(node.ipc_dir))
        assert total(found, 'service_listed', process='a"b\nc\\') == 1
        done = cli.run('status', '--transport-url', node.url())
        assert 'Traceback' not in done.stderr and 'Topics' in done.stdout


def test_each_counter_and_gauge_of_the_page_has_its_meaning():
    meanings = families.meanings()
    assert meanings['resent'].startswith('Messages that were sent and had')
    assert 'deaf_services' in meanings and len(meanings) > 40


# Served

def _get(url):
    with contextlib.suppress(OSError):
        with urllib.request.urlopen(url, timeout=20) as response:
            return response.read().decode()


def test_they_are_served_until_it_is_interrupted(node):
    node.query.update(FAST)
    node.server()
    port = ports.free_port()
    serving_ = subprocess.Popen(
        [sys.executable, '-m', 'zmq_threaded.cli.main', 'metrics',
         '--transport-url', node.url(), '--listen', f'127.0.0.1:{port}'],
        env=processes.ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        preexec_fn=processes.restore_signals)
    try:
        assert f'127.0.0.1:{port}/metrics' in serving_.stderr.readline()
        waiting.until(lambda: total(samples(
            _get(f'http://127.0.0.1:{port}/metrics') or ''),
            'service_listed'), 30)
    finally:
        serving_.send_signal(2)
        assert serving_.wait(30) == 0
        serving_.stderr.close()


@pytest.mark.parametrize('address', ['127.0.0.1', '[::1]'])
def test_a_receiver_serves_them(node, address):
    port = ports.free_port()
    receiver = node.receiver(
        rpc_zmq_metrics_address=f'{address}:{port}', zmq_target_update=1)
    node.query.update(FAST)
    node.process()
    url = f'http://{address}:{port}/metrics'
    waiting.until(lambda: total(samples(_get(url) or ''),
                                'service_listed'), 30)
    assert receiver.terminate() == 0
    assert _get(url) is None


def test_a_receiver_goes_on_without_a_port_that_is_taken(node):
    port = ports.free_port()
    with subprocess.Popen([sys.executable, '-m', 'http.server', str(port),
                           '--bind', '127.0.0.1'],
                          stderr=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL) as other:
        waiting.until(lambda: ports.is_taken(port))
        receiver = node.receiver(
            rpc_zmq_metrics_address=f'127.0.0.1:{port}')
        node.server()
        assert node.client().call({}, 'echo', value=1) == 1
        waiting.until(lambda: 'cannot be served' in receiver.output())
        other.kill()
    waiting.until(lambda: _get(f'http://127.0.0.1:{port}/metrics'), 30)


@pytest.mark.parametrize('address', ['nonsense', '127.0.0.1', '::1:9502',
                                     '127.0.0.1:0', '127.0.0.1:99999'])
def test_a_wrong_address_is_refused_by_name(node, address):
    receiver = node.receiver(rpc_zmq_metrics_address=address, start=False)
    receiver.launch()
    assert receiver.wait() == 1
    assert 'rpc_zmq_metrics_address' in receiver.output()
    assert 'ADDRESS:PORT' in receiver.output()
    node.query = {}


def test_without_prometheus_client_it_says_what_to_install(node):
    code = ('import sys; sys.modules["prometheus_client"] = None\n'
            'from zmq_threaded.cli import main\n'
            f'sys.exit(main.main(["metrics", "--transport-url", '
            f'{node.url()!r}]))')
    done = subprocess.run([sys.executable, '-c', code], text=True,
                          capture_output=True, env=processes.ENVIRONMENT)
    assert done.returncode == 2
    assert "pip install 'zmq-threaded[metrics]'" in done.stderr


@pytest.mark.skipif(not os.access('/usr/bin/prometheus', os.X_OK),
                    reason='no prometheus')
def test_a_real_prometheus_scrapes_them(node, tmp_path):
    target, port = ports.free_ports(2)
    node.receiver(rpc_zmq_metrics_address=f'127.0.0.1:{target}',
                  zmq_target_update=1)
    node.query.update(FAST)
    node.server()
    client = node.client()
    for number in range(CALLS):
        client.call({}, 'echo', value=number)
    config = tmp_path / 'prometheus.yml'
    config.write_text(
        'global: {scrape_interval: 1s}\n'
        'scrape_configs:\n'
        '- job_name: zmq\n'
        f'  static_configs: [{{targets: ["127.0.0.1:{target}"]}}]\n')
    with open(tmp_path / 'log', 'w') as log:
        prometheus = subprocess.Popen(
            ['/usr/bin/prometheus', f'--config.file={config}',
             f'--storage.tsdb.path={tmp_path / "data"}',
             f'--web.listen-address=127.0.0.1:{port}'],
            stdout=log, stderr=log)
    query = (f'http://127.0.0.1:{port}/api/v1/query?query='
             'sum(zmq_threaded_service_running_seconds_count)')
    try:
        def scraped():
            answer = json.loads(_get(query) or '{}')
            result = answer.get('data', {}).get('result', [])
            return result and float(result[0]['value'][1]) == CALLS
        waiting.until(scraped, 60, lambda: (
            _get(query), (tmp_path / 'log').read_text()[-2000:]))
    finally:
        prometheus.terminate()
        prometheus.wait(20)


def test_the_dashboard_asks_for_metrics_that_there_are(busy):
    path = os.path.join(processes._ROOT, 'tools', 'grafana-dashboard.json')
    with open(path) as file:
        dashboard = json.load(file)
    there = {name for name, _ in samples(busy.printed)}
    counted = {f'zmq_threaded_{name}' for name in families.meanings()}
    counted |= {f'{name}_total' for name in counted}
    asked = set()
    for panel in dashboard['panels']:
        for each in panel.get('targets', ()):
            asked |= set(families.re.findall(r'zmq_threaded_\w+',
                                             each['expr']))
    may_be_empty = {'zmq_threaded_findings',
                    'zmq_threaded_service_events_total'}
    assert len(asked) > 10
    assert asked <= there | counted | may_be_empty
