# SPDX-License-Identifier: Apache-2.0
"""What the user sees while the load tool runs.

On a terminal this is a bar, else a line for each round.
"""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn

# Each refresh takes time from the client threads, which share the interpreter.
_REFRESH_SECONDS = 0.5


def make_progress():
    """Return the kind of progress that suits this process's stderr."""
    return BarProgress() if sys.stderr.isatty() else LineProgress()


class LineProgress:
    """Brief lines on stderr, one for each finished round."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def begin(self, what):
        """Name what comes next."""

    def stage(self, what):
        """Name the part of it that comes next."""

    def update(self, fraction, operations, seconds):
        """Show that this many operations were begun in this stage."""

    def draining(self, missing):
        """Show that this many messages have not arrived yet."""

    def say(self, text):
        """Print a line that stays."""
        print(text, file=sys.stderr, flush=True)


class BarProgress(LineProgress):
    """A live bar on the terminal."""

    def __init__(self):
        self._bar = Progress(
            TextColumn('{task.description}', markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn('{task.fields[note]}'),
            transient=True,
            auto_refresh=False,
            console=Console(stderr=True, highlight=False),
        )
        self._task = None
        self._stage = ''
        self._refreshed = 0.0

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *exception):
        self._bar.stop()

    def begin(self, what):
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=1.0, note='')
        self._show()

    def stage(self, what):
        self._stage = what

    def update(self, fraction, operations, seconds):
        if self._due():
            rate = operations / seconds if seconds else 0
            self._bar.update(self._task, completed=min(1.0, fraction),
                             note=f'{self._stage} {rate:,.0f}/s')
            self._show()

    def draining(self, missing):
        if self._due():
            self._bar.update(
                self._task, completed=1.0, note=f'{missing:,} on their way'
            )
            self._show()

    def say(self, text):
        self._bar.console.print(text, markup=False, soft_wrap=True)

    def _due(self):
        return time.monotonic() - self._refreshed >= _REFRESH_SECONDS

    def _show(self):
        self._refreshed = time.monotonic()
        self._bar.refresh()
