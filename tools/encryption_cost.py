# SPDX-License-Identifier: Apache-2.0
"""CPU of a call over direct TCP, open and encrypted, of both ends together.

    python tools/encryption_cost.py ROUNDS

Two servers and two clients, in a process each; the rounds of both come in
turn.
"""

import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from urllib import parse

import native_threads

native_threads.use_native_threads()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402

from zmq_threaded import endpoints  # noqa: E402
from zmq_threaded.security import keys  # noqa: E402

# Bytes of a call, each way, and calls of a round.
_ROUNDS = (64, 2000), (2500, 2000), (10000, 1000), (1000000, 60)
_THREADS, _TIMEOUT = 4, 60


def cpu():
    """Seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Endpoint:
    def echo(self, ctxt, value):
        return value

    def cpu(self, ctxt):
        return cpu()


def serve(url):
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    server = oslo_messaging.get_rpc_server(
        transport, oslo_messaging.Target(topic='topic', server='server'),
        [Endpoint()])
    server.start()
    print('ready', flush=True)
    sys.stdin.read()
    server.stop()
    server.wait()
    transport.cleanup()


def call(url):
    # As if the server were on another machine.
    endpoints.reachable = lambda those: next(
        (each for each in those if each.startswith('tcp:')), None)
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    client = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic='topic'), timeout=_TIMEOUT)
    client.call({}, 'echo', value='')
    print('ready', flush=True)
    for line in sys.stdin:
        print(json.dumps(_round(client, *json.loads(line))), flush=True)
    transport.cleanup()


def _round(client, size, count):
    """Microseconds of a call."""
    value = 'x' * size

    def work():
        for _ in range(count // _THREADS):
            client.call({}, 'echo', value=value)
    before = client.call({}, 'cpu') + cpu()
    threads = [threading.Thread(target=work) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 1e6 * (cpu() + client.call({}, 'cpu') - before) / count


class Child:
    def __init__(self, role, url):
        self._popen = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), role, url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._popen.stdout.readline() == 'ready\n'

    def ask(self, *question):
        print(json.dumps(question), file=self._popen.stdin, flush=True)
        return json.loads(self._popen.stdout.readline())

    def end(self):
        self._popen.stdin.close()
        self._popen.wait(_TIMEOUT)


def _url(folder, name, **query):
    path = pathlib.Path(folder, name)
    path.mkdir(0o700)
    return 'zmq://?' + parse.urlencode({
        'rpc_zmq_ipc_dir': path, 'rpc_zmq_transport': 'tcp',
        'rpc_zmq_host': '127.0.0.1', 'rpc_zmq_bind_address': '127.0.0.1',
        **query})


def measure(folder, rounds):
    trusted = pathlib.Path(folder, 'trusted')
    trusted.mkdir()
    public, secret = keys.create(folder, 'pair')
    shutil.copy(public, trusted)
    urls = {'open': _url(folder, 'open'), 'encrypted': _url(
        folder, 'encrypted', rpc_zmq_key_file=secret,
        rpc_zmq_trusted_keys=trusted)}
    servers = [Child('serve', url) for url in urls.values()]
    clients = {name: Child('call', url) for name, url in urls.items()}
    for size, count in _ROUNDS:
        _tell(size, _measured(clients, rounds, size, count))
    for child in (*clients.values(), *servers):
        child.end()


def _measured(clients, rounds, size, count):
    found = {name: [] for name in clients}
    for number in range(rounds + 1):
        for name in sorted(clients, reverse=number % 2 == 0):
            micros = clients[name].ask(size, count)
            if number:      # the first is warm-up
                found[name].append(micros)
    return found


def _tell(size, found):
    medians = {name: statistics.median(all_) for name, all_ in found.items()}
    told = ', '.join(f'{name} {medians[name]:.0f} us ({min(all_):.0f} to '
                     f'{max(all_):.0f})' for name, all_ in found.items())
    print(f'{size} bytes: {told}, ratio '
          f'{medians["encrypted"] / medians["open"]:.2f}', flush=True)


def main(what, url=''):
    cfg.CONF([], project='zmq_threaded_cost')
    if what in ('serve', 'call'):
        return {'serve': serve, 'call': call}[what](url)
    with tempfile.TemporaryDirectory(prefix='zt-') as folder:
        measure(folder, int(what))


if __name__ == '__main__':
    main(*sys.argv[1:])
