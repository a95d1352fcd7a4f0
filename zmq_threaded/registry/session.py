# SPDX-License-Identifier: Apache-2.0
"""How an engine differs from the others, and one life of a process in it."""

import dataclasses
from collections.abc import Callable
from typing import Any

from zmq_threaded.registry import notices as noticing
from zmq_threaded.registry import reading
from zmq_threaded.registry import shared_facts


@dataclasses.dataclass(frozen=True)
class Engine:
    """How an engine differs from the others.

    :ivar connect: makes a tooz coordinator for a member id
    :ivar expire: seconds after which a record that is not renewed is gone
    :ivar keeps_sessions: its client renews by itself (its heartbeat() only
        blocks), and is of no use any more after an error: the session may be
        one that the server never takes back
    :ivar release: gives back what a stopped coordinator leaves open
    :ivar forgets: it may come back without its records, and has a mark by
        which that is seen; if not, its coordinator sees it
    :ivar reader: makes the Reader of a session
    :ivar place: what it is and where, for the operator
    :ivar notices: what it tells of changes
    :ivar facts: how it is told facts; None where files are enough

    Thread: any.
    """

    connect: Callable[[bytes], Any]
    expire: float
    keeps_sessions: bool = False
    release: Callable[[Any], None] = lambda coordinator: None
    forgets: bool = True
    reader: Callable[[], reading.Reader] = lambda: reading.FILES
    place: str = ''
    notices: noticing.Tolerant = dataclasses.field(
        default_factory=lambda: noticing.Tolerant(noticing.NoNotices(), str))
    facts: shared_facts.Access | None = None


@dataclasses.dataclass(frozen=True)
class Session:
    """One life of this process in the registry.

    :ivar member_id: fresh for each life
    :ivar coordinator: of tooz

    Thread: registry, or its engine's thread; one at a time.
    """

    member_id: bytes
    coordinator: Any
    reader: reading.Reader
