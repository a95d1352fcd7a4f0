# SPDX-License-Identifier: Apache-2.0
"""What the verbs print: tables for people, JSON for programs."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

try:
    import rich.console
    import rich.markup
    import rich.table
except ImportError:     # the extra `cli` is not installed
    rich = None     # type: ignore[assignment]

JSON, TABLE, PLAIN = 'json', 'table', 'plain'
# Seconds that the command line may name: a day.
_LONGEST = 86400


class CannotAsk(Exception):
    """A question could not be asked; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under a title.

    Thread: any.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


def add_option(parser: argparse.ArgumentParser) -> None:
    """The option of the command line that chooses the format."""
    parser.add_argument(
        '-o', '--output', choices=(TABLE, PLAIN, JSON), default=None,
        help='table (by default on a terminal), plain text (by default in a '
             'pipe), or json')


def seconds(text: str) -> float:
    """A duration on the command line, for argparse.

    :raises: argparse.ArgumentTypeError
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    # No NaN is in a range.
    if not 0 < value <= _LONGEST:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no number of seconds above 0, and {_LONGEST} at '
            'most')
    return value


def count(text: str) -> int:
    """A number of times on the command line, for argparse.

    :raises: argparse.ArgumentTypeError
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no whole number of 1 or more')
    return value


def show(arguments: argparse.Namespace, document: Any,
         parts: Iterable[str | Table]) -> None:
    """Print the answer of a verb.

    :param document: all of it, for -o json
    :param parts: lines of text and tables, for people
    """
    form = arguments.output or (TABLE if sys.stdout.isatty() else PLAIN)
    if form == JSON:
        json.dump(document, sys.stdout, indent=1, default=str)
        print()
        return
    for part in parts:
        if isinstance(part, str):
            print(fit(part))
        elif form == TABLE and rich:
            _rich(part)
        else:
            print(*plain(part), sep='\n')


def _rich(table):
    made = rich.table.Table(title=table.title, title_justify='left')
    for column in table.columns:
        made.add_column(column, overflow='fold')
    for row in table.rows:
        # Names come from anywhere: they are text, and no markup.
        made.add_row(*(rich.markup.escape(fit(cell)) for cell in row))
    rich.console.Console().print(made)


def plain(table: Table) -> list[str]:
    """The lines of a table, for a pipe."""
    rows = [list(table.columns),
            *([fit(cell) for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [table.title, *(
        '  '.join(cell.ljust(width) for cell, width
                  in zip(row, widths, strict=True)).rstrip()
        for row in rows)]


def fit(cell: object) -> str:
    """A cell or line, without control characters for the terminal."""
    text = '' if cell is None else str(cell)
    return ''.join(sign if sign.isprintable() else '?' for sign in text)
