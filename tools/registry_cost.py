#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the registry costs a redis: operations, bytes and its CPU time.

Starts a redis-server of its own, fills a topic with simulated instances and
counts, by the server's own INFO, what a real client and a real service do:

    tools/venv python tools/registry_cost.py
    tools/venv python tools/registry_cost.py --sizes 10,50000 --hosts 2000
"""

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import redis
from tooz import utils as tooz_utils

from zmq_threaded import topic
from zmq_threaded.registry import complaints
from zmq_threaded.registry import engines
from zmq_threaded.registry import look_ups
from zmq_threaded.registry import record
from zmq_threaded.registry import registry as registries
from zmq_threaded.registry import stamps
from zmq_threaded.status import facts
from zmq_threaded.status import processes

EXPIRE, UPDATE = 30, 10     # the defaults
# Of tooz; simulated members are written as it writes them.
GROUP, BEAT, GROUPS = '_tooz_group:', '_tooz_beats:', '_tooz_groups'
REPEATS = 20


class Meter:
    """What the server did, by difference."""

    def __init__(self, server):
        self._server = server

    def measure(self, operation, repeats=REPEATS):
        """:returns: dict of averages for one run of the operation"""
        operation()     # connects, loads scripts
        look = self._difference(self._counts(), self._counts())
        before, began = self._counts(), time.perf_counter()
        for _ in range(repeats):
            operation()
        seconds = time.perf_counter() - began
        costs = self._difference(before, self._counts())
        return {name: (costs[name] - look[name]) / repeats for name in costs
                } | {'ms': 1000 * seconds / repeats}

    @staticmethod
    def _difference(before, after):
        return {name: after[name] - before[name] for name in before}

    def _counts(self):
        info = self._server.info('all')
        stats = [value for name, value in info.items()
                 if name.startswith('cmdstat_') and name != 'cmdstat_info']
        return {'commands': sum(each['calls'] for each in stats),
                'cpu_us': sum(each['usec'] for each in stats),
                'in': info['total_net_input_bytes'],
                'out': info['total_net_output_bytes']}


def simulate(server, key, count):
    """So many instances of other hosts, as their processes would have
    registered them.
    """
    pipe = server.pipeline(transaction=False)
    pipe.sadd(GROUPS, key)
    pipe.hset(GROUP + key, '__created__', '1')
    for number in range(count):
        instance = record.Instance(
            os.urandom(16), (f'tcp://compute-{number:05}.example.org:49153',))
        member = os.urandom(8).hex()
        pipe.hset(GROUP + key, member,
                  tooz_utils.dumps(record.encode([instance])))
        pipe.psetex(BEAT + member, 3600_000, 'Not dead!')
        if number % 1000 == 999:
            pipe.execute()
    pipe.execute()


def costs(server, url, size):
    """What each operation costs with so many instances in the topic."""
    key = topic.rpc('nova', f'compute-{size}').key
    simulate(server, key, size - 1)
    meter, numbers = Meter(server), iter(range(10 ** 6))

    def one():
        return record.Instance(
            os.urandom(16), (f'tcp://host-{next(numbers)}:49153',))
    service, mine = engines.distributed(url, EXPIRE), one()
    own_key = topic.rpc('nova', f'compute-{size}', 'host').key
    nobody_key = topic.rpc('nova', 'nobody').key
    client = engines.distributed(url, EXPIRE)
    try:
        def come_and_go():
            other = one()
            service.register(other, [key, own_key])
            service.unregister(other)
        come_and_go()
        service.register(mine, [key, own_key])
        return {'refresh of the topic': meter.measure(
                    lambda: client.lookup(key)),
                'look for nobody': meter.measure(
                    lambda: client.lookup(nobody_key)),
                'refresh of one server': meter.measure(
                    lambda: client.lookup(own_key)),
                'beat of a process': meter.measure(service.beat),
                'facts of a process': meter.measure(
                    lambda: service.tell(facts_of(mine))),
                'look for complaints': meter.measure(
                    lambda: client.stored(complaints.key_of('host'))),
                'start and stop': meter.measure(come_and_go)}
    finally:
        service.close()
        client.close()


def facts_of(instance):
    """Of a process with one service that has been used, as it tells them."""
    used = {'counts': [0] * 20 + [os.urandom(1)[0] for _ in range(10)],
            'sum': time.monotonic()}
    return facts.compress(facts.encode({
        'format': facts.FORMAT, 'kind': 'runtime', 'id': os.urandom(8).hex(),
        'seq': 1000, 'every': 10.0, 'at': time.time(),
        'stamp': stamps.now().hex(), 'server_at': time.time(),
        'process': processes.myself(),
        'counts': {f'counter_of_{n}': 12345 for n in range(20)},
        'services': [{
            'id': instance.id.hex(), 'kind': 'rpc',
            'topics': [['nova', 'compute']], 'server': 'compute-00001',
            'endpoints': list(instance.endpoints), 'listed': True,
            'up': time.monotonic(), 'workers': 64, 'busy': 1,
            'waiting': used, 'running': used}]}))


@contextlib.contextmanager
def redis_server():
    binary = shutil.which('redis-server')
    if not binary:
        sys.exit('redis-server is missing: apt-get install -y redis-server')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [binary, '--port', str(port), '--bind', '127.0.0.1', '--dir',
             folder, '--save', ''], stdout=subprocess.DEVNULL)
        try:
            with redis.Redis(port=port) as server:
                yield wait_for(server), f'redis://127.0.0.1:{port}'
        finally:
            process.terminate()
            process.wait()


def wait_for(server):
    deadline = time.monotonic() + 10
    while True:
        try:
            server.ping()
            return server
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def table(results):
    yield ('| instances | operation | commands | bytes to redis | bytes from '
           'redis | redis CPU | round trip |')
    yield '|---|---|---|---|---|---|---|'
    for size, operations in results.items():
        for name, cost in operations.items():
            yield (f'| {size:,} | {name} | {cost["commands"]:.0f} | '
                   f'{cost["in"]:,.0f} | {cost["out"]:,.0f} | '
                   f'{cost["cpu_us"]:,.0f} us | {cost["ms"]:.1f} ms |')


def meaning(results, hosts, per_host, topics):
    """For one redis, with the default periods."""
    small = results[min(results)]
    beats = hosts * per_host / (EXPIRE / 3)
    refreshes = hosts * per_host * topics / UPDATE
    refresh = small['refresh of the topic']
    beat = {name: sum(small[each][name] for each in (
        'beat of a process', 'facts of a process', 'look for complaints'))
        for name in refresh}
    yield (f'{hosts:,} hosts with {per_host} service processes each, each '
           f'using {topics} topics of {min(results)} instances: '
           f'{2 * hosts * per_host:,} connections (each has one for '
           'questions and one for notices),')
    for name, rate, cost in (('beats with facts', beats, beat),
                             ('refreshes', refreshes, refresh)):
        yield (f'  {rate:,.0f} {name}/s = {rate * cost["commands"]:,.0f} '
               f'commands/s, {rate * (cost["in"] + cost["out"]) / 1e6:.1f} '
               f'MB/s, {rate * cost["cpu_us"] / 1e4:.0f} % of redis\'s core '
               '(its commands alone)')
    look = small['look for nobody']
    look_bytes = look['in'] + look['out']
    for who, pause in (('messages that wait for nobody', UPDATE),
                       ('a call that waits for a server',
                        registries.IN_HASTE)):
        rate = hosts * per_host / pause
        yield (f'  {who}, in every process: {rate:,.0f} look-ups/s = '
               f'{rate * look["commands"]:,.0f} commands/s, '
               f'{rate * look_bytes / 1e6:.1f} MB/s, '
               f'{rate * look["cpu_us"] / 1e4:.0f} % of the core')
    spread = hosts * per_host * look_ups.LOOK_UP
    yield (f'  a topic appears for which every process waits: the look-ups '
           f'are spread over {spread:.0f} s, so {1 / look_ups.LOOK_UP:,.0f} '
           f'look-ups/s = {refresh["commands"] / look_ups.LOOK_UP:,.0f} '
           f'commands/s')
    large = results[max(results)]['refresh of the topic']
    yield (f'  a client that uses a topic of {max(results):,} (fanouts): '
           f'{large["out"] / UPDATE / 1e3:,.0f} kB/s and '
           f'{large["cpu_us"] / UPDATE / 1e4:.2f} % of the core each')


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', default='100,1000,10000',
                        help='instances in a topic (%(default)s)')
    parser.add_argument('--hosts', type=int, default=10000)
    parser.add_argument('--processes', type=int, default=4,
                        help='service processes of a host (%(default)s)')
    parser.add_argument('--topics', type=int, default=2,
                        help='topics that a process uses (%(default)s)')
    arguments = parser.parse_args()
    with redis_server() as (server, url):
        results = {size: costs(server, url, size)
                   for size in map(int, arguments.sizes.split(','))}
    print(*table(results), '', *meaning(
        results, arguments.hosts, arguments.processes, arguments.topics),
        sep='\n')


if __name__ == '__main__':
    main()
