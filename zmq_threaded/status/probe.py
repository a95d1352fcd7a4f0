# SPDX-License-Identifier: Apache-2.0
"""Asks services whether they are there, over the same way as a call.

The question is a QUERY about a message that nobody has. Every version answers
it, no handler hears of it, and it moves nothing.
"""

import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

from zmq_threaded import ipc_directory
from zmq_threaded import options
from zmq_threaded import sockets
from zmq_threaded import wire
from zmq_threaded.client import opening
from zmq_threaded.client import reasons
from zmq_threaded.net import descriptors
from zmq_threaded.net import multiparts
from zmq_threaded.registry import record
from zmq_threaded.security import own_directory

# What became of a question. SILENT says nothing of a service that has stopped
# reading because it holds as much as it may.
ANSWERED, UNREACHABLE, ABSENT, SILENT = (
    'answered', 'unreachable', 'absent', 'silent')
_ABSENT = {wire.GONE, wire.STOPPING, wire.UNREACHABLE}
# Threads that ask; and questions to one service in a second, of which a
# receiver passes on no more (timings.QUERIES).
_THREADS, _SPACING = 16, 0.06
_TERM_LIMIT = 1.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one question.

    :ivar kind: ANSWERED, UNREACHABLE, ABSENT (its receiver answers that it
        is gone, or stands still) or SILENT
    :ivar seconds: until the answer; 0 without one
    :ivar why: why there was none

    Thread: any.
    """

    kind: str
    seconds: float = 0.0
    why: str = ''


class Prober:
    """Asks the services of a cloud.

    :param settings: options.Settings
    :param limit: seconds to wait for one answer

    Thread: any.
    """

    def __init__(self, settings: options.Settings, limit: float) -> None:
        self._limit = limit
        self._own = own_directory.OwnDirectory(ipc_directory.find(settings))
        self._context = sockets.new_context(settings)
        self._sockets = sockets.Sockets(self._context, settings)
        self._opening = opening.Opening(self._sockets)
        self._new_id = wire.id_maker()

    def close(self) -> None:
        """Close what is open."""
        sockets.terminate(self._context, _TERM_LIMIT)

    def ask_all(self, instances: Iterable[record.Instance], count: int = 1
                ) -> Iterator[tuple[record.Instance, list[Outcome]]]:
        """Ask many services at once; those behind one receiver in turn.

        :param count: questions to each
        :returns: of each the outcomes, as they come
        """
        groups: dict[tuple[Any, ...], list[record.Instance]] = {}
        for instance in map(self._own.only, instances):
            groups.setdefault((instance.endpoints, instance.key),
                              []).append(instance)
        with concurrent.futures.ThreadPoolExecutor(
                _THREADS, 'zmq-probe') as pool:
            for done in concurrent.futures.as_completed([
                    pool.submit(self._ask_group, behind, count)
                    for behind in groups.values()]):
                yield from done.result()

    def _ask_group(self, behind: list[record.Instance], count: int
                   ) -> list[tuple[record.Instance, list[Outcome]]]:
        try:
            if problem := self._own.problem(behind[0]):
                raise opening.Unreachable(problem)
            with self._connected(behind[0]) as socket:
                return [(instance, self._ask_often(socket, instance, count))
                        for instance in behind]
        except (opening.Unreachable, descriptors.Short,
                OSError) as problem:
            failed = [Outcome(UNREACHABLE, why=str(problem))]
            return [(instance, failed) for instance in behind]

    @contextlib.contextmanager
    def _connected(self, instance: record.Instance) -> Iterator[Any]:
        _, socket = self._opening.open(
            instance.endpoints, time.monotonic() + self._limit, instance.key)
        try:
            yield socket
        finally:
            self._sockets.close(socket, linger=0)

    def _ask_often(self, socket: Any, instance: record.Instance,
                   count: int) -> list[Outcome]:
        outcomes = [self._ask(socket, instance)]
        while len(outcomes) < count:
            time.sleep(_SPACING)
            outcomes.append(self._ask(socket, instance))
        return outcomes

    def _ask(self, socket: Any, instance: record.Instance) -> Outcome:
        began = time.monotonic()
        try:
            multiparts.send(socket, [wire.encode_query(
                instance.id, [self._new_id()], wire.OBSERVE)])
            while (left := began + self._limit - time.monotonic()) > 0:
                if not socket.poll(int(1000 * left) + 1):
                    break
                frames = multiparts.receive(socket)
                outcome = _read(frames, instance, time.monotonic() - began)
                if outcome is not None:
                    return outcome
        except (OSError, ValueError) as error:
            return Outcome(UNREACHABLE, why=f'the connection broke: {error}')
        return Outcome(SILENT, why=f'no answer within {self._limit:.1f} s')


def _read(frames: list[Any], instance: record.Instance,
          seconds: float) -> Outcome | None:
    """What an answer says; None of one that is for somebody else."""
    try:
        # What follows it is of a later version.
        message = wire.decode(frames[0])
    except wire.WrongVersion:
        return Outcome(ANSWERED, seconds)
    if message.instance != instance.id:
        return None
    if message.kind == wire.NACK:
        reason, text = wire.nack_reason(message)
        if reason in _ABSENT:
            return Outcome(ABSENT, why=reasons.refusal(reason, text))
    return Outcome(ANSWERED, seconds)
