# SPDX-License-Identifier: Apache-2.0
"""Complaints: whom a process cannot reach, told to those whom it concerns.

A firewall between two nodes is seen by those who send alone. So a sender that
tries a listed service in vain says so in the registry, under a key of the
node of the service; and the services of that node read what is there.
"""

import dataclasses
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any
from urllib import parse

from zmq_threaded import texts
from zmq_threaded.registry import record

# No topic has a key like this.
_KEY = 'zmq_threaded:unreachable'
# The field of a record; earlier releases ignore it.
FIELD = 'unreachable'
# Whom a process complains of at most, and of how many complaints a service
# hears; seconds for which it does so after it has tried in vain.
_MOST, _MOST_HEARD, _LASTS = 50, 200, 60.0
_LONGEST = 300

Way = tuple[str, ...]
# Of a complaint, as it is published.
Fields = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Complaint:
    """What one process says of a service that it cannot reach.

    :ivar endpoints: those of the record of the service
    :ivar who: the process, in words
    :ivar why: what it has tried, and what came of it

    Thread: any.
    """

    endpoints: Way
    who: str
    why: str


Heard = dict[Way, list[Complaint]]


def key_of(host: str) -> str:
    """The key under which complaints of the services of a node stand."""
    return f'{_KEY}:{parse.quote(host, safe="", errors="surrogatepass")}'


def read(stored: Iterable[Any]) -> Heard:
    """Complaints as others have published them, with distrust.

    :param stored: records
    """
    heard: Heard = {}
    for _, each in zip(range(_MOST_HEARD), _listed(stored)):
        heard.setdefault(each.endpoints, []).append(each)
    return heard


def _listed(stored):
    for one in stored:
        try:
            fields = record.unpack(one) if isinstance(one, bytes) else one
        except record.Malformed:
            continue
        said = fields.get(FIELD) if isinstance(fields, dict) else None
        for each in said[:_MOST] if isinstance(said, list) else ():
            complaint = _complaint(each)
            if complaint is not None:
                yield complaint


def _complaint(fields):
    try:
        endpoints = tuple(map(str, fields['endpoints']))
        return Complaint(endpoints, texts.line(fields['who'], _LONGEST),
                         texts.line(fields['why'], _LONGEST))
    except Exception:
        return None


class Complaints:
    """Whom this process has tried in vain to reach.

    Thread: any. The lock is reentrant for the sake of signal handlers.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # Of each way: the instance, why, and since and until when.
        self._found: dict[Way, tuple[record.Instance, str, float, float]] = {}

    def unreachable(self, instance: record.Instance, why: str) -> None:
        """It was tried again, and in vain."""
        now = time.monotonic()
        with self._lock:
            known = self._found.get(instance.endpoints)
            if known is None and len(self._found) >= _MOST:
                return
            # The first reason stays, for each change is written.
            _, first, since, _ = known or (instance, why, now, now)
            self._found[instance.endpoints] = (instance, first, since,
                                               now + _LASTS)

    def reached(self, instance: record.Instance) -> None:
        """It answers."""
        if self._found:
            with self._lock:
                self._found.pop(instance.endpoints, None)

    def current(self) -> list[tuple[record.Instance, str, float]]:
        """Of each that cannot be reached: (instance, why, since when in
        monotonic seconds).
        """
        if not self._found:
            return []
        now = time.monotonic()
        with self._lock:
            for way, (_, _, _, until) in list(self._found.items()):
                if until < now:
                    del self._found[way]
            return [each[:3] for each in self._found.values()]

    def fields(self) -> dict[str, list[Fields]]:
        """What is to be published, by key."""
        found: dict[str, list[Fields]] = {}
        for instance, why, _ in self.current():
            if instance.host:
                found.setdefault(key_of(instance.host), []).append(
                    {'endpoints': list(instance.endpoints),
                     'who': _myself(), 'why': texts.line(why, _LONGEST)})
        return found


def _myself():
    program = os.path.basename(sys.argv[0]) if sys.argv else ''
    return texts.line(f'{program or "python"}, process {os.getpid()} on '
                      f'{socket.gethostname()}', texts.NAME)
