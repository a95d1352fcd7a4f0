# SPDX-License-Identifier: Apache-2.0
"""Registrations and look-ups, whatever the engine."""

import functools

from zmq_threaded import counters
from zmq_threaded import logs
from zmq_threaded.matchmaker import member as members
from zmq_threaded.matchmaker import record as records

LOG = logs.get(__name__)


class Matchmaker:
    """Registrations and look-ups of one driver in one process.

    :param engine: Engine
    :param runner: runs an operation, in the thread that it is to have

    Thread: directory; and any for hurry().
    """

    def __init__(self, engine, runner):
        self._engine = engine
        self._runner = runner
        self._member = members.Member(engine)
        self._wanted = {}
        self._may_warn = counters.Seldom()

    def lookup(self, key):
        """The instances registered under a key.

        :raises: Exception, whatever the engine's client raises
        :returns: list of Instance, in a stable order
        """
        found = {}
        for member, record in self._run(members.Member.lookup, key).items():
            try:
                # Twice, if its process had to begin a new life.
                found.update((instance.id, instance)
                             for instance in records.decode(record))
            except records.Malformed:
                if self._may_warn.allows():
                    LOG.warning('The registry holds a record that is none of '
                                'ours: %r', member)
        return [found[instance_id] for instance_id in sorted(found)]

    def lost_its_records(self):
        """Whether the engine has come back without its records, less than
        about the life of a record ago: then absence says nothing yet.

        :raises: Exception, whatever the engine's client raises
        """
        return self._run(members.Member.lost_its_records)

    def register(self, instance, keys):
        """Make an instance known under each key; repeating it is harmless.
        If it fails, beat() tries again.

        :raises: Exception, whatever the engine's client raises
        """
        self._wanted[instance.id] = (instance, tuple(keys))
        self._run(members.Member.settle, self._records())

    def unregister(self, instance):
        """Remove the records of an instance, and the groups left empty. If
        it fails, beat() tries again.

        :raises: Exception, whatever the engine's client raises
        """
        if self._wanted.pop(instance.id, None):
            self._run(members.Member.settle, self._records())

    def beat(self):
        """Renew all that is registered, and put right what is not as it
        should be.

        :raises: Exception, whatever the engine's client raises
        """
        self._run(members.Member.settle, self._records(), True)

    def has_records(self):
        """Whether there is anything to renew, or to take off the list."""
        return bool(self._wanted) or self._member.has_records()

    def hurry(self):
        """About to be closed: wait for nothing any more."""
        self._runner.hurry()

    def close(self):
        """Remove all that was registered here and end the connection; waits
        a moment for it.
        """
        self._wanted.clear()
        member, self._member = self._member, members.Member(self._engine)
        self._runner.finish(member.close)

    def _records(self):
        instances = {}
        for instance, keys in self._wanted.values():
            for key in keys:
                instances.setdefault(key, []).append(instance)
        return {key: records.encode(those)
                for key, those in instances.items()}

    def _run(self, operation, *args):
        if self._runner.gave_up(self._member.abandon):
            self._member = members.Member(self._engine)
        return self._runner.run(functools.partial(operation, self._member,
                                                  *args))
