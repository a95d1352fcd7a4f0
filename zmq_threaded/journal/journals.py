# SPDX-License-Identifier: Apache-2.0
"""The journal thread of a driver: it owns the driver's own journal, and those
that the driver has adopted.
"""

import contextlib
import functools
import queue
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from zmq_threaded import counters as counting
from zmq_threaded import errors
from zmq_threaded import logs
from zmq_threaded import mailbox
from zmq_threaded import options
from zmq_threaded import texts
from zmq_threaded import threads
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.journal import adoption
from zmq_threaded.journal import database
from zmq_threaded.journal import file as files
from zmq_threaded.journal import kept as keeping
from zmq_threaded.journal import locks
from zmq_threaded.journal import making
from zmq_threaded.journal import place as places
from zmq_threaded.journal import steps
from zmq_threaded.journal import survey
from zmq_threaded.journal import writer
from zmq_threaded.net import descriptors

LOG = logs.get(__name__)

_IDLE, _BUSY, _MOST = 5.0, 0.1, 500
# Seconds between two looks for what operators want dropped, and at the files
# of the own journal.
_LOOK_EVERY = 1.0
# Seconds between two looks whether there is room in the journal again, and
# between two requests to make room.
_POLL, _ASK_EVERY = 0.01, 0.1


class Journals:
    """Keeps the messages of one driver on disk, if its options say so, and
    takes over the journals of processes that died.

    :param ipc_dir: absolute path of the IPC directory
    :param maker: of the ids of this driver's messages
    :param tell: runs a callable in the outbox thread, later
    :ivar client: what this calls in the outbox thread; set before start
    :ivar keeps: whether messages of this driver are kept on disk

    Thread: any for the public methods, journal for the rest.
    """

    def __init__(self, settings: options.Settings, ipc_dir: str,
                 counters: counting.Counters, maker: bytes,
                 tell: Callable) -> None:
        self._settings = settings
        self._place = place = places.of(settings, ipc_dir)
        self._maker = maker
        self._counters = counters
        self._tell = tell
        self.client: Any = None
        self.keeps = settings.custody != options.MEMORY
        self._mailbox = mailbox.Mailbox()
        self._own: files.JournalFile | None = None
        # Those that were removed under this process.
        self._lost: list[files.JournalFile] = []
        self._made = 0
        self._finished = False
        self._may_warn = counting.Seldom()
        self._next_look = 0.0
        self._adoption = adoption.Adoption(
            place, counters,
            lambda found: tell(functools.partial(self.client.adopt, found)),
            self._merge_pools,
            lambda: tell(lambda: self.client.mark_stranded()))
        self._writer = writer.Writer(tell, self._removed, self._of_its_own,
                                     self._on_broken, self._explain, counters)
        self._loop = threads.Loop(threads.JOURNAL, self._turn,
                                  self._mailbox.wake, counters,
                                  finish=self._finish)

    # Senders

    def post(self, delivery: deliveries.Delivery, deadline: float,
             post: Callable[[deliveries.Delivery, float], None]) -> None:
        """Write a message down, from where on it survives, and post it.

        :param deadline: monotonic seconds
        :param post: takes it into custody
        :raises: errors.NotAccepted; descriptors.Short; what post() raises
        """
        try:
            if delivery.kind in keeping.KINDS and threads.may_wait():
                self._write_down(delivery, deadline)
            post(delivery, deadline)
        except BaseException:
            if delivery.kept is not None:
                self._undo(delivery)
            raise

    def _write_down(self, delivery, deadline):
        self._loop.start()
        why = self._no_room(deadline) or self._keep(delivery, deadline)
        if not why:
            return
        if self._settings.custody_when_full != 'memory':
            raise errors.NotAccepted(why)
        self._counters.add('custody_in_memory')
        delivery.expires = min(delivery.expires, time.monotonic()
                               + self._settings.message_ttl)
        if self._may_warn.allows():
            LOG.warning('%s is kept in memory alone: %s', delivery, why)

    def _keep(self, delivery, deadline):
        step = steps.Keep(delivery)
        try:
            self._mailbox.put(step)
            if self._finished:
                return 'the driver was closed'
            return step.wait(deadline)
        except queue.Empty:
            self._undo(delivery)
            raise errors.NotAccepted(
                f'the journal in {self._place.path} could not be written '
                'within rpc_cast_timeout: see to the disk') from None
        except BaseException:
            self._undo(delivery)
            raise

    def _no_room(self, deadline):
        """Why there is no room in the journal; '' if there is."""
        limit = self._settings.custody_bytes
        own = self._own
        if own is None or own.bytes < limit:
            return ''
        ask_at = 0.0
        while own.bytes >= limit:
            if time.monotonic() >= ask_at:
                ask_at = time.monotonic() + _ASK_EVERY
                self._tell(lambda: self.client.make_room(own.bytes - limit))
            if time.monotonic() >= deadline:
                return (f'the journal in {self._place.path} holds '
                        f'{own.bytes} bytes (rpc_zmq_custody_bytes) for '
                        'services that are too slow')
            time.sleep(_POLL)
        return ''

    def _undo(self, delivery):
        """The sender of a message is not told that it was accepted."""
        self._mailbox.put(steps.Undo(delivery))

    # The outbox

    def record(self, file: files.JournalFile, parts: list,
               done: Callable[[], None]) -> None:
        """Write down where messages go next.

        :param parts: of (delivery, Instance or None), of one journal
        :param done: called in the outbox thread afterwards
        """
        self._mailbox.put(steps.Parts(file, parts, done))

    def ended(self, delivery: deliveries.Delivery, is_last: bool) -> None:
        """A message, or a copy, has ended.

        :param is_last: whether nothing of the message is left
        """
        self._mailbox.put(steps.Ended(delivery, is_last))

    def seen(self, topic: Any, pool: str) -> None:
        """A pool has listeners now."""
        if self.keeps:
            self._mailbox.put(steps.Seen(topic, pool, time.time()))

    def _removed(self, done):
        self.client.removed(done)

    # All

    def look_around(self, start_outbox: Callable[[], None]) -> None:
        """Adopt the journals of processes that died; to be called now and
        then. The threads start when there may be some.
        """
        others = [path for path in self._place.journals()
                  if not locks.is_ours(places.lock_of(path))]
        if others and not self._finished:
            with contextlib.suppress(descriptors.Short):
                start_outbox()
                self._loop.start()
            self._mailbox.put(self._adoption.look)

    def is_adopting(self) -> bool:
        """Whether there are messages of processes that died."""
        return self._adoption.is_busy()

    def stop(self) -> None:
        """End the thread soon; what it was asked before is written."""
        self._loop.stop()

    def join(self, deadline: float) -> bool:
        """Whether the thread has ended by then, in monotonic seconds."""
        return self._loop.join(deadline)

    # The journal thread

    def _turn(self):
        wait = self._writer.time_left(
            _BUSY if self._adoption.is_busy() else _LOOK_EVERY
            if self._own is not None else _IDLE)
        for item in self._mailbox.take(wait, _MOST):
            self._do(item)
        self._writer.write(time.monotonic())
        self._adoption.go_on(time.monotonic())
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_EVERY
            self._look_after_own()
            self._look_for_drops()

    def _look_after_own(self):
        if self._own is not None and self._own.is_lost():
            self._give_up_lost(self._own)
        elif self._own is not None:
            self._own.shrink()

    def _give_up_lost(self, own):
        self._counters.add('journals_lost')
        making.report_lost(own, self._place)
        # What becomes of its messages is still written into it.
        self._lost.append(own)
        self._own = None

    def _look_for_drops(self):
        found = self._adoption.asked()
        if self._own is not None:
            with contextlib.suppress(sqlite3.Error):
                mine = self._own.asked()
                for name, pool in mine:
                    if pool is not None:
                        self._own.forget_pool(name, pool)
                found += mine
        for name, pool in found:
            self._tell(functools.partial(self.client.drop, name, pool))

    def _do(self, item):
        if callable(item):
            item()
        else:
            self._writer.add(item)

    def _of_its_own(self) -> files.JournalFile:
        if self._own is not None and self._own.is_lost():
            self._give_up_lost(self._own)
        if self._own is None:
            self._own = making.create(
                self._place, self._maker,
                self._settings.custody == options.DISK, self._made)
            self._made += 1
            LOG.info('zmq: custody of this process is kept in %s',
                     self._own.path)
            # Before anything is accepted.
            self._know_pools(survey.known_pools(self._place))
        return self._own

    def _know_pools(self, pools, is_written=True):
        oldest = time.time() - self._settings.custody_ttl
        pools = [each for each in pools if each[2] > oldest]
        if not pools:
            return
        self._tell(lambda: [self.client.know_pool(*each) for each in pools])
        if is_written:
            self._of_its_own().write(files.Batch(pools=pools))

    def _merge_pools(self, pools):
        """Know the pools of a journal of somebody else.

        :returns: whether they are written elsewhere now
        """
        try:
            self._know_pools(pools, is_written=self.keeps)
        except (sqlite3.Error, OSError, database.Unusable) as error:
            # The error is of this process's own journal.
            self._counters.add('journal_errors')
            if self._may_warn.allows():
                LOG.error('%s', self._explain(error))
            return False
        return self.keeps or not pools

    def _on_broken(self, file, error):
        file.set_aside()
        adoption.set_aside(file.path, error, self._counters)
        if file is self._own:
            self._own = None

    def _explain(self, error):
        if database.is_locked(error):
            return (f'another program has locked a journal in '
                    f'{self._place.path}: end that program (fuser names it)')
        return (f'the journal in {self._place.path} cannot be written: '
                f'{texts.line(str(error))}. Make room there, or see to the '
                'permissions, or name another directory '
                '(rpc_zmq_custody_dir)')

    def _finish(self):
        self._finished = True
        for item in self._mailbox.take(0, 1 << 30):
            self._do(item)
        self._writer.write(time.monotonic(), at_once=True)
        self._adoption.close()
        self._close_own()

    def _close_own(self):
        own, self._own = self._own, None
        if own is not None:
            making.end(own)
        for each in self._lost:
            each.close()
