# SPDX-License-Identifier: Apache-2.0
"""The command oslo-messaging-zmq-receiver, as init systems and operators use
it.
"""

import configparser
import importlib
import importlib.metadata
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures

import oslo_messaging
import pytest

from tests.support import leaks
from tests.support import ports
from tests.support import processes
from tests.support import rpc
from tests.support import waiting
from zmq_threaded import wire
from zmq_threaded.receiver import main

_ROOT = pathlib.Path(__file__).parents[2]
_NAMES = ('oslo-messaging-zmq-receiver', 'oslo-messaging-zmq-proxy')
# The linger of a default configuration, and what the machine may add.
_STOPPED_WITHIN = 20
SIGNALS = [signal.SIGTERM, signal.SIGINT]
_IGNORING = ('/bin/sh', '-c', 'trap "" HUP INT TERM; exec "$@"', 'sh')


def _run(*arguments, code, seconds=20, **environment):
    """The output of a command that ends by itself."""
    done = subprocess.run(
        [sys.executable, '-m', 'zmq_threaded.receiver.main', *arguments],
        capture_output=True, text=True, timeout=seconds,
        stdin=subprocess.DEVNULL, env={**processes.ENVIRONMENT, **environment})
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize('name', _NAMES)
def test_both_names_of_the_command_are_installed(name):
    setup = configparser.ConfigParser()
    setup.read(_ROOT / 'setup.cfg')
    scripts = dict(line.split(' = ') for line in setup[
        'options.entry_points']['console_scripts'].strip().splitlines())
    module, function = scripts[name].split(':')
    assert getattr(importlib.import_module(module), function) is main.main


def test_systemd_unit_starts_the_command():
    unit = (_ROOT / 'tools' / 'oslo-messaging-zmq-receiver.service'
            ).read_text()
    assert re.search(r'^ExecStart=\S*/oslo-messaging-zmq-receiver\b', unit,
                     re.MULTILINE)
    assert re.search(r'^ExecReload=.*HUP', unit, re.MULTILINE)


def test_systemd_never_gives_the_receiver_up():
    # By default it does after five starts in ten seconds, as while another
    # process holds the port.
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read(_ROOT / 'tools' / 'oslo-messaging-zmq-receiver.service')
    assert unit['Unit']['StartLimitIntervalSec'] == '0'
    assert unit['Service']['Restart'] == 'always'


# The command line


@pytest.mark.parametrize('arguments, level', [
    (['-d'], 'DEBUG'), (['-d', 'True'], 'DEBUG'), (['--debug'], 'DEBUG'),
    (['--debug', 'yes'], 'DEBUG'), (['--debug=1'], 'DEBUG'), ([], 'INFO'),
    (['--debug', 'False'], 'INFO'), (['-d', 'no'], 'INFO'),
    (['--debug=0'], 'INFO'), (['--nodebug'], 'INFO')])
def test_debug_with_or_without_a_value(arguments, level):
    done = subprocess.run(
        [sys.executable, '-c', 'import logging, sys\n'
         'from zmq_threaded.receiver import main\n'
         'main._configuration(sys.argv[1:])\n'
         'print(logging.getLevelName(logging.getLogger().level))',
         *arguments], text=True, capture_output=True,
        env=processes.ENVIRONMENT)
    assert done.stdout.strip() == level, done.stderr


def test_debug_tells_more(node):
    """Such as which services are behind it."""
    receiver = node.receiver(arguments=['-d', 'True'])
    server = node.server()
    assert node.client().call({}, 'echo', value=1) == 1
    assert 'DEBUG' in receiver.output()
    instance = server.listener._service.current.instance
    assert instance.id.hex()[:8] in receiver.output()


def _call(node):
    node.server()
    assert node.client().call({}, 'echo', value=1) == 1


@pytest.mark.parametrize('given, known', [
    ([], []), (['-d'], ['--debug']), (['-d', 'True'], ['--debug']),
    (['--debug', 'false', '--host', 'x'], ['--nodebug', '--host', 'x']),
    (['-d', '--log-file', 'True'], ['--debug', '--log-file', 'True']),
    (['--debug=off'], ['--nodebug']),
    (['--host', '-d'], ['--host', '--debug']),
    (['--config-file', 'd', '--frontend-port=9'],
     ['--config-file', 'd', '--frontend-port=9'])])
def test_values_after_debug(given, known):
    assert main.without_debug_value(given) == known


def test_host_and_port_are_those_of_its_services(node):
    receiver = node.receiver(host='node-1', arguments=('--host', 'localhost'))
    receiver.host = 'localhost'
    node.query['rpc_zmq_host'] = 'localhost'
    _call(node)
    assert os.path.exists(receiver.path())
    assert f'port {receiver.port}' in receiver.output()


def _with_a_log_file(node):
    receiver = node.receiver(start=False)
    path = os.path.join(receiver.directory, 'the.log')
    receiver._arguments = ('--log-file', path)
    receiver.launch()
    waiting.until(lambda: os.path.exists(path) and 'listens on' in open(
        path).read(), 20)
    return receiver, path


def test_log_file_gets_the_log(node):
    receiver, path = _with_a_log_file(node)
    _call(node)
    assert receiver.terminate() == 0
    assert 'has ended' in open(path).read()


def test_config_dir_is_read(node):
    receiver = node.receiver(start=False)
    folder = os.path.join(receiver.directory, 'conf.d')
    os.mkdir(folder)
    pathlib.Path(folder, 'a.conf').write_text(
        '[oslo_messaging_zmq]\nrpc_zmq_host = from-folder\n')
    receiver._arguments = ('--config-dir', folder)
    receiver.host = 'from-folder'
    receiver.start()
    assert os.path.exists(receiver.path())


def test_old_places_of_the_options_are_read(node):
    receiver = node.receiver(start=False)
    pathlib.Path(receiver.config_file).write_text(
        f'[DEFAULT]\nrpc_zmq_ipc_dir = {node.ipc_dir}\n'
        f'rpc_zmq_host = {receiver.host}\n')
    receiver.start()
    _call(node)


def test_host_of_the_file_of_a_service_is_not_that_of_the_receiver(node):
    """nova.conf and others have a `host` of their own, and the warning of a
    service says to start the receiver with the file of that service.
    """
    receiver = node.receiver(extra='[DEFAULT]\nhost = compute-7\n')
    _call(node)
    assert os.path.exists(receiver.path())


def test_no_arguments_at_all(ipc_dir):
    """It listens on 9501, in a directory that it finds by itself; or it says
    what is in the way.
    """
    popen = subprocess.Popen(
        [sys.executable, '-m', 'zmq_threaded.receiver.main'], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL, cwd=ipc_dir, env=processes.ENVIRONMENT)
    threading.Timer(3, popen.terminate).start()
    output, _ = popen.communicate(timeout=30)
    assert '9501' in output
    assert popen.returncode == (1 if 'is taken' in output else 0)


@pytest.mark.parametrize('arguments, said', [
    (['--nonsense'], '--nonsense'), (['more'], 'more'),
    (['--host'], '--host')])
def test_wrong_command_line_is_refused_with_2(arguments, said):
    output = _run(*arguments, code=2)
    assert said in output and 'Traceback' not in output


@pytest.mark.parametrize('port', ['x', '0', '70000'])
def test_wrong_port_is_refused(port):
    output = _run('--frontend-port', port, code=1)
    assert 'port' in output and 'Traceback' not in output


def test_missing_configuration_file_is_named():
    output = _run('--config-file', '/no/such/file', code=1)
    assert '/no/such/file' in output and 'Traceback' not in output


def test_help_tells_the_options():
    output = _run('--help', code=0)
    for name in ('--config-file', '--config-dir', '--log-file', '--debug',
                 '--host NAME', '--frontend-port PORT', '--version'):
        assert name in output


def test_help_says_what_it_is_what_it_needs_and_how_it_ends():
    output = ' '.join(_run('--help', code=0).split())
    for text in ('The receiver of a node', 'one TCP port',
                 '[oslo_messaging_zmq]', 'rpc_zmq_host', 'rpc_zmq_port',
                 'rpc_zmq_ipc_dir', 'rpc_zmq_topology=receiver', 'SIGTERM',
                 'SIGINT', 'SIGHUP', 'Exit codes', '0, ', '1, ', '2, '):
        assert text in output


def test_version_is_that_of_the_package_and_of_the_protocol():
    output = _run('--version', code=0)
    assert output.startswith(f'{_NAMES[0]} ') and output.count('\n') == 1
    assert importlib.metadata.version('zmq-threaded') in output
    assert f'protocol {wire.MAJOR}.{wire.MINOR}' in output
    assert 'pyzmq' in output


@pytest.mark.parametrize('arguments', [
    ('--log-file', '/no/such/directory/log'), ('--log-dir', '/proc/nowhere'),
    ('--log-file', '/'), ('--log-config-append', '/no/such/file'),
    ('--use-syslog', '--syslog-log-facility', 'nonsense')])
def test_log_that_cannot_be_opened_is_one_line(arguments):
    output = _run(*arguments, code=1)
    assert 'log' in output and output.count('\n') == 1
    assert output.startswith(f'{_NAMES[0]}: ')


def test_why_it_cannot_start_is_said_once(ipc_dir):
    path = pathlib.Path(ipc_dir, 'receiver.conf')
    with socket.create_server(('', 0)) as taken:
        port = taken.getsockname()[1]
        path.write_text(f'[oslo_messaging_zmq]\nrpc_zmq_ipc_dir = {ipc_dir}\n'
                        f'rpc_zmq_port = {port}\n')
        output = _run('--config-file', str(path), code=1)
    assert output.count(f'rpc_zmq_port {port}') == 1
    assert output.count('\n') == 1


@pytest.mark.parametrize('name, text', [
    ('zmq_linger', 'long'), ('rpc_zmq_port', '0'),
    ('rpc_zmq_topology', 'star'), ('rpc_zmq_ipc_dir', '/proc/nowhere'),
    ('rpc_zmq_bind_address', 'no-such-interface'),
    ('rpc_zmq_ipc_dir', f'/tmp/{"x" * 90}')])
def test_wrong_option_is_named(ipc_dir, name, text):
    path = pathlib.Path(ipc_dir, 'wrong.conf')
    option = {'rpc_zmq_ipc_dir': ipc_dir,
              'rpc_zmq_port': ports.free_port(), name: text}
    path.write_text('[oslo_messaging_zmq]\n' + ''.join(
        f'{key} = {value}\n' for key, value in option.items()))
    try:
        output = _run('--config-file', str(path), code=1)
    finally:
        if text.startswith('/tmp/') and os.path.isdir(text):
            os.rmdir(text)
    assert name in output and 'Traceback' not in output


def test_eventlet_is_not_imported():
    done = subprocess.run(
        [sys.executable, '-c', 'import sys, zmq_threaded.receiver.main;'
         'print([name for name in sys.modules if "eventlet" == '
         'name.partition(".")[0]])'], text=True, capture_output=True,
        env=processes.ENVIRONMENT)
    assert done.stdout.strip() == '[]', done.stdout


# The end


@pytest.mark.parametrize('number', SIGNALS)
def test_it_ends_when_nobody_is_there(node, number):
    receiver = node.receiver()
    receiver.signal(number)
    assert receiver.wait(_STOPPED_WITHIN) == 0
    assert not os.path.exists(receiver.path())
    assert 'has ended' in receiver.output()


@pytest.mark.parametrize('number', SIGNALS)
def test_it_ends_amid_traffic_and_with_a_paused_service(node, number):
    receiver = node.receiver()
    paused = node.process(topic='paused')
    node.server()
    client = node.client(node.transport(rpc_cast_timeout=1), timeout=1)
    client.prepare(topic='paused', timeout=30).call({}, 'echo', value=1)
    paused.pause()
    stopped = threading.Event()
    thread = threading.Thread(target=_traffic, args=(client, stopped))
    thread.start()
    try:
        began = time.monotonic()
        waiting.until(lambda: time.monotonic() > began + 1)
        receiver.signal(number)
        assert receiver.wait(_STOPPED_WITHIN) == 0
        assert not os.path.exists(receiver.path())
    finally:
        stopped.set()
        thread.join()
        paused.resume()


def _traffic(client, stopped):
    while not stopped.is_set():
        client.prepare(topic='paused').cast({}, 'echo', value='x' * 9000)
        try:
            client.call({}, 'echo', value=1)
        except oslo_messaging.MessagingTimeout:
            pass


def test_a_signal_while_it_starts_ends_it(node):
    receiver = node.receiver(start=False)
    for _ in range(3):
        receiver.launch()
        waiting.until(lambda: os.path.exists(
            f'/proc/{receiver.pid}/exe'), 20)
        receiver.signal(signal.SIGTERM)
        assert receiver.wait() in (0, -signal.SIGTERM)
        assert not os.path.exists(receiver.path())


def test_calls_in_progress_are_answered_while_it_ends(node):
    receiver = node.receiver(zmq_linger=5)
    server = node.server()
    transport = node.transport()
    client = node.client(transport, timeout=30)

    def call_until_one_was_refused():
        # The signal takes its time: what comes before it is passed on.
        while not server.endpoint.release.is_set():
            assert client.call({}, 'echo', value=2) == 2
    with futures.ThreadPoolExecutor() as pool:
        calling = pool.submit(client.call, {}, 'wait', value=1)
        waiting.until(lambda: server.endpoint.seen)
        receiver.signal(signal.SIGTERM)
        # When it takes no others any more
        refused = pool.submit(call_until_one_was_refused)
        waiting.until(lambda: rpc.driver(transport)._parts().registry
                      .cache._avoided)
        server.endpoint.release.set()
        assert calling.result(20) == 1
        assert receiver.wait() == 0
        receiver.start()
        refused.result(30)


def test_what_it_could_not_pass_on_is_refused_when_it_ends(node):
    # Given a receiver whose connection to a service is not ready yet
    receiver = node.receiver()
    server = node.process()
    transport = node.transport()
    client = node.client(transport, timeout=30)
    client.call({}, 'echo', value=0)
    server.pause()
    receiver.restart()
    # When it gets a call and ends
    sent = rpc.driver(transport).counters()['sent']
    with futures.ThreadPoolExecutor() as pool:
        calling = pool.submit(client.call, {}, 'echo', value=1)
        waiting.until(
            lambda: rpc.driver(transport).counters()['sent'] > sent)
        assert receiver.terminate() == 0
        # Then the call was not lost with it
        receiver.start()
        server.resume()
        assert calling.result(40) == 1


def test_clients_come_back_to_one_that_was_ended_and_started(node):
    receiver = node.receiver()
    node.server()
    client = node.client(timeout=30)
    client.call({}, 'echo', value=0)
    assert receiver.terminate() == 0
    receiver.start()
    assert client.call({}, 'echo', value=1) == 1


def test_second_receiver_on_the_port_says_so_and_ends(node):
    receiver = node.receiver()
    node.server()
    client = node.client()
    output = _run('--config-file', receiver.config_file, '--frontend-port',
                  str(receiver.port), code=1)
    assert f'rpc_zmq_port {receiver.port}' in output
    assert 'Traceback' not in output
    # The first one goes on, by either way.
    assert client.call({}, 'echo', value=1) == 1
    receiver.cut_off_ipc()
    assert node.client().call({}, 'echo', value=2) == 2


def test_a_receiver_of_another_bind_address_does_not_take_its_socket(node):
    """Same host name, port and directory: the socket of the first is lost to
    its clients if the second binds it, too.
    """
    receiver = node.receiver(rpc_zmq_bind_address='127.0.0.1')
    node.server()
    before = os.stat(receiver.path()).st_ino
    other = node.receiver(port=receiver.port, rpc_zmq_bind_address='127.0.0.2',
                          start=False)
    other.launch()
    waiting.until(lambda: other._popen.poll() is not None
                  or 'listens on' in other.output(), 20)
    assert os.stat(receiver.path()).st_ino == before
    assert other.wait(20) == 1


def test_a_killed_receiver_starts_again_over_its_remains(node):
    receiver = node.receiver()
    _call(node)
    receiver.kill()
    assert os.path.exists(receiver.path())
    receiver.start()
    assert node.client().call({}, 'echo', value=1) == 1


def test_nothing_is_left_behind(node):
    before = _files(node.ipc_dir)
    receiver = node.receiver()
    node.stop(node.server())
    assert receiver.terminate() == 0
    # The mark of the service's end stays until all have noticed it.
    waiting.until(lambda: not [
        name for name in _files(node.ipc_dir) - before
        if not name.startswith('registry') and name != 'facts'])


def _files(directory):
    return set(os.listdir(directory))


# Signals that its parent ignores: nohup, a script's background


@pytest.mark.parametrize('number', SIGNALS)
def test_it_ends_by_a_signal_that_its_parent_ignores(node, number):
    receiver = node.receiver(before=_IGNORING)
    _call(node)
    receiver.signal(signal.SIGHUP)
    waiting.until(lambda: 'again' in receiver.output())
    _call(node)
    receiver.signal(number)
    assert receiver.wait(_STOPPED_WITHIN) == 0
    assert 'has ended' in receiver.output()


# SIGHUP


def test_hup_opens_the_log_file_anew(node):
    receiver, path = _with_a_log_file(node)
    os.rename(path, path + '.1')
    fds = _descriptors(receiver.pid)
    receiver.signal(signal.SIGHUP)
    waiting.until(lambda: os.path.exists(path), 10)
    _call(node)
    assert receiver.terminate() == 0
    assert 'has ended' in open(path).read()
    assert 'has ended' not in open(path + '.1').read()
    assert fds


def test_hup_leaves_no_descriptors(node):
    receiver, path = _with_a_log_file(node)
    # What the receiver opens only once is there after a call and a signal.
    _call(node)
    _rotated(receiver, path, 0)
    before = _descriptors(receiver.pid)
    for number in range(1, 11):
        _rotated(receiver, path, number)
    assert _descriptors(receiver.pid) <= before


def _rotated(receiver, path, number):
    os.rename(path, f'{path}.{number}')
    receiver.signal(signal.SIGHUP)
    waiting.until(lambda: os.path.exists(path), 10)


_descriptors = leaks.descriptors_of


def test_hup_reads_debug_again(node):
    receiver = node.receiver()
    _call(node)
    assert 'DEBUG' not in receiver.output()
    with open(receiver.config_file, 'a') as file:
        file.write('[DEFAULT]\ndebug = true\n')
    receiver.signal(signal.SIGHUP)
    waiting.until(lambda: 'again' in receiver.output())
    node.server(server='late')
    assert node.client(server='late').call({}, 'echo', value=2) == 2
    waiting.until(lambda: 'DEBUG' in receiver.output(), 5,
                  'a DEBUG line of a receiver after a SIGHUP')


def test_hup_with_a_broken_file_is_survived(node):
    receiver = node.receiver()
    with open(receiver.config_file, 'w') as file:
        file.write('nonsense [')
    receiver.signal(signal.SIGHUP)
    waiting.until(lambda: 'cannot be read' in receiver.output())
    _call(node)
