# SPDX-License-Identifier: Apache-2.0
"""The tools of the house work over zmq: oslo.metrics, OpenTelemetry, Guru
Meditation Reports and the readiness of systemd.
"""

import collections
import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from tests.support import processes
from tests.support import waiting
from zmq_threaded.receiver import readiness

trace_service = pytest.importorskip(
    'opentelemetry.proto.collector.trace.v1.trace_service_pb2')
pytest.importorskip('oslo_metrics')
pytest.importorskip('oslo_reports')


class Datagrams:
    """What is sent to a Unix socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(0.05)
        self.seen = []

    def all(self):
        with contextlib.suppress(TimeoutError):
            while True:
                self.seen.append(self.socket.recv(65536).decode())
        return self.seen


class Spans:
    """A collector of OpenTelemetry: a list of (service, span)."""

    def __init__(self):
        spans = self.all = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                size = int(self.headers['Content-Length'])
                request = trace_service.ExportTraceServiceRequest()
                request.ParseFromString(self.rfile.read(size))
                for resource in request.resource_spans:
                    service = next(
                        each.value.string_value for each
                        in resource.resource.attributes
                        if each.key == 'service.name')
                    spans.extend((service, span) for scope
                                 in resource.scope_spans
                                 for span in scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args):
                """Nothing."""
        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0),
                                                       Handler)
        self.endpoint = f'http://127.0.0.1:{self._server.server_port}'
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def of(self, service, name):
        return [span for whose, span in self.all
                if whose == service and span.name == name]


class Process:
    """A house_main.py."""

    def __init__(self, role, *arguments):
        self._popen = subprocess.Popen(
            processes.command('house_main.py', role, *arguments),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
            env={**processes.ENVIRONMENT, 'no_proxy': '127.0.0.1'})
        self.pid = self._popen.pid
        assert self._popen.stdout.readline() == 'ready\n', (
            self._popen.stderr.read())

    def ask(self):
        self._popen.stdin.write('\n')
        self._popen.stdin.flush()
        return json.loads(self._popen.stdout.readline())

    def end(self):
        """:returns: what it wrote to stderr"""
        if not self._popen.stdin.closed:
            _, self.errors = self._popen.communicate(timeout=30)
        return self.errors


@pytest.fixture
def house(node, tmp_path):
    """A server and a client, and the collectors of both."""
    with contextlib.ExitStack() as stack:
        node.spans = Spans()
        stack.callback(node.spans.close)
        node.metrics = Datagrams(str(tmp_path / 'metrics'))
        stack.callback(node.metrics.socket.close)
        node.reports = tmp_path / 'reports'
        node.reports.mkdir()
        for role in 'server', 'client':
            made = Process(role, node.url(), str(tmp_path / 'metrics'),
                           node.spans.endpoint, str(node.reports))
            setattr(node, f'{role}_process', made)
            stack.callback(made.end)
        yield node


def test_traces_go_from_the_client_to_the_server(house):
    # When a client calls, casts, and calls what fails
    answer = house.client_process.ask()
    assert answer['error'] == 'ValueError'
    house.client_process.end(), house.server_process.end()
    # Then each span of the server has that of the client for its parent
    for kind, count in (('trace', 2), ('fail', 1)):
        sent = house.spans.of('client', f'house.{kind}')
        received = house.spans.of('server', f'{kind} receive')
        assert len(sent) == len(received) == count, (
            house.client_process.errors)
        assert {span.span_id for span in sent} == {
            span.parent_span_id for span in received}
        assert {span.trace_id for span in sent} == {
            span.trace_id for span in received}
    # ... as the endpoint sees it, too
    assert answer['parent'].split('-')[1] in {
        span.trace_id.hex() for _, span in house.spans.all}
    failed, = house.spans.of('server', 'fail receive')
    ids = {each.key: each.value.string_value for each in failed.attributes}
    assert len(ids['messaging.message.id']) == 32


def test_metrics_are_sent_for_each_call(house):
    house.client_process.ask()
    house.client_process.end()
    count = collections.Counter()
    for line in house.metrics.all():
        metric = json.loads(line)
        labels = metric['labels']
        count[metric['name'], labels['method'], labels['call_type']] += 1
        assert labels['topic'] == 'house' and labels['process'] == 'client'
    start, end, failed = (f'rpc_client_{each}' for each in (
        'invocation_start_total', 'invocation_end_total', 'exception_total'))
    assert count[start, 'trace', 'call'] == count[end, 'trace', 'call'] == 1
    assert count[start, 'trace', 'cast'] == count[end, 'trace', 'cast'] == 1
    assert count['rpc_client_processing_seconds', 'trace', 'call'] == 1
    assert count[start, 'fail', 'call'] == count[failed, 'fail', 'call'] == 1


def test_a_guru_meditation_report_has_a_section_of_ours(house):
    os.kill(house.server_process.pid, signal.SIGUSR2)

    def report():
        for path in house.reports.iterdir():
            text = path.read_text()
            if 'Messages over zmq' in text:
                return text
    text = waiting.until(report, 20)
    section = text.split('Messages over zmq')[1]
    assert 'here on ' in section and 'of house (exchange ' in section
    assert 'endpoints = ipc://' in section and 'workers = ' in section
    assert 'zmq-registry = ' in section and 'zmq-poller-' in section
    assert 'in custody, by topic = nothing' in section


def test_the_section_says_what_is_in_custody(node):
    from zmq_threaded import exits
    client = node.client(node.transport())
    client.cast({}, 'note', value='secret')
    sections = exits.describe()
    text = waiting.until(lambda: [each for each in exits.describe().values()
                                  if '1 messages, the oldest' in str(each)])
    assert 'topic (exchange openstack)' in str(text)
    assert 'secret' not in str(text) and 'zmq-outbox' in sections['threads']


def test_without_oslo_reports_there_is_no_section():
    code = ('import sys, native_threads; native_threads.use_native_threads()\n'
            'from oslo_config import cfg\n'
            'sys.modules["oslo_reports"] = None\n'
            'import oslo_messaging\n'
            'cfg.CONF([])\n'
            'made = oslo_messaging.get_rpc_transport(cfg.CONF, "zmq://")\n'
            'from zmq_threaded.health import meditation\n'
            'print(meditation._registered)')
    ended = subprocess.run([sys.executable, '-c', code], capture_output=True,
                           text=True, timeout=60, env=processes.ENVIRONMENT)
    assert ended.stdout == '[]\n', ended.stderr


# systemd

@pytest.fixture(params=['a path', 'abstract'])
def notified(request, tmp_path):
    """(value of NOTIFY_SOCKET, the Datagrams that come there)"""
    path = str(tmp_path / 'notify')
    is_abstract = request.param == 'abstract'
    heard = Datagrams('\0' + path if is_abstract else path)
    with heard.socket:
        yield f'@{path}' if is_abstract else path, heard


def test_systemd_hears_when_a_receiver_is_ready_and_when_it_stops(
        node, notified):
    address, heard = notified
    receiver = node.receiver(before=('env', f'NOTIFY_SOCKET={address}'))
    ready = waiting.until(heard.all)
    assert ready[0].splitlines()[0] == 'READY=1' and len(ready) == 1
    assert receiver.terminate() == 0
    assert heard.all()[1].splitlines()[0] == 'STOPPING=1'


def test_a_receiver_that_cannot_start_is_never_ready(node, notified):
    address, heard = notified
    first = node.receiver()
    second = node.receiver(before=('env', f'NOTIFY_SOCKET={address}'),
                           port=first.port, start=False,
                           rpc_zmq_bind_address='127.0.0.1')
    second.launch()
    second.wait()
    assert heard.all() == []
    node.query = {}


def test_without_systemd_nobody_is_told(monkeypatch, caplog):
    monkeypatch.delenv('NOTIFY_SOCKET', raising=False)
    readiness.tell(readiness.READY)
    monkeypatch.setenv('NOTIFY_SOCKET', '/nowhere/at/all')
    readiness.tell(readiness.READY)
    assert 'systemd was not told READY=1' in caplog.text
