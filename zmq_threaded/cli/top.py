# SPDX-License-Identifier: Apache-2.0
"""The verb ``top``: live rates and latencies of topics and senders."""

import argparse
import contextlib
import os
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator
from typing import Any

from zmq_threaded.cli import configuration
from zmq_threaded.cli import looks
from zmq_threaded.cli import output
from zmq_threaded.cli import overview
from zmq_threaded.cli import rates
from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import looking
from zmq_threaded.status import problems

_TOPICS = ('topic', 'per second', 'busy', 'backlog', 'waiting p50',
           'waiting p99', 'running p50', 'running p99')
_SENDERS = ('process', 'host', 'topic', 'calls/s', 'casts/s', 'p50', 'p99',
            'failed/s', 'unacknowledged')
# By which a key sorts: the column of topics, and that of senders.
_KEYS = {'r': ('per second', 'calls/s'), 'n': ('topic', 'topic'),
         'b': ('backlog', 'unacknowledged'),
         'w': ('waiting p99', 'p99'), 'l': ('running p99', 'p99')}
_END = 'q'
_HELP = ('sort by: r rate, b backlog, w waiting, l latency, n name; '
         'space: at once; q: end')
_CLEAR, _HOME, _REST = '\x1b[2J', '\x1b[H', '\x1b[0J'
_HIDE, _SHOW = '\x1b[?1049h\x1b[?25l', '\x1b[?25h\x1b[?1049l'


def add(verbs) -> None:
    """Add the parser of this verb."""
    parser = verbs.add_parser(
        'top', help='watch rates and latencies',
        description='Watch rates and latencies of topics and senders. They '
                    'are renewed as often as processes tell of themselves: '
                    'every zmq_target_update, 10 s at the most. Keys: '
                    + _HELP + '.')
    parser.add_argument('--interval', type=output.seconds, default=2.0,
                        metavar='SECONDS', help='between two looks '
                        '(default: 2)')
    parser.add_argument('--sort', choices=sorted(_KEYS), default='r',
                        help='the key by which it sorts at first')
    parser.add_argument('--looks', type=output.count, default=None,
                        metavar='N',
                        help='end after so many looks; without a terminal '
                             '2 by default')
    configuration.add_options(parser)
    output.add_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Watch; returns the exit code."""
    settings = configuration.read(arguments)[1]
    with looks.opened(settings) as look:
        if (arguments.output or not sys.stdout.isatty()
                or not sys.stdin.isatty()):
            return _print(arguments, look)
        with _keys() as keys:
            return _watch(arguments, look, keys)


def _print(arguments: argparse.Namespace, look: looking.Look) -> int:
    """For a pipe: the looks, and what they show at the end."""
    grown = rates.Rates()
    cloud = look.look()
    grown.note(cloud)
    for _ in range((arguments.looks or 2) - 1):
        time.sleep(arguments.interval)
        cloud = look.look()
        grown.note(cloud)
    if cloud.trouble and not cloud.processes:
        raise output.CannotAsk(cloud.trouble)
    topics, senders = _rows(grown, arguments.sort)
    output.show(arguments, {'topics': topics, 'senders': senders}, [
        output.Table('Topics', _TOPICS, _cells(topics, _TOPICS)),
        output.Table('Senders', _SENDERS, _cells(senders, _SENDERS))])
    return 0


def _watch(arguments: argparse.Namespace, look: looking.Look,
           keys: Any) -> int:
    grown, sort, left = rates.Rates(), arguments.sort, arguments.looks
    while True:
        cloud = look.look()
        grown.note(cloud)
        key = _draw_until_key(grown, cloud, sort, arguments.interval, keys)
        while key in _KEYS:
            sort = key
            key = _draw_until_key(grown, cloud, sort, arguments.interval,
                                  keys)
        left = left and left - 1
        if key in (_END, '\x03') or left == 0:
            return 0


def _draw_until_key(grown: rates.Rates, cloud: clouds.Cloud, sort: str,
                    seconds: float, keys: Any) -> str:
    """Show it.

    :returns: the key that was hit within an interval, '' for none
    """
    columns, height = shutil.get_terminal_size()
    lines = _screen(grown, cloud, sort, columns)[:height - 1]
    sys.stdout.write(_HOME + ''.join(f'{line}\x1b[K\n' for line in lines)
                     + _REST)
    sys.stdout.flush()
    if not select.select([keys], [], [], seconds)[0]:
        return ''
    return os.read(keys, 1).decode('ascii', 'replace') or _END


def _screen(grown: rates.Rates, cloud: clouds.Cloud, sort: str,
            columns: int) -> list[str]:
    found = problems.of(cloud)
    wrong = (f'{len(found)} problems, the first: {found[0].text}'
             if found else 'all is well')
    topics, senders = _rows(grown, sort)
    answers = (f'{cloud.milliseconds:.1f} ms' if cloud.milliseconds
               is not None else 'DOES NOT ANSWER')
    lines = [f'{time.strftime("%H:%M:%S")}  registry {answers}, '
             f'{len(cloud.living())} services; {wrong}', _HELP, '']
    for title, names, rows in (('TOPICS', _TOPICS, topics),
                               ('SENDERS', _SENDERS, senders)):
        lines += [*output.plain(output.Table(title, names,
                                             _cells(rows, names))), '']
    return [output.fit(line)[:columns] for line in lines]


def _rows(grown: rates.Rates, sort: str) -> tuple[list[Any], list[Any]]:
    by_topic, by_sender = _KEYS[sort]
    return (_sorted(grown.topics(), by_topic),
            _sorted(grown.senders(), by_sender))


def _sorted(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    if rows and isinstance(rows[0][column], str):
        return sorted(rows, key=lambda row: row[column])
    return sorted(rows, key=lambda row: -(row[column] or 0))


def _cells(rows: list[dict[str, Any]], names: tuple[str, ...]
           ) -> list[list[object]]:
    return [[row[name] if name.endswith(('/s', 'second'))
             else overview.shown(row[name]) for name in names]
            for row in rows]


@contextlib.contextmanager
def _keys() -> Iterator[int]:
    """The keyboard, of which each key is read at once."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    sys.stdout.write(_HIDE + _CLEAR)
    try:
        tty.setcbreak(keyboard)
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        sys.stdout.write(_SHOW)
        sys.stdout.flush()
