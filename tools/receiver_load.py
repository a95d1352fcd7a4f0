#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Messages a second that a receiver forwards, against a bare zmq.proxy.

Between the same kind of processes, in turn: clients that keep a window of
requests under way on a DEALER over TCP, and services that echo from a ROUTER
over IPC. A request and its reply are two forwarded messages.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

_TOOLS = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [_TOOLS, os.path.dirname(_TOOLS)]

import zmq  # noqa: E402
from load import node  # noqa: E402

from zmq_threaded import wire  # noqa: E402

_HOST = '127.0.0.1'
_START_SECONDS = 15
_SILENCE_MS = 10_000
_CLOCK_TICK = os.sysconf('SC_CLK_TCK')
RECEIVER, PROXY = 'receiver', 'zmq.proxy'


def main(arguments):
    """Run the tool; returns its exit code."""
    if arguments[:1] == ['--role']:
        return _ROLES[arguments[1]](**json.loads(arguments[2]))
    options = _parser().parse_args(arguments)
    ratios = []
    for number in range(1, options.rounds + 1):
        rates = {kind: _round(kind, options) for kind in (RECEIVER, PROXY)}
        ratios.append(rates[RECEIVER] / rates[PROXY])
        print(f'round {number}: {ratios[-1]:.2f}', flush=True)
    ratio = statistics.median(ratios)
    print(f'{RECEIVER} forwards {ratio:.2f} times what {PROXY} does '
          f'({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds, '
          f'{options.size} bytes)')
    return int(ratio < options.least)


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, default, text in (
        ('size', 2500, 'bytes of each message'),
        ('window', 200, 'requests under way of each client'),
        ('clients', 1, 'client processes'),
        ('services', 1, 'service processes'),
        ('rounds', 5, 'turns of each'),
    ):
        parser.add_argument(
            f'--{name}', type=int, default=default, metavar='N', help=text
        )
    parser.add_argument(
        '--seconds', type=float, default=3.0, help='timed part of each turn'
    )
    parser.add_argument(
        '--least', type=float, default=0.0, help='exit with 1 below this ratio'
    )
    return parser


def _round(kind, options):
    """Print and return the forwarded messages a second of one turn."""
    with tempfile.TemporaryDirectory(prefix='rl-') as directory:
        run = _Run(kind, options, directory)
        try:
            rate, cpu = run.measure()
        finally:
            run.end()
    print(
        f'{kind:>10}: {rate:>9,.0f} messages/s, '
        f'its CPU {cpu:.1f} us a message',
        flush=True,
    )
    return rate


class _Run:
    """The processes of one turn, from start to end."""

    def __init__(self, kind, options, directory):
        self._options = options
        self._directory = directory
        self._ids = [wire.id_maker()() for _ in range(options.services)]
        self._processes = []
        self._forwarder = None
        for each in self._ids:
            self._start('service', path=self._path(each))
        self._port = node.free_port()
        self._start_forwarder(kind)

    def measure(self):
        """Return messages a second, and the forwarder's CPU for each in us."""
        clients = [
            self._start(
                'client',
                port=self._port,
                size=self._options.size,
                window=self._options.window,
                seconds=self._options.seconds,
                ids=[each.hex() for each in self._ids],
            )
            for _ in range(self._options.clients)
        ]
        for client in clients:
            _read(client)
        before = _cpu(self._forwarder)
        results = [_read(client) for client in clients]
        spent = _cpu(self._forwarder) - before
        messages = 2 * sum(result['echoes'] for result in results)
        seconds = statistics.mean(result['seconds'] for result in results)
        return messages / seconds, spent / messages * 1e6

    def end(self):
        """End all processes."""
        if hasattr(self, '_receiver'):
            self._receiver.stop()
        for process in self._processes:
            process.kill()
            process.wait()
            process.stdout.close()

    def _start_forwarder(self, kind):
        if kind == PROXY:
            process = self._start(
                'proxy',
                port=self._port,
                paths=[self._path(each) for each in self._ids],
            )
            _read(process)
            self._forwarder = process.pid
            return
        self._receiver = node.NodeReceiver(
            f'zmq://?rpc_zmq_ipc_dir={self._directory}&rpc_zmq_port={self._port}')
        self._receiver.start()
        self._receiver.wait_ready(time.monotonic() + _START_SECONDS)
        self._forwarder = self._receiver.pid

    def _start(self, role, **settings):
        process = subprocess.Popen(
            [
                sys.executable,
                os.path.abspath(__file__),
                '--role',
                role,
                json.dumps(settings),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        if role == 'service':
            _read(process)
        return process

    def _path(self, instance_id):
        return os.path.join(self._directory, f'{instance_id.hex()}.sock')


def _read(process):
    line = process.stdout.readline()
    if not line:
        raise SystemExit('receiver_load: a child process died')
    return json.loads(line)


def _tell(**what):
    print(json.dumps(what), flush=True)


def _cpu(pid):
    with open(f'/proc/{pid}/stat', encoding='ascii') as stat:
        fields = stat.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICK


# What the child processes do

def _serve(path):
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(f'ipc://{path}')
    _tell(ready=True)
    receive, send = socket.recv_multipart, socket.send_multipart
    while True:
        send(receive())


def _proxy(port, paths):
    context = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    front.bind(f'tcp://{_HOST}:{port}')
    for path in paths:
        back.connect(f'ipc://{path}')
    _tell(ready=True)
    # So that the signal's default action ends it, in C as it is.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    zmq.proxy(front, back)


def _flood(port, size, window, seconds, ids):
    socket = zmq.Context().socket(zmq.DEALER)
    socket.set(zmq.RCVTIMEO, _SILENCE_MS)
    socket.connect(f'tcp://{_HOST}:{port}')
    new_id = wire.id_maker()
    requests = [[b'', wire.encode(wire.CALL, bytes.fromhex(each), new_id(),
                                  (b'{}', bytes(size)))] for each in ids]
    for number in range(window):
        socket.send_multipart(requests[number % len(requests)])
    _echoes(socket, requests, seconds / 4)
    _tell(warm=True)
    began = time.monotonic()
    echoes = _echoes(socket, requests, seconds)
    _tell(echoes=echoes, seconds=time.monotonic() - began)


def _echoes(socket, requests, seconds):
    """Send one for each that comes back."""
    receive, send, clock = (
        socket.recv_multipart,
        socket.send_multipart,
        time.monotonic,
    )
    count, end = 0, clock() + seconds
    while clock() < end:
        # Looked at rarely, as the clock is not what is measured.
        for _ in range(50):
            frames = receive()
            if len(frames[-1]) != len(requests[0][-1]):
                raise SystemExit('receiver_load: refused')
            send(requests[count % len(requests)])
            count += 1
    return count


_ROLES = {'service': _serve, 'proxy': _proxy, 'client': _flood}


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
