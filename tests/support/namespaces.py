# SPDX-License-Identifier: Apache-2.0
"""Hosts as network namespaces, joined by a bridge in one more.

A host has an address, and a file system in which the IPC directory, at the
same path everywhere, is its own; but the folder of the embedded registry in it
is a link to one that all share, as a distributed registry would be. Needs
root, iproute2 and util-linux.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile

from tests.support import processes
from tests.support import receivers
from tests.support import rpc

_COMMANDS = ('ip', 'nsenter', 'mount', 'ss')
PORT = 9501


def why_not():
    """What is missing for them on this machine; '' when nothing is."""
    missing = [name for name in _COMMANDS if not shutil.which(name)]
    if missing:
        return f'without {", ".join(missing)}'
    if os.getuid():
        return 'not root'
    with tempfile.TemporaryDirectory() as directory:
        try:
            with Hosts(directory, 'x'):
                return ''
        except (OSError, subprocess.CalledProcessError) as error:
            return f'no namespaces: {error}'


def _run(*command):
    return subprocess.run(command, check=True, text=True,
                          capture_output=True).stdout


class Hosts:
    """Hosts by their letters, made on entry and taken away on exit.

    :param ipc_dir: where each host has its own directory
    :param version: of IP, 4 or 6; there is no address of the other one
    """

    def __init__(self, ipc_dir, letters, version=4):
        self.ipc_dir = ipc_dir
        self._tag = f'zt{os.getpid()}'
        self._letters = letters
        self._version = version
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _build(self):
        self.shared = tempfile.mkdtemp(prefix='zt-shared-')
        self._stack.callback(shutil.rmtree, self.shared)
        self._switch = self._namespace('switch')
        self._ip(self._switch, 'link add bridge type bridge')
        self._ip(self._switch, 'link set bridge up')
        for number, letter in enumerate(self._letters, 1):
            setattr(self, letter, self._host(number, letter))

    def __exit__(self, *exc_info):
        self._stack.close()

    def _namespace(self, name):
        name = f'{self._tag}{name}'
        _run('ip', 'netns', 'add', name)
        self._stack.callback(_run, 'ip', 'netns', 'del', name)
        self._ip(name, 'link set lo up')
        return name

    def _host(self, number, letter):
        name = self._namespace(letter)
        port = f'to-{letter}'
        self._ip(self._switch, f'link add {port} type veth peer name eth0 '
                               f'netns {name}')
        self._ip(self._switch, f'link set {port} master bridge up')
        address, size = ((f'10.99.0.{number}', 24) if self._version == 4
                         else (f'fd99::{number}', 64))
        nodad = 'nodad' if self._version == 6 else ''
        self._ip(name, f'addr add {address}/{size} dev eth0 {nodad}')
        self._ip(name, 'link set eth0 up')
        return Host(self._stack, self, name, address, port)

    def _ip(self, namespace, command):
        return _run('ip', '-n', namespace, *command.split())

    def set_link(self, host, state):
        """Plug the cable of a host in ('up') or out ('down')."""
        self._ip(self._switch, f'link set {host.port} {state}')


class Host:
    """One host; its processes end with it."""

    def __init__(self, stack, hosts, name, address, port):
        self.name, self.address, self.port = name, address, port
        self.ipc_dir = hosts.ipc_dir
        self._shared = hosts.shared
        self._stack = stack
        # As long as it lives, the mounts of the host do.
        self._holder = subprocess.Popen(
            ['ip', 'netns', 'exec', name, 'sh', '-c',
             f'mount -t tmpfs host {self.ipc_dir} && ln -s {self._shared} '
             f'{self.ipc_dir}/registry && echo ready && exec cat'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(self._end)
        if self._holder.stdout.readline() != 'ready\n':
            raise OSError(f'no mount namespace for {name}')
        self.before = ('nsenter', '--target', str(self._holder.pid),
                       '--mount', '--net', '--')

    def _end(self):
        self._holder.kill()
        self._holder.wait()
        self._holder.stdin.close()
        self._holder.stdout.close()

    def url(self, **query):
        node = rpc.Node(self.ipc_dir)
        return node.url(**{'rpc_zmq_topology': 'receiver',
                           'rpc_zmq_host': self.address, **query})

    def receiver(self, host='', **configuration):
        receiver = receivers.ReceiverProcess(
            self.ipc_dir, port=PORT, host=host or self.address,
            before=self.before, **configuration)
        self._stack.callback(receiver.end)
        return receiver

    def server(self, server, **query):
        return self._process('server_main.py', self.url(**query), 'topic',
                             server)

    def listener(self, pool, path):
        return self._process('listener_main.py', self.url(), 'notes', pool,
                             str(path))

    def client(self, **query):
        return self._process('client_main.py', self.url(**query))

    def _process(self, *arguments):
        process = processes.ServerProcess(self.ipc_dir, *arguments,
                                          before=self.before)
        self._stack.callback(process.end)
        return process

    def run(self, *command):
        """The output of a command there."""
        return _run(*self.before, *command)

    def lose_registry(self):
        """From now on it reads and writes a registry of its own."""
        self.run('mkdir', '-p', f'{self.ipc_dir}/alone')
        self._link_registry(f'{self.ipc_dir}/alone')

    def find_registry(self):
        self._link_registry(self._shared)

    def _link_registry(self, target):
        self.run('ln', '-sfn', target, f'{self.ipc_dir}/registry')

    def connections(self):
        """(own port, port of the other one) of each TCP connection that does
        not stay on the host.
        """
        lines = self.run('ss', '-Htn').splitlines()
        ends = [line.split()[3:5] for line in lines]
        return {tuple(int(end.rpartition(':')[2]) for end in pair)
                for pair in ends if len({_address(end) for end in pair}) == 2}


def _address(end):
    return end.rpartition(':')[0].strip('[]').removeprefix('::ffff:')


def ask(client, do, **what):
    """What a client process answers; see client_main.py."""
    return client.ask(json.dumps({'do': do, **what}))
