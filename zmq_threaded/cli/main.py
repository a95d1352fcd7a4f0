# SPDX-License-Identifier: Apache-2.0
"""The command oslo-messaging-zmq; what it is for is in its --help."""

import argparse
import os
import sys

from zmq_threaded.cli import custody
from zmq_threaded.cli import health
from zmq_threaded.cli import keys
from zmq_threaded.cli import metrics
from zmq_threaded.cli import output
from zmq_threaded.cli import ping
from zmq_threaded.cli import status
from zmq_threaded.cli import top

COMMAND = 'oslo-messaging-zmq'
# Each has add(verbs), which adds the parser of a verb and sets its `run`: a
# function of the arguments that returns the exit code.
VERBS = (status, ping, top, health, metrics, custody, keys)

_WHAT_IT_IS = 'Look after a cloud whose services talk over zmq://.'
_EXIT_CODES = ('exit code:\n'
               '  0 all is well   1 something is wrong   '
               '2 the question could not be asked')


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    parsed = parser().parse_args(arguments)
    try:
        return parsed.run(parsed)
    except output.CannotAsk as error:
        print(f'{COMMAND}: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever reads the pipe has enough; nor may the interpreter write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = argparse.ArgumentParser(
        COMMAND, description=_WHAT_IT_IS, epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = made.add_subparsers(metavar='VERB', required=True)
    for verb in VERBS:
        verb.add(verbs)
    return made


if __name__ == '__main__':
    sys.exit(main())
