# SPDX-License-Identifier: Apache-2.0
"""The command line."""

import argparse
import dataclasses
import math
import os
import re

from load import errors
from load import modes
from load import payload
from load import texts

DEFAULT_URL = 'zmq://'
RAW_NAME = 'raw'

@dataclasses.dataclass(frozen=True)
class Entry:
    """A contestant as named on the command line; kind is 'oslo' or 'raw'."""

    name: str
    url: str
    kind: str = 'oslo'


@dataclasses.dataclass(frozen=True)
class Options:
    """The parsed command line.

    Times are in seconds. The size is in bytes, or 'real'.
    """

    entries: tuple
    mode: modes.Mode
    threads: int
    servers: int
    workers: int
    size: int | str
    seconds: float
    warmup: float
    count: int | None
    rounds: int
    timeout: float
    drain: float
    start_timeout: float
    baseline: str
    pin: bool
    json: str | None
    plot: str | None
    verbose: bool


def parse(arguments):
    """Return Options; exits for --help.

    Raises UsageError for anything that makes no sense.
    """
    given = _parser().parse_intermixed_args(arguments)
    entries = _entries(given.urls or [DEFAULT_URL])
    baseline = _baseline(given.baseline, entries)
    if given.raw:
        if given.mode != 'call':
            raise errors.UsageError(
                '--raw is an echo: it goes with --mode call only'
            )
        entries += (Entry(RAW_NAME, RAW_NAME, RAW_NAME),)
        baseline = RAW_NAME if given.baseline == RAW_NAME else baseline
    if baseline is None:
        raise errors.UsageError(
            f'--baseline {given.baseline} is none of the contestants'
        )
    if given.pin and len(os.sched_getaffinity(0)) < 2:
        raise errors.UsageError(
            '--pin needs two cores, and this process may use only one'
        )
    for path in (given.json, given.plot):
        _check_writable(path)
    settings = vars(given)
    for name in ('urls', 'raw'):
        del settings[name]
    settings.update(
        entries=entries, baseline=baseline, mode=modes.MODES[given.mode],
        rounds=given.rounds or (3 if len(entries) > 1 else 1))
    return Options(**settings)


def mask(url):
    """Return the URL without its passwords."""
    return re.sub(r':[^:/@,]*@', ':***@', url)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise errors.UsageError(message)


class _Help(argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action):
        if action.default in (None, False, argparse.SUPPRESS):
            return action.help
        return f'{action.help} (default: %(default)s)'


def _parser():
    parser = _Parser(
        prog='rpc_load.py',
        description=texts.DESCRIPTION,
        epilog=texts.EPILOG,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument(
        'urls',
        nargs='*',
        metavar='[NAME=]URL',
        help=f'transport URLs to load (default: {DEFAULT_URL})',
    )
    _add_load_options(parser.add_argument_group('load'))
    _add_duration_options(parser.add_argument_group('duration'))
    _add_output_options(parser.add_argument_group('comparison and output'))
    return parser


def _add_load_options(group):
    group.add_argument('--mode', choices=list(modes.MODES), default='call',
                       help='what to send')
    group.add_argument('--threads', type=_positive_int, default=8, metavar='N',
                       help='client threads in this process')
    group.add_argument('--servers', type=_positive_int, default=1, metavar='N',
                       help='server processes for each contestant')
    group.add_argument(
        '--workers',
        type=_positive_int,
        default=64,
        metavar='N',
        help='executor_thread_pool_size of each server',
    )
    group.add_argument(
        '--size',
        type=_size,
        default=payload.REAL,
        metavar='BYTES',
        help='payload size, or "real": lognormal with median '
        f'{payload.REAL_MEDIAN_BYTES} and p90 {payload.REAL_P90_BYTES} bytes',
    )


def _add_duration_options(group):
    group.add_argument('--seconds', type=_positive, default=6.0, metavar='S',
                       help='timed part of each round of each contestant')
    group.add_argument(
        '--warmup',
        type=_not_negative,
        default=1.0,
        metavar='S',
        help='sending before each timed part',
    )
    group.add_argument(
        '--count',
        type=_positive_int,
        metavar='N',
        help='end each timed part after N operations, not after --seconds',
    )
    group.add_argument(
        '--rounds',
        type=_positive_int,
        metavar='N',
        help='turns of each contestant '
             '(default: 1, or 3 if there are several)',
    )
    group.add_argument('--timeout', type=_positive, default=30.0, metavar='S',
                       help='RPC timeout of each call')
    group.add_argument(
        '--drain',
        type=_positive,
        default=15.0,
        metavar='S',
        help='give up casts that are still missing after S without an arrival',
    )
    group.add_argument(
        '--start-timeout',
        type=_positive,
        default=15.0,
        metavar='S',
        help='time for servers to start and be reached',
    )


def _add_output_options(group):
    group.add_argument(
        '--raw',
        action='store_true',
        help='add a contestant "raw": a pyzmq REQ-ROUTER echo over ipc, '
        'without oslo.messaging',
    )
    group.add_argument(
        '--baseline',
        metavar='NAME|URL',
        help='contestant the others are divided by (default: the last URL)',
    )
    group.add_argument(
        '--pin',
        action='store_true',
        help='run the client on the first core, and the servers on others',
    )
    group.add_argument(
        '--json', metavar='FILE', help='write all figures there; - is stdout'
    )
    group.add_argument(
        '--plot', metavar='FILE.png', help='draw the latency distributions'
    )
    group.add_argument('--verbose', action='store_true',
                       help='let the logs of all processes through to stderr')


def _entries(texts):
    entries = []
    for text in texts:
        name, url = re.fullmatch(
            r'(?:([\w.-]+)=(?=[\w.+-]+://))?(.*)', text, re.DOTALL
        ).groups()
        if '://' not in url:
            raise errors.UsageError(
                f'"{text}" is not a transport URL like {DEFAULT_URL}'
            )
        name = name or re.sub(r'[^/,@]*@', '', url)
        taken = {entry.name for entry in entries} | {RAW_NAME}
        if name in taken:
            name = next(f'{name} ({n})' for n in range(2, len(texts) + 3)
                        if f'{name} ({n})' not in taken)
        entries.append(Entry(name, url))
    return tuple(entries)


def _baseline(wanted, entries):
    """Return the name of the contestant to divide by.

    None means that no URL or name of a contestant is `wanted`.
    """
    if wanted is None:
        return entries[-1].name
    return next(
        (entry.name for entry in entries if wanted in (entry.name, entry.url)),
        None,
    )


def _check_writable(path):
    if path not in (None, '-') and not os.access(
        os.path.dirname(path) or '.', os.W_OK
    ):
        raise errors.UsageError(f'{path}: cannot write there')


def _positive_int(text):
    return _at_least(1, text)


def _size(text):
    return text if text == payload.REAL else _at_least(0, text)


def _at_least(least, text):
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(
            f'"{text}" is no whole number from {least} up'
        )
    return int(text)


def _positive(text):
    return _duration(text, False)


def _not_negative(text):
    return _duration(text, True)


def _duration(text, zero_too):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 or zero_too and value == 0) or math.isinf(value):
        raise argparse.ArgumentTypeError(f'"{text}" is no number of seconds')
    return value
