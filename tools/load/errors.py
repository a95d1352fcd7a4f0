# SPDX-License-Identifier: Apache-2.0
"""Errors that end a run with one line on stderr."""

EXIT_UNSOUND = 1
EXIT_USAGE = 2
EXIT_START = 3
EXIT_INTERRUPTED = 130


class LoadError(Exception):
    """The run cannot go on; exit_code is the exit code of the tool."""

    exit_code = EXIT_UNSOUND


class UsageError(LoadError):
    """An option or a transport URL makes no sense."""

    exit_code = EXIT_USAGE


class StartError(LoadError):
    """A server did not start, or the client did not reach it."""

    exit_code = EXIT_START


class ServerDied(LoadError):
    """A server process ended, or stopped answering, during the run."""


class ThreadsStuck(LoadError):
    """Client threads did not come back from the transport."""


def first_line(error):
    """Return 'ClassName: text' of an exception, on one line.

    The line has 300 characters at most.
    """
    text = ' '.join(str(error).split())
    return (
        f'{type(error).__name__}: {text}'[:300]
        if text
        else type(error).__name__
    )
