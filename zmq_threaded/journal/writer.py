# SPDX-License-Identifier: Apache-2.0
"""Gathers what is to be written, and writes it in few steps."""

import sqlite3
import time
from collections.abc import Callable
from typing import Any

from zmq_threaded import counters as counting
from zmq_threaded import logs
from zmq_threaded.journal import database
from zmq_threaded.journal import file as files
from zmq_threaded.journal import steps

LOG = logs.get(__name__)

# What has ended is removed together with what is written next, or after so
# many seconds, or when there is so much of it.
_REMOVE_WITHIN, _REMOVE_MOST = 0.05, 500
_TRY_AGAIN = 1.0


class Writer:
    """Writes for one driver, into its own journal and those that it adopted.

    :param tell: runs a callable in the outbox thread, later
    :param removed: called in the outbox thread with the list of deliveries
        whose end is written
    :param broken: called with a journal that is of no use any more, and the
        error that says so
    :param own: returns the journal of this driver, which it makes if need be;
        raises OSError or sqlite3.Error

    Thread: journal.
    """

    def __init__(self, tell: Callable, removed: Callable, own: Callable,
                 broken: Callable, explain: Callable[[Exception], str],
                 counters: counting.Counters) -> None:
        self._tell = tell
        self._removed = removed
        self._own = own
        self._broken = broken
        self._explain = explain
        self._counters = counters
        self._may_warn = counting.Seldom()
        self._keeps: list[steps.Keep] = []
        self._parts: list[steps.Parts] = []
        self._seen: list[steps.Seen] = []
        self._ended: list[steps.Ended] = []
        self._remove_at = 0.0
        # Journals that could not be written, and when each is tried again,
        # in monotonic seconds; None stands for one that could not be made.
        self._put_off: dict[files.JournalFile | None, float] = {}

    def add(self, item: Any) -> None:
        """Something is to be written."""
        self._add[type(item)](self, item)

    def _add_keep(self, item):
        self._keeps.append(item)

    def _add_parts(self, item):
        self._parts.append(item)

    def _add_seen(self, item):
        self._seen.append(item)

    def _add_ended(self, item):
        if not self._ended:
            self._remove_at = time.monotonic() + _REMOVE_WITHIN
        self._ended.append(item)

    def _add_undo(self, item):
        before = [each for each in self._keeps
                  if each.delivery is item.delivery]
        for each in before:
            self._keeps.remove(each)
        if not before and item.delivery.kept is not None:
            self._add_ended(steps.Ended(item.delivery, True))

    _add = {steps.Keep: _add_keep, steps.Parts: _add_parts,
            steps.Seen: _add_seen, steps.Ended: _add_ended,
            steps.Undo: _add_undo}

    def time_left(self, most: float) -> float:
        """Seconds until something has to be written."""
        due = [self._remove_at] if self._ended else []
        if self._parts or self._seen:
            due += self._put_off.values()
        left = min(due, default=0.0) - time.monotonic()
        return min(most, max(0.0, left)) if due else most

    def write(self, now: float, at_once: bool = False) -> None:
        """Write what is due.

        :param at_once: whether that is everything
        """
        if (self._keeps or self._parts or self._seen or at_once
                or len(self._ended) >= _REMOVE_MOST
                or self._ended and now >= self._remove_at):
            self._put_off = {file: at for file, at in self._put_off.items()
                             if at > now and not at_once}
            self._write()

    def _write(self):
        batches: dict[files.JournalFile, files.Batch] = {}
        keeps, self._keeps = self._keeps, []
        seen, self._seen = self._due(self._seen, _own_of, bool(keeps))
        why = self._gather_keeps(keeps, seen, batches)
        parts, self._parts = self._due(self._parts, _file_of_parts)
        ended, self._ended = self._due(self._ended, _file_of_ended)
        for each in parts:
            _batch(batches, each.file).parts += each.parts
        for item in ended:
            _gather_ended(item, batches)
        refused: dict[files.JournalFile | None, str] = {None: why}
        failed = dict(refused)
        for file, batch in batches.items():
            refused[file], failed[file] = self._write_one(file, batch)
            if seen and batch.pools:
                failed[None] = failed[file]
        self._tell_all(keeps, refused)
        self._hold(seen, parts, ended, failed)

    def _due(self, items, file_of, is_forced=False):
        """:returns: (those whose journals may be written now, the others)"""
        due: list = []
        held: list = []
        for each in items:
            (held if file_of(each) in self._put_off and not is_forced
             else due).append(each)
        return due, held

    def _gather_keeps(self, keeps, seen, batches):
        """:returns: why there is no journal for them, '' if there is one"""
        if not keeps and not seen:
            return ''
        try:
            own = self._own()
        except (OSError, sqlite3.Error, MemoryError,
                database.Unusable) as error:
            return self._explain(error)
        batch = _batch(batches, own)
        if keeps:
            # It is tried now, with all that is held for it.
            self._put_off.pop(own, None)
        for each in keeps:
            own.prepare(each.delivery)
            batch.messages.append(each.delivery)
        batch.pools += [(each.topic, each.pool, each.at) for each in seen]
        return ''

    def _write_one(self, file, batch):
        """:returns: why its messages were not written, and why the rest was
        not; '' for what was
        """
        why = self._why_not(file, batch)
        if not why or not batch.messages or file.is_set_aside:
            return why, why
        # There may be no room for more, but for less there is.
        batch.messages = []
        return why, self._why_not(file, batch)

    def _why_not(self, file, batch):
        if not batch:
            return ''
        try:
            file.write(batch)
            return ''
        except (sqlite3.Error, OSError, MemoryError) as error:
            self._counters.add('journal_errors')
            why = self._explain(error)
            if self._may_warn.allows():
                LOG.error('A journal cannot be written: %s', why)
            if database.is_broken(error):
                self._broken(file, error)
            return why

    @staticmethod
    def _tell_all(keeps, refused):
        for each in keeps:
            kept = each.delivery.kept
            reason = refused[None] if kept is None else refused[kept.file]
            if reason:
                each.delivery.kept = None
            each.answer(reason)

    def _hold(self, seen, parts, ended, failed):
        """Try again soon what was not written; tell the outbox of the rest.
        """
        again = {file: time.monotonic() + _TRY_AGAIN
                 for file, why in failed.items()
                 if why and not (file and file.is_set_aside)}
        self._put_off.update(again)
        if None in again:
            self._seen = seen + self._seen
        written = [each for each in parts if each.file not in again]
        if written:
            self._tell(lambda: [each.done() for each in written])
        self._parts = [each for each in parts
                       if each.file in again] + self._parts
        removed = [each.delivery for each in ended
                   if _file_of_ended(each) not in again]
        if removed:
            self._tell(lambda: self._removed(removed))
        self._hold_ended([each for each in ended
                          if _file_of_ended(each) in again])

    def _hold_ended(self, again):
        for each in again:
            each.delivery.kept.is_ended = False
        self._ended = again + self._ended
        if self._ended:
            self._remove_at = time.monotonic() + _TRY_AGAIN


def _own_of(seen):
    return None


def _file_of_parts(item):
    return item.file


def _file_of_ended(item):
    return item.delivery.kept.file


def _batch(batches, file):
    found = batches.get(file)
    if found is None:
        found = batches[file] = files.Batch()
    return found


def _gather_ended(item, batches):
    kept = item.delivery.kept
    batch = _batch(batches, kept.file)
    if item.delivery.part:
        batch.ended_parts.append(item.delivery.part)
    if item.is_last and not kept.is_ended:
        kept.is_ended = True
        batch.ended.append(kept)
