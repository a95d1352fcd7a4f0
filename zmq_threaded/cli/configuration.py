# SPDX-License-Identifier: Apache-2.0
"""The configuration files of the services, for the verbs that need them."""

import argparse

from oslo_config import cfg

from zmq_threaded import options
from zmq_threaded import threads
from zmq_threaded.cli import output

# oslo.config looks for /etc/oslo/oslo.conf when no file is named, as it does
# for the receiver.
_PROJECT = 'oslo'


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line that name the configuration."""
    parser.add_argument(
        '--config-file', action='append', metavar='FILE', default=[],
        help='configuration file of a service; may be given several times')
    parser.add_argument(
        '--config-dir', action='append', metavar='DIRECTORY', default=[],
        help='directory of configuration files')
    parser.add_argument(
        '--transport-url', metavar='URL',
        help='in place of transport_url of the files')


def read(arguments: argparse.Namespace
         ) -> tuple[cfg.ConfigOpts, options.Settings]:
    """The configuration that the command line names.

    :raises: output.CannotAsk
    """
    threads.without_eventlet()
    import oslo_messaging
    conf = cfg.ConfigOpts()
    named = [f'--{kind}={value}' for kind, values in (
        ('config-file', arguments.config_file),
        ('config-dir', arguments.config_dir)) for value in values]
    try:
        conf(named, project=_PROJECT)
        url = oslo_messaging.TransportURL.parse(conf, arguments.transport_url)
        _check_scheme(url)
        return conf, options.of_url(conf, url)
    except (cfg.Error, oslo_messaging.InvalidTransportURL,
            ValueError) as error:
        raise output.CannotAsk(f'the configuration cannot be used: {error}'
                               ) from None


def _check_scheme(url):
    if url.transport.partition('+')[0] != 'zmq':
        raise output.CannotAsk(
            f'transport_url is one of {url.transport}://, not of zmq://. Name '
            'the file of a service by --config-file, or the URL by '
            '--transport-url')
