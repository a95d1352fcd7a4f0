# SPDX-License-Identifier: Apache-2.0
"""The command oslo-messaging-zmq-receiver.

Exit codes: 0 stopped by a signal, 1 could not start (the port is taken, an
option is wrong), 2 wrong command line.
"""

import logging
import signal
import sys

from oslo_config import cfg
from oslo_log import log

from zmq_threaded import descriptors
from zmq_threaded import logs
from zmq_threaded import options
from zmq_threaded import sockets
from zmq_threaded.receiver import address
from zmq_threaded.receiver import receiver

LOG = logs.get(__name__)

# The name under which oslo.config looks for files when none is given
# (/etc/oslo/oslo.conf), as the receivers of old did.
_PROJECT = 'oslo'
_PRODUCT = 'zmq_receiver'
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}

_CLI_OPTIONS = [
    # By another dest: files of services have a `host` that means other things.
    cfg.StrOpt('host', dest='receiver_command_line_host',
               help='Name under which this node is published; rpc_zmq_host '
                    'by default.'),
    cfg.PortOpt('frontend-port', min=1, dest='receiver_command_line_port',
                help='TCP port of this receiver; rpc_zmq_port by default.'),
]


def main(arguments=None):
    """Run a receiver until a signal stops it; returns the exit code."""
    # Blocked before any thread starts, so that only sigwait() gets them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    conf = _configuration(sys.argv[1:] if arguments is None else arguments)
    try:
        running = _open(conf)
    except (options.InvalidOption, sockets.BindError,
            descriptors.Short) as error:
        LOG.critical('The receiver cannot start: %s', error)
        return 1
    running.start()
    _wait_for_the_end(conf)
    running.stop()
    LOG.info('The receiver has ended: %s', running.counters.snapshot())
    return 0


def _configuration(arguments):
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    conf.register_cli_opts(_CLI_OPTIONS)
    try:
        conf(without_debug_value(arguments), project=_PROJECT,
             prog=address.COMMAND)
    except (cfg.Error, ValueError) as error:
        print(f'{address.COMMAND}: {error}', file=sys.stderr)
        sys.exit(1)
    log.setup(conf, _PRODUCT)
    return conf


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
    query = {name: str(value) for name, value in
             (('rpc_zmq_host', conf.receiver_command_line_host),
              ('rpc_zmq_port', conf.receiver_command_line_port))
             if value is not None}
    settings = options.read(conf, query)
    ipc_dir = options.ipc_directory(settings)
    opened = receiver.Receiver(settings, ipc_dir)
    LOG.info('The receiver of %s listens on %s, port %d; its services are '
             'in %s', settings.host, settings.bind_address,
             settings.receiver_port, ipc_dir)
    LOG.warning('Port %d is open without encryption; whoever reaches it may '
                'call the services of this node', settings.receiver_port)
    return opened


def _wait_for_the_end(conf):
    while signal.sigwait(_SIGNALS) == signal.SIGHUP:
        LOG.info('Reading the configuration of logging again')
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
