# SPDX-License-Identifier: Apache-2.0
"""The verb ``metrics``: what the processes of this node have counted and
measured, for Prometheus.
"""

import argparse
import contextlib
import sys

from zmq_threaded import ipc_directory
from zmq_threaded import options
from zmq_threaded.cli import configuration
from zmq_threaded.cli import green
from zmq_threaded.cli import output


def add(verbs) -> None:
    """Add the parser of this verb."""
    parser = verbs.add_parser(
        'metrics', help='print or serve the metrics of this node',
        description='Print the metrics of all processes of this node in the '
                    'text format of Prometheus, or serve them over HTTP. '
                    'Needs the extra zmq-threaded[metrics]. A receiver '
                    'serves them as well: rpc_zmq_metrics_address.')
    parser.add_argument(
        '--listen', metavar='ADDRESS:PORT',
        help='serve them there until it is interrupted')
    parser.add_argument(
        '-o', '--output', choices=('plain', output.JSON), default='plain',
        help='the text of Prometheus, or the same as json')
    configuration.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print or serve them; returns the exit code."""
    green.avoid()
    try:
        from zmq_threaded.metrics import serving
    except ImportError as error:
        raise output.CannotAsk(
            f'prometheus_client is missing ({error}): pip install '
            "'zmq-threaded[metrics]'") from None
    try:
        ipc_dir = ipc_directory.find(configuration.read(arguments)[1])
        if arguments.listen:
            return _serve(serving, arguments.listen, ipc_dir)
    except (ValueError, options.InvalidOption, OSError) as error:
        raise output.CannotAsk(str(error)) from None
    if arguments.output == output.JSON:
        output.show(arguments, _document(serving, ipc_dir), ())
    else:
        sys.stdout.write(serving.text(ipc_dir))
    return 0


def _serve(serving, address, ipc_dir):
    server = serving.Server(serving.parse(address), ipc_dir)
    print(f'The metrics of the processes in {ipc_dir} are served on '
          f'http://{address}/metrics', file=sys.stderr, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve()
    server.stop()
    return 0


def _document(serving, ipc_dir):
    return [{'name': sample.name, 'labels': sample.labels,
             'value': sample.value}
            for family in serving.registry(ipc_dir).collect()
            for sample in family.samples]
