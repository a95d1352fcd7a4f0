# SPDX-License-Identifier: Apache-2.0
"""What custody does with messages that lie in journals, for room."""

import dataclasses
import types

import pytest

from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import in_doubt
from zmq_threaded.client import recording
from zmq_threaded.client import store
from zmq_threaded.journal import kept as keeping

TOPIC = topics.notifications('exchange', 'topic.info')


@dataclasses.dataclass
class World:
    """A recording, and what waits for nobody."""

    waiting: list = dataclasses.field(default_factory=list)
    dropped: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        self.recording = recording.Recording(
            None, store.Store(), in_doubt.InDoubt(b'm' * 8),
            types.SimpleNamespace(
                stranded=lambda: list(self.waiting),
                all_stranded=lambda: iter(self.waiting)),
            None, self, 100.0)

    def drop(self, delivery, cause):
        """As Custody.drop()."""
        self.dropped.append(delivery)
        self.waiting.remove(delivery)
        delivery.kept.left -= 1

    def add(self, copies=1, topic=None, others=0):
        """A message of 100 bytes with copies, of which others go on."""
        kept = keeping.Kept(None, 1, 100, copies + others, topic)
        made = [deliveries.Delivery(
            kind=wire.NOTIFY, topic=TOPIC, body=[], flags=0, expires=1.0,
            id=b'%16d' % len(self.waiting), kept=kept, part=number + 1)
            for number in range(copies)]
        self.waiting += made
        return made


@pytest.fixture
def world():
    return World()


def test_bytes_are_free_with_the_last_copy(world):
    world.add(3)
    world.add(3)
    left = world.add(1)
    world.recording.make_room(150)
    assert len(world.dropped) == 6 and world.waiting == left


def test_what_others_have_left_makes_no_room(world):
    adopted = world.add(1, topic=7)
    mine = world.add(1)
    world.recording.make_room(0)
    assert world.dropped == mine and world.waiting == adopted


def test_who_asks_again_has_nothing_dropped_twice(world):
    for _ in range(5):
        world.add()
    for _ in range(3):
        world.recording.make_room(50)
    assert len(world.dropped) == 1
    world.recording.removed(world.dropped)
    world.recording.make_room(50)
    assert len(world.dropped) == 2


def test_only_what_waits_for_nobody_in_all_its_copies_is_marked(world):
    marked, = world.add(1, topic=7)
    goes_on, = world.add(1, topic=7, others=1)
    mine, = world.add(1)
    world.recording.mark_stranded()
    assert marked.kept.is_stranded
    assert not goes_on.kept.is_stranded and not mine.kept.is_stranded


def test_a_journal_is_marked_when_all_of_it_waits_for_nobody(world):
    class File:
        is_stranded = False
    stranded, moving = File(), File()
    for file, others in (stranded, 0), (moving, 1):
        for each in world.add(2, topic=7):
            each.kept.file = file
            world.recording._store.all[each] = None
        for _ in range(others):
            each = deliveries.Delivery(
                kind=wire.CAST, topic=TOPIC, body=[], flags=0, expires=1.0,
                kept=keeping.Kept(file, 2, 100, 1, 7))
            world.recording._store.all[each] = None
    world.recording.mark_stranded()
    assert stranded.is_stranded and not moving.is_stranded
    # Somebody listens now
    del world.waiting[0]
    world.recording.mark_stranded()
    assert not stranded.is_stranded
