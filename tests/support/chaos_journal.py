# SPDX-License-Identifier: Apache-2.0
"""Journals: what each process of a chaos run did, line by line.

Every line is one write() to a file that is only appended to, so that a
kill -9 loses nothing of what was written before.
"""

import json
import logging
import os
import time

_DROPS = logging.getLogger('zmq_threaded.client.losses')


class Journal:
    """The file of one life of one process.

    Thread: any.
    """

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, what, **details):
        line = json.dumps({'at': time.monotonic(), 'what': what, **details})
        os.write(self._file, line.encode() + b'\n')


class LogToJournal(logging.Handler):
    """Warnings and worse, and each message that is dropped, become lines, so
    that what is only logged can be held against what happened.
    """

    def __init__(self, journal, level=logging.WARNING):
        super().__init__(level)
        self._journal = journal

    def emit(self, record):
        text = record.getMessage()
        if record.exc_info:
            text += '\n' + logging.Formatter().formatException(record.exc_info)
        self._journal.write('log', level=record.levelname, name=record.name,
                            text=text, crash=bool(record.exc_info))


def open_with_log(path):
    """A Journal that has the log of this process, too."""
    journal = Journal(path)
    logging.getLogger().addHandler(LogToJournal(journal))
    drops = LogToJournal(journal, logging.DEBUG)
    drops.addFilter(lambda record: record.levelno < logging.WARNING)
    _DROPS.addHandler(drops)
    _DROPS.setLevel(logging.DEBUG)
    return journal


def read(path):
    """The lines of a journal; of one that was killed the last may be cut, as
    of one that is being written.
    """
    # At once: line by line, the rest of a cut line would come as the next.
    with open(path) as file:
        complete, _, _ = file.read().rpartition('\n')
    return [json.loads(line) for line in complete.splitlines()]


def resident():
    """Bytes of memory of this process, read without psutil."""
    with open('/proc/self/statm') as statm:
        return int(statm.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
