# SPDX-License-Identifier: Apache-2.0
"""A server or a client of which the tools of the house are told: metrics of
oslo.metrics, traces of OpenTelemetry, and Guru Meditation Reports.

Arguments: 'server' or 'client', URL, socket of the metrics, endpoint of the
traces, directory of the reports. A client prints, as a line of JSON, what the
server found in the context of a call.
"""

import importlib
import json
import signal
import sys

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_reports import guru_meditation_report  # noqa: E402

from tests.support import idle_threads  # noqa: E402, F401

TARGET = oslo_messaging.Target(topic='house', server='here')


class Version:
    """What a report says of the program."""

    vendor_string = staticmethod(lambda: 'tests')
    product_string = staticmethod(lambda: 'house')
    version_string_with_package = staticmethod(lambda: '1')


class Endpoint:
    """Notes what came in the context."""

    def trace(self, ctxt):
        return ctxt.get('traceparent', '')

    def fail(self, ctxt):
        raise ValueError('as it should')


def main(role, url, metrics, traces, reports):
    _configure(role, metrics, traces, reports)
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    if role == 'server':
        _serve(transport)
    else:
        _call(transport)
    transport.cleanup()
    _flush_traces()


# oslo.messaging 18.3 uses this module of the exporter without importing it.
importlib.import_module(
    'opentelemetry.exporter.otlp.proto.http.trace_exporter')


def _configure(role, metrics, traces, reports):
    cfg.CONF([], project='zmq_threaded_tests')
    for group, name, value in (
            ('oslo_messaging_metrics', 'metrics_enabled', True),
            ('oslo_messaging_metrics', 'metrics_socket_file', metrics),
            ('oslo_messaging_metrics', 'metrics_process_name', role),
            ('oslo_messaging_metrics', 'metrics_thread_stop_timeout', 1),
            ('oslo_messaging_tracing', 'tracing_enabled', True),
            ('oslo_messaging_tracing', 'tracing_service_name', role),
            ('oslo_messaging_tracing', 'otel_exporter_otlp_endpoint',
             traces)):
        cfg.CONF.set_override(name, value, group=group)
    guru_meditation_report.TextGuruMeditation.setup_autorun(
        Version, service_name=role, log_dir=reports, signum=signal.SIGUSR2)


def _serve(transport):
    server = oslo_messaging.get_rpc_server(transport, TARGET, [Endpoint()])
    server.start()
    print('ready', flush=True)
    sys.stdin.read()
    server.stop()
    server.wait()


def _call(transport):
    print('ready', flush=True)
    sys.stdin.readline()
    client = oslo_messaging.get_rpc_client(transport, TARGET, timeout=20)
    parent = client.call({}, 'trace')
    client.cast({}, 'trace')
    error = ''
    try:
        client.call({}, 'fail')
    except Exception as raised:
        error = type(raised).__name__
    print(json.dumps({'parent': parent, 'error': error}), flush=True)
    sys.stdin.read()


def _flush_traces():
    from opentelemetry import trace
    trace.get_tracer_provider().force_flush()


main(*sys.argv[1:])
