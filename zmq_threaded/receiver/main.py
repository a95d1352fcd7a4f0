# SPDX-License-Identifier: Apache-2.0
"""The command oslo-messaging-zmq-receiver; what it is for is in its --help."""

import logging
import signal
import sys
from importlib import metadata

from oslo_config import cfg
from oslo_log import log

from zmq_threaded import ipc_directory
from zmq_threaded import logs
from zmq_threaded import options
from zmq_threaded import threads
from zmq_threaded import wire
from zmq_threaded.net import binding
from zmq_threaded.net import descriptors
from zmq_threaded.receiver import address
from zmq_threaded.receiver import adopter
from zmq_threaded.receiver import metrics_port
from zmq_threaded.receiver import readiness
from zmq_threaded.receiver import receiver
from zmq_threaded.security import keys

LOG = logs.get(__name__)

# The name under which oslo.config looks for files when none is given
# (/etc/oslo/oslo.conf), as the receivers of old did.
_PROJECT = 'oslo'
_PRODUCT = 'zmq_receiver'
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_WHAT_IT_IS = (
    'The receiver of a node. All messages of zmq:// for the services of this '
    'machine come in on its one TCP port, and it passes them on over Unix '
    'sockets. One receiver runs on each node of a cloud whose services have '
    'rpc_zmq_topology=receiver, which is their default with redis, sentinel, '
    'etcd or zookeeper. Three options of [oslo_messaging_zmq] have to be the '
    'same in its configuration and in that of the services of its node: '
    'rpc_zmq_host, rpc_zmq_port and rpc_zmq_ipc_dir. It needs write access to '
    'rpc_zmq_ipc_dir, no registry and no root rights, and keeps nothing on '
    'disk: after a crash, start it again. If its configuration also names the '
    'registry (rpc_zmq_matchmaker) of services that keep messages on disk '
    '(rpc_zmq_custody), it takes over the journals of processes that died, '
    'when nobody else of the node does.')
_HOW_IT_ENDS = (
    'SIGTERM and SIGINT end it within zmq_linger and a few seconds; SIGHUP '
    'has it read the configuration of logging, and the trusted keys, '
    'again. Exit codes: 0, a signal '
    'ended it. 1, it cannot start: the port is taken, an option has a wrong '
    'value, or the log cannot be opened; its last line says which. 2, the '
    'command line is wrong.')

_CLI_OPTIONS = [
    # By another dest: files of services have a `host` that means other things.
    cfg.StrOpt('host', dest='receiver_command_line_host', metavar='NAME',
               help='Name under which this node is published; rpc_zmq_host '
                    'by default.'),
    cfg.PortOpt('frontend-port', min=1, dest='receiver_command_line_port',
                metavar='PORT',
                help='TCP port of this receiver; rpc_zmq_port by default.'),
]


def main(arguments=None):
    """Run a receiver until a signal stops it; returns the exit code."""
    _take_over_signals()
    conf = _configuration(sys.argv[1:] if arguments is None else arguments)
    problem = None
    try:
        running, beside = _started(conf)
    except (options.InvalidOption, binding.BindError, descriptors.Short,
            OSError) as error:
        problem = str(error)
    if problem:
        # Not where the error is handled: oslo.log would say it a second time.
        LOG.critical('The receiver cannot start: %s', problem)
        return 1
    readiness.tell(readiness.READY, 'passes messages on')
    _wait_for_the_end(conf, running)
    readiness.tell(readiness.STOPPING, 'passes on the last answers')
    threads.do_all([each.stop for each in (*beside, running)])
    LOG.info('The receiver has ended: %s', running.counters.snapshot())
    return 0


def _started(conf):
    running, beside = _open(conf)
    try:
        for each in running, *beside:
            each.start()
    except descriptors.Short:
        threads.do_all([each.stop for each in (*beside, running)])
        raise
    return running, beside


def _take_over_signals():
    # Blocked before any thread starts, so that only sigwait() gets them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    # A signal that is ignored may never come out of sigwait(): nohup ignores
    # SIGHUP, and scripts SIGINT for what they start in the background.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _configuration(arguments):
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    conf.register_cli_opts(_CLI_OPTIONS)
    try:
        conf(without_debug_value(arguments), project=_PROJECT,
             prog=address.COMMAND, version=_version(),
             description=_WHAT_IT_IS, epilog=_HOW_IT_ENDS)
    except (cfg.Error, ValueError) as error:
        _give_up(error)
    try:
        log.setup(conf, _PRODUCT)
    except Exception as error:      # of all kinds, and without a common base
        _give_up(f'the log cannot be opened: {error}')
    return conf


def _version():
    try:
        release = metadata.version('zmq-threaded')
    except metadata.PackageNotFoundError:
        release = '(not installed)'
    return (f'{address.COMMAND} {release}, protocol {wire.MAJOR}.'
            f'{wire.MINOR}, pyzmq {metadata.version("pyzmq")}')


def _give_up(why):
    print(f'{address.COMMAND}: {why}', file=sys.stderr)
    sys.exit(1)


def without_debug_value(arguments):
    """The arguments as oslo.log knows them; receivers of old took a value
    after -d and --debug.
    """
    rest, result = list(arguments), []
    while rest:
        argument, _, value = rest.pop(0).partition('=')
        if argument not in ('-d', '--debug'):
            result.append(argument + _ + value)
            continue
        if not value and rest and _truth(rest[0]) is not None:
            value = rest.pop(0)
        result.append('--nodebug' if _truth(value) is False else '--debug')
    return result


def _truth(text):
    try:
        return cfg.types.Boolean()(text)
    except ValueError:
        return None


def _open(conf):
    """:returns: the receiver, and what else runs in its process"""
    query = {name: str(value) for name, value in
             (('rpc_zmq_host', conf.receiver_command_line_host),
              ('rpc_zmq_port', conf.receiver_command_line_port))
             if value is not None}
    settings = options.read(conf, query)
    ipc_dir = ipc_directory.find(settings)
    port = metrics_port.opened(settings, ipc_dir)
    opened = receiver.Receiver(settings, ipc_dir)
    LOG.info('The receiver of %s listens on %s, port %d; its services are '
             'in %s', settings.host, settings.bind_address,
             settings.receiver_port, ipc_dir)
    if opened.key:
        LOG.info('Port %d is encrypted; its key is %s',
                 settings.receiver_port, keys.fingerprint(opened.key))
    else:
        LOG.warning('Port %d is open without encryption; whoever reaches it '
                    'may call the services of this node',
                    settings.receiver_port)
    adopting = adopter.Adopter(settings, ipc_dir)
    return opened, [adopting] if port is None else [adopting, port]


def _wait_for_the_end(conf, running):
    while signal.sigwait(_SIGNALS) == signal.SIGHUP:
        LOG.info('Reading the configuration of logging again')
        running.look_at_keys()
        try:
            conf.mutate_config_files()
            _reopen_logs(conf)
        except Exception as error:
            LOG.error('The configuration cannot be read, it stays as it '
                      'was: %s', error)


def _reopen_logs(conf):
    for handler in list(logging.getLogger().handlers):
        # setup() only takes them off.
        if isinstance(handler, logging.FileHandler):
            handler.close()
    log.setup(conf, _PRODUCT)


if __name__ == '__main__':
    sys.exit(main())
