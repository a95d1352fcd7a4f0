# SPDX-License-Identifier: Apache-2.0
"""Registrations and look-ups, whatever the engine of the registry."""

import functools
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

from zmq_threaded import counters
from zmq_threaded import logs
from zmq_threaded import threads
from zmq_threaded.registry import complaints
from zmq_threaded.registry import epochs
from zmq_threaded.registry import member
from zmq_threaded.registry import patience
from zmq_threaded.registry import record
from zmq_threaded.registry import session as sessions
from zmq_threaded.registry import shared_facts
from zmq_threaded.registry import troubles

LOG = logs.get(__name__)

# Seconds between two warnings of records that are of no use.
_SELDOM = 60.0


class Store:
    """The records of the registry, as one driver in one process reads and
    writes them. Each method raises what the client library of the engine
    raises, which may be any Exception.

    :param engine: Engine
    :param runner: runs an operation in the thread that may block
    :param hide: takes secrets out of a text
    :ivar place: what the registry is and where, for the operator
    :ivar said: the complaints that say() was given last, by key
    :ivar notices: what the engine tells of changes
    :ivar expired: the ids of those instances that the last look-up found
        registered, but not renewed: they are dead, or the clock of the engine
        was set

    Thread: registry; any for hurry().
    """

    def __init__(self, engine: sessions.Engine, runner: patience.Patient,
                 hide: Callable[[str], str] = str) -> None:
        self.place = engine.place
        self.notices = engine.notices
        self._hide = hide
        self._engine = engine
        self._runner = runner
        self._member = member.Member(engine)
        self._wanted: dict[bytes, tuple[record.Instance,
                                        tuple[str, ...]]] = {}
        self._may_warn = counters.Seldom(_SELDOM)
        self.said: dict[str, list[complaints.Fields]] = {}
        self.expired: frozenset[bytes] = frozenset()

    def lookup(self, key: str) -> list[record.Instance]:
        """The instances registered under a key, in a stable order."""
        members, expired = self._run(member.Member.lookup, key)
        found: dict[bytes, record.Instance] = {}
        gone: dict[bytes, record.Instance] = {}
        for name, stored in members.items():
            # Twice, if its process had to begin a new life.
            (gone if name in expired else found).update(
                (instance.id, instance)
                for instance in self._decoded(key, name, stored))
        self.expired = frozenset(gone.keys() - found.keys())
        return [found[instance_id] for instance_id in sorted(found)]

    def watch(self, key: str) -> bool:
        """Have changes of a topic told that has just been looked up.

        :returns: whether changes since then may have been missed
        """
        return bool(self._run(member.Member.watch, key))

    def read_notices(self) -> None:
        """Have told what has come."""
        self._run(lambda party: self.notices.read())

    def _decoded(self, key: str, name: Any,
                 stored: Any) -> list[record.Instance]:
        bad: list[record.Malformed]
        try:
            good, bad = record.sift(stored)
        except record.Malformed as problem:
            good, bad = [], [problem]
        if bad and self._may_warn.allows():
            LOG.warning(
                'The registry (%s) holds a record of %s that is of no use, by '
                'member %.200r: %s', self.place, key, name,
                # As text: a log may keep it, and what it has hold of.
                str(bad[0]))
        return good

    def loss(self, key: str) -> epochs.Loss | None:
        """Which records the engine has lost, less than about the life of a
        record ago: it came back without them, or somebody has removed those
        of this key. That such a record is missing says nothing yet.

        :returns: None if nothing is known to be lost
        """
        lost: epochs.Loss | None = self._run(member.Member.loss, key)
        return lost

    def is_intact(self) -> bool:
        """Whether nothing that was registered here is known to be lost;
        beat() puts back what is. Asks no server.
        """
        if self._member.lacks_records():
            return False
        return (self._engine.forgets
                or bool(self._run(member.Member.is_intact)))

    def explain(self, error: Exception) -> str:
        """What an operation has raised, for the operator; without secrets.

        :returns: text, with the place of the registry
        """
        return f'{self.place}: {self._hide(troubles.text(error))}'

    def register(self, instance: record.Instance,
                 keys: Iterable[str],
                 in_place_of: record.Instance | None = None) -> None:
        """Make an instance known under each key; to repeat it is harmless.
        If it fails, beat() tries again.

        :param in_place_of: an instance of this process that is taken off the
            list with it
        """
        if in_place_of is not None:
            self._wanted.pop(in_place_of.id, None)
        self._wanted[instance.id] = (instance, tuple(keys))
        self._run(member.Member.settle, self._records())

    def unregister(self, instance: record.Instance) -> bool:
        """Remove the records of an instance, and the groups left empty. If
        it fails, beat() tries again.

        :returns: whether the engine had to be asked
        """
        return (self._wanted.pop(instance.id, None) is not None
                and bool(self._run(member.Member.settle, self._records())))

    def say(self, said: dict[str, list[complaints.Fields]]) -> bool:
        """Publish these complaints and no others of ours. If it fails,
        beat() tries again.

        :param said: by key
        :returns: whether the engine had to be asked
        """
        self.said = said
        return bool(self._run(member.Member.settle, self._records()))

    def stored(self, key: str) -> list[Any]:
        """The records under a key as they are stored, of the living."""
        members, expired = self._run(member.Member.lookup, key)
        return [stored for name, stored in members.items()
                if name not in expired]

    def hosts(self) -> set[str]:
        """The nodes of what is registered here, by their names."""
        return {instance.host for instance, _ in self._wanted.values()
                if instance.host}

    def beat(self) -> bool:
        """Renew all that is registered here, and put right what is not as it
        should be.

        :returns: whether the engine had to be asked
        """
        return bool(self._run(member.Member.settle, self._records(), True))

    def tell(self, facts: bytes) -> float | None:
        """Tell the facts of this process, where the registry is shared by
        several machines.

        :returns: the time by the clock of the server; None if it tells none
        """
        if self._engine.facts is None:
            return None
        told: float | None = self._run(member.Member.tell, facts)
        return told

    def read_all(self) -> shared_facts.Everything:
        """All that the registry holds."""
        found: shared_facts.Everything = self._run(member.Member.read_all)
        return found

    def has_records(self) -> bool:
        """Whether there is anything to renew, or to take off the list."""
        return bool(self._wanted or self.said
                    or self._member.has_records())

    def hurry(self) -> None:
        """About to be closed: wait for nothing any more."""
        self._runner.hurry()

    def close(self) -> None:
        """Remove all that was registered here and end the connection; waits
        a moment for it.
        """
        self._wanted.clear()
        self.said = {}
        ended, self._member = self._member, member.Member(self._engine)
        self._runner.finish(lambda: threads.do_all(
            [ended.close, self.notices.close]))

    def _records(self) -> dict[str, dict[str, Any]]:
        instances: dict[str, list[record.Instance]] = {}
        for instance, keys in self._wanted.values():
            for key in keys:
                instances.setdefault(key, []).append(instance)
        said = {key: {**record.encode(()), complaints.FIELD: those}
                for key, those in self.said.items()}
        return {**said, **{key: record.encode(those)
                           for key, those in instances.items()}}

    def _run(self, operation: Callable[..., Any], *args: Any) -> Any:
        if self._runner.gave_up(self._member.abandon):
            self._member = member.Member(self._engine)
        return self._runner.run(functools.partial(operation, self._member,
                                                  *args))
