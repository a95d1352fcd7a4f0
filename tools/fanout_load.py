#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long a fanout takes until its last handler has run.

Starts server processes with many RPC servers each, and sends fanouts to all of
them, one after the other, from a transport that is new for each run. The first
fanout of a run is cold: it opens all connections. Those that follow are warm.
While they are under way another thread of the sending process makes calls.

    tools/venv python tools/fanout_load.py
    tools/venv python tools/fanout_load.py --servers 4 --instances 25
    tools/venv python tools/fanout_load.py --url zmq+redis://127.0.0.1:6379

All times are those of CLOCK_MONOTONIC, which the processes of a machine share:
from before cast() until the last handler began.
"""

import argparse
import collections
import contextlib
import json
import math
import os
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from native_threads import use_native_threads

# Before anything of oslo is imported.
use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402

# Seconds after which a fanout is given up.
PATIENCE = 30.0
START_LIMIT = 300.0
CALL_TIMEOUT = 10
CONTEXT = {}


# The server processes

class Arrivals:
    """When each fanout arrived, and at how many servers of this process.

    Thread: any.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._seen = collections.defaultdict(collections.Counter)
        self._first, self._last = {}, {}

    def note(self, number, server):
        """A handler begins."""
        now = time.monotonic()
        with self._lock:
            self._seen[number][server] += 1
            self._first.setdefault(number, now)
            self._last[number] = now

    def of(self, number):
        """What is known of one fanout, as JSON."""
        with self._lock:
            seen = self._seen.get(number, {})
            return {'reached': len(seen), 'arrivals': sum(seen.values()),
                    'first': self._first.get(number),
                    'last': self._last.get(number)}


class Endpoint:
    """The endpoint of one server."""

    def __init__(self, name, arrivals):
        self._name = name
        self._arrivals = arrivals

    def take(self, ctxt, number):
        self._arrivals.note(number, self._name)

    def echo(self, ctxt, number):
        return number


def serve(spec):
    """Run servers until standard input ends; answer questions meanwhile."""
    configure()
    transport = open_transport(spec['url'])
    arrivals = Arrivals()
    servers = [server_of(transport, spec['topic'], f'{os.getpid()}-{number}',
                         arrivals) for number in range(spec['instances'])]
    for server in servers:
        server.start()
    print(json.dumps({'ready': len(servers)}), flush=True)
    for line in sys.stdin:
        print(json.dumps(arrivals.of(json.loads(line)) | usage()), flush=True)
    # Thousands of orderly ends are not what is measured here.
    os._exit(0)


def server_of(transport, topic, name, arrivals):
    return oslo_messaging.get_rpc_server(
        transport, oslo_messaging.Target(topic=topic, server=name),
        [Endpoint(name, arrivals)])


def usage():
    """CPU seconds, voluntary context switches and threads of this
    process.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {'cpu': used.ru_utime + used.ru_stime, 'switches': used.ru_nvcsw,
            'threads': threading.active_count()}


# Both sides

def configure():
    cfg.CONF([], project='fanout_load', default_config_files=[],
             default_config_dirs=[])


def open_transport(url):
    return oslo_messaging.get_rpc_transport(cfg.CONF, url)


class Servers:
    """The handle on one server process."""

    def __init__(self, url, topic, instances):
        spec = {'url': url, 'topic': topic, 'instances': instances}
        self._process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), '--serve',
             json.dumps(spec)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True)

    def answer(self):
        return json.loads(self._process.stdout.readline())

    def ask(self, number):
        """What this process knows of a fanout."""
        self._process.stdin.write(f'{number}\n')
        self._process.stdin.flush()
        return self.answer()

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@contextlib.contextmanager
def serving(url, topic, processes, instances):
    """So many processes with so many servers each."""
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(processes):
            started.append(Servers(url, topic, instances))
            stack.callback(started[-1].close)
        for each in started:
            each.answer()
        yield started


# The sending process

class Caller:
    """A thread that makes one call after the other.

    Thread: any; a caller of its own.
    """

    def __init__(self, transport, topic, is_wanted):
        self._client = oslo_messaging.get_rpc_client(
            transport, oslo_messaging.Target(topic=topic),
            timeout=CALL_TIMEOUT)
        self._stop = threading.Event()
        if not is_wanted:
            self._stop.set()
        self.spans = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()

    def _run(self):
        number = 0
        while not self._stop.wait(0.002):
            began = time.monotonic()
            self._client.call(CONTEXT, 'echo', number=number)
            self.spans.append((began, time.monotonic()))
            number += 1

    def latencies(self, began, ended):
        """Of the calls that were under way in a span, in seconds."""
        return [last - first for first, last in self.spans
                if last >= began and first <= ended]


def fanout(client, servers, number, expected):
    """Send one; returns what came of it."""
    before = [each.ask(-1) for each in servers]
    began = time.monotonic()
    client.cast(CONTEXT, 'take', number=number)
    deadline = began + PATIENCE
    while True:
        # Seldom: who asks takes time from who is measured.
        time.sleep(0.25)
        found = [each.ask(number) for each in servers]
        if (sum(each['reached'] for each in found) >= expected
                or time.monotonic() > deadline):
            return outcome(began, found, expected) | spent(before, found)


def spent(before, after):
    """What the server processes used in between."""
    return {name: sum(each[name] for each in after)
            - sum(each[name] for each in before)
            for name in ('cpu', 'switches')}


def outcome(began, found, expected):
    lasts = [each['last'] for each in found if each['last']]
    firsts = [each['first'] for each in found if each['first']]
    reached = sum(each['reached'] for each in found)
    return {'began': began, 'ended': max(lasts, default=began),
            'last_ms': 1000 * (max(lasts) - began) if lasts else None,
            'first_ms': 1000 * (min(firsts) - began) if firsts else None,
            'missing': expected - reached,
            'repeated': sum(each['arrivals'] for each in found) - reached}


def run(arguments, servers, topic, numbers):
    """One run: a new transport, a cold fanout and warm ones."""
    transport = open_transport(arguments.url)
    results = []
    try:
        with Caller(transport, f'{topic}-calls', arguments.calls) as caller:
            client = oslo_messaging.get_rpc_client(
                transport, oslo_messaging.Target(topic=topic, fanout=True))
            time.sleep(0.5)
            for _ in range(1 + arguments.warm):
                each = fanout(client, servers, next(numbers),
                              arguments.servers * arguments.instances)
                calls = caller.latencies(each['began'], each['ended'])
                results.append(each | {'calls_ms': [1000 * span
                                                    for span in calls]})
                time.sleep(arguments.interval)
    finally:
        transport.cleanup()
    return results


def summary(name, results):
    lasts = sorted(each['last_ms'] for each in results if each['last_ms'])
    calls = sorted(span for each in results for span in each['calls_ms'])
    line = {'fanouts': name, 'count': len(results),
            'median_ms': round(statistics.median(lasts), 1) if lasts else None,
            'least_ms': round(lasts[0], 1) if lasts else None,
            'worst_ms': round(lasts[-1], 1) if lasts else None,
            'missing': sum(each['missing'] for each in results),
            'repeated': sum(each['repeated'] for each in results),
            'server_cpu_ms': round(1000 * statistics.median(
                each['cpu'] for each in results)),
            'server_switches': round(statistics.median(
                each['switches'] for each in results))}
    if calls:
        line |= {'calls': len(calls),
                 'call_p50_ms': round(statistics.median(calls), 2),
                 'call_p99_ms': round(calls[int(len(calls) * 0.99)], 1),
                 'call_worst_ms': round(calls[-1], 1)}
    return line


def measure(arguments):
    topic = f'fanout_{secrets.token_hex(4)}'
    numbers = iter(range(10 ** 9))
    cold, warm = [], []
    with serving(arguments.url, topic, arguments.servers,
                 arguments.instances) as servers, serving(
                     arguments.url, f'{topic}-calls', 1, 1):
        idle = idle_cost(servers, arguments.idle)
        for _ in range(arguments.runs):
            first, *others = run(arguments, servers, topic, numbers)
            print(*(f'{each["last_ms"] or math.inf:.1f} ms'
                    for each in (first, *others)), file=sys.stderr,
                  flush=True)
            cold.append(first)
            warm += others
    return [summary('cold', cold), *([summary('warm', warm)] if warm else []),
            *([idle] if idle else [])]


def idle_cost(servers, seconds):
    """CPU of all server processes while nothing is sent."""
    if not seconds:
        return None
    before = [each.ask(-1) for each in servers]
    time.sleep(seconds)
    found = [each.ask(-1) for each in servers]
    cpu = spent(before, found)['cpu']
    return {'idle_cpu_percent': round(100 * cpu / seconds, 1),
            'threads': sum(each['threads'] for each in found)}


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--url', help='default: zmq:// in a directory of its '
                        'own')
    parser.add_argument('--servers', type=int, default=5, metavar='N',
                        help='server processes (%(default)s)')
    parser.add_argument('--instances', type=int, default=200, metavar='N',
                        help='RPC servers of each (%(default)s)')
    parser.add_argument('--runs', type=int, default=10, metavar='N',
                        help='each with a new transport (%(default)s)')
    parser.add_argument('--warm', type=int, default=1, metavar='N',
                        help='more fanouts of each run (%(default)s)')
    parser.add_argument('--interval', type=float, default=1.0, metavar='S',
                        help='seconds after a fanout (%(default)s)')
    parser.add_argument('--idle', type=float, default=0.0, metavar='S',
                        help='first see for so long what idle servers cost')
    parser.add_argument('--calls', action='store_true',
                        help='make calls meanwhile')
    parser.add_argument('--serve', help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    arguments = parse()
    if arguments.serve:
        return serve(json.loads(arguments.serve))
    configure()
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.url:
            arguments.url = f'zmq:///?rpc_zmq_ipc_dir={folder}'
        for line in measure(arguments):
            print(json.dumps(line))


if __name__ == '__main__':
    main()
