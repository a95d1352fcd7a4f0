# SPDX-License-Identifier: Apache-2.0
"""What becomes of the messages for an instance that is lost: every cell of
the table, as data and as custody acts on it. No socket, no registry.
"""

import itertools
import queue

import pytest

from tests.unit import test_custody as custody_tests
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import loss_table
from zmq_threaded.client import losses
from zmq_threaded.registry import record

Action = loss_table.Action
Loss = loss_table.Loss
What = loss_table.What
Where = deliveries.Where
TOPIC = custody_tests.TOPIC
ONE, OTHER = custody_tests.instances(2)

# As the docstring of custody.py said it, before there was a table.
PROMISED = '''
            WATCHED   SENT_CALL SENT       UNSENT SENT_COPY  UNSENT_COPY
    DOWN    KEEP      END_CALL  KEEP       ROUTE  KEEP       KEEP
    CLOSING KEEP      KEEP      KEEP       ROUTE  KEEP       KEEP
    SILENT  END_CALL  END_CALL  SEND_AGAIN ROUTE  KEEP       KEEP
    LOST    END_CALL  END_CALL  SEND_AGAIN ROUTE  SEND_AGAIN ROUTE
    GONE    END_CALL  END_CALL  SEND_AGAIN ROUTE  END_COPY   END_COPY
'''


def promised():
    header, *rows = PROMISED.strip().splitlines()
    for row in rows:
        loss, *actions = row.split()
        for what, action in zip(header.split(), actions):
            yield Loss[loss], What[what], Action[action]


CELLS = list(promised())
MESSAGES = [cell for cell in CELLS if cell[1] is not What.WATCHED]


def named(value):
    return getattr(value, 'name', str(value))


def test_the_table_is_what_is_promised():
    assert {
        loss: {what: action for row, what, action in CELLS if row is loss}
        for loss in Loss} == loss_table.TABLE


def test_the_table_has_every_cell():
    assert [(loss, what) for loss, what, _ in CELLS] == list(
        itertools.product(Loss, What))


class Connection(custody_tests.Connection):
    """To one of several instances behind a receiver: it closes nothing."""

    to_receiver = True
    connected = False

    def __init__(self):
        self.removed = []

    def remove(self, lost):
        self.removed.append(lost)


@pytest.fixture
def world(ipc_dir):
    made = custody_tests.World(ipc_dir)
    made.directory.known[TOPIC.key] = [ONE]
    made.lost = made.can_reach(ONE)
    made.lost.connection = Connection()
    made.events = queue.SimpleQueue()
    return made


def put(world, what):
    """A message of this kind, on its way to the instance that is lost."""
    kind = {What.SENT_CALL: wire.CALL, What.SENT_COPY: wire.FANOUT,
            What.UNSENT_COPY: wire.FANOUT}.get(what, wire.CAST)
    is_copy = kind == wire.FANOUT
    delivery = deliveries.Delivery(
        id=custody_tests.ids.new_id(), kind=kind, topic=TOPIC,
        body=[b'{}', b'{}'], flags=0, expires=1e12, waiter=world.events,
        instance=ONE if is_copy else None, pinned=is_copy,
        destination=custody_tests.room.Destination(9))
    delivery.destination.add(1)
    world.custody.route(delivery)
    if what.name.startswith('SENT'):
        world.lost.head_was_sent(1.0)
    return delivery


def lose(world, loss, is_listed=True):
    """The instance is lost; for what may go elsewhere there is another."""
    world.other = world.can_reach(OTHER)
    world.directory.known[TOPIC.key] = [ONE, OTHER] if is_listed else [OTHER]
    world.directory.avoid(ONE)
    world.again = world.can_reach(ONE) if loss.ends_queue else world.lost
    world.custody._connections._queues[ONE.id] = world.lost
    forget = world.custody._connections.remove

    def forgotten(lost):
        forget(lost)
        world.custody._connections._queues[ONE.id] = world.again
    world.custody._connections.remove = forgotten
    world.custody._evidence.lose(world.lost, loss)


def outcome(world, delivery):
    """Where a message is, and what its sender was told."""
    told = [] if world.events.empty() else [world.events.get()[0]]
    where = [name for name in ('lost', 'again', 'other')
             if delivery in getattr(world, name).all()]
    return delivery.where, where[:1], told


def expected(action, what):
    was_sent = what.name.startswith('SENT')
    is_copy = what.name.endswith('COPY')
    if action is Action.KEEP:
        return (Where.IN_FLIGHT if was_sent else Where.QUEUED, ['lost'], [])
    if action is Action.END_CALL:
        return Where.ENDED, [], [deliveries.LOST]
    if action is Action.END_COPY:
        return Where.ENDED, [], [deliveries.FAILED]
    return Where.QUEUED, ['again' if is_copy else 'other'], []


@pytest.mark.parametrize('loss, what, action', MESSAGES, ids=named)
def test_custody_does_what_the_table_says(world, loss, what, action):
    delivery = put(world, what)
    lose(world, loss)
    assert outcome(world, delivery) == expected(action, what)
    is_kept = action in (Action.KEEP, Action.ROUTE, Action.SEND_AGAIN)
    assert (delivery in list(world.custody.store)) == is_kept
    assert delivery.destination.pending == is_kept
    assert delivery.may_have_run == (action is Action.SEND_AGAIN)
    counted = world.counters.snapshot()
    assert counted.get('resent', 0) == (action is Action.SEND_AGAIN)
    assert counted.get('copies_for_gone', 0) == (action is Action.END_COPY)
    assert world.lost.connection.removed == (
        [world.lost] if loss.ends_queue else [])


@pytest.mark.parametrize('loss', Loss, ids=named)
@pytest.mark.parametrize('what', [What.SENT_COPY, What.UNSENT_COPY],
                         ids=named)
def test_an_instance_out_of_reach_that_is_not_listed_has_ended(world, loss,
                                                               what):
    delivery = put(world, what)
    lose(world, loss, is_listed=False)
    row = Loss.GONE if loss.ends_queue else loss
    assert outcome(world, delivery) == expected(
        loss_table.TABLE[row][what], what)


@pytest.mark.parametrize('loss, what, action', [
    cell for cell in CELLS if cell[1] is What.WATCHED], ids=named)
def test_watched_calls_learn_what_the_table_says(world, loss, what, action):
    watch = deliveries.Watch(ONE, b'w' * 16)
    world.custody.watch(watch)
    assert not world.custody.is_empty()
    lose(world, loss)
    assert watch.is_lost == (action is not Action.KEEP)


@pytest.mark.parametrize('loss', Loss, ids=named)
def test_messages_that_go_elsewhere_keep_their_order(world, loss):
    sent = [put(world, What.SENT) for _ in range(3)]
    unsent = [put(world, What.UNSENT) for _ in range(3)]
    lose(world, loss)
    assert list(world.other.queue) == (
        unsent if loss in (Loss.DOWN, Loss.CLOSING) else [*sent, *unsent])


# The end of a message

EVERYWHERE = [where for where in Where if where not in (
    Where.POSTED, Where.MOVING, Where.ENDED)]


def placed(world, where):
    """A message that is in this place."""
    instance = record.Instance(b'n' * 16, ('ipc:///near',))
    known = world.directory.known[custody_tests.OTHER.key]
    known += [] if where is Where.WAITING else [instance]
    way = world.can_reach(instance)
    if where is Where.HELD_UP:
        world.lacks.add(instance.id)
    delivery = world.post(
        custody_tests.OTHER, waiter=world.events,
        kind=wire.FANOUT if where is Where.SPREADING else wire.CAST,
        kept=world.journal.kept() if where is Where.RECORDING else None)
    if where is Where.IN_FLIGHT:
        way.head_was_sent(1.0)
    assert delivery.where is where
    return delivery, way


def is_nowhere(world, delivery, way):
    custody = world.custody
    world.look_up()
    world.journal.write()
    return (delivery not in way.all() and custody.is_empty()
            and delivery not in list(custody._waiting)
            and not len(custody._held_up) and custody.survey() == {}
            and custody.oldest() is None)


@pytest.mark.parametrize('where', EVERYWHERE, ids=named)
def test_a_message_ends_once_wherever_it_is(world, where):
    delivery, way = placed(world, where)
    for event in (deliveries.ACKNOWLEDGED, deliveries.LOST,
                  deliveries.NOBODY):
        world.custody.end(delivery, event)
    world.custody.drop(delivery, losses.GONE)
    world.custody.withdraw(delivery)
    assert delivery.where is Where.ENDED
    assert delivery.destination.pending == 0
    assert world.events.get() == (deliveries.ACKNOWLEDGED, None)
    assert world.events.empty()
    assert 'dropped' not in world.counters.snapshot()
    assert is_nowhere(world, delivery, way)


@pytest.mark.parametrize('where', EVERYWHERE, ids=named)
def test_a_message_is_withdrawn_wherever_it_is(world, where):
    delivery, way = placed(world, where)
    for _ in range(2):
        world.custody.withdraw(delivery)
    assert delivery.destination.pending == 0 and world.events.empty()
    assert is_nowhere(world, delivery, way)


@pytest.mark.parametrize('where', EVERYWHERE, ids=named)
def test_a_message_expires_wherever_it_is(world, where):
    delivery, way = placed(world, where)
    delivery.expires = 0.0
    world.custody._sweep_expired(1.0)
    assert delivery.destination.pending == 0
    assert world.events.get()[0] == deliveries.FAILED
    counted = world.counters.snapshot()
    assert counted['dropped'] == 1
    assert ('unroutable' in counted) == (where is Where.WAITING)
    assert is_nowhere(world, delivery, way)


def test_what_was_not_posted_yet_cannot_be_withdrawn(world):
    delivery = deliveries.Delivery(kind=wire.CAST, topic=TOPIC, body=[],
                                   flags=0, expires=1e12)
    world.custody.withdraw(delivery)
    assert delivery.where is Where.POSTED


class Shared(custody_tests.Connection):
    """A connection to one endpoint that two records name."""

    endpoints, fd = ('tcp://127.0.0.1:1',), None

    def __init__(self, lost_with):
        self.left, self.closed = lost_with, 0

    def queues(self):
        return list(self.left)

    def remove(self, lost):
        self.left.remove(lost)

    def close(self):
        self.closed += 1


def test_a_connection_is_closed_once_with_the_last_instance_behind_it(world):
    queues = [world.can_reach(each) for each in (ONE, OTHER)]
    connection = Shared(list(queues))
    world.custody._connections._connections[Shared.endpoints] = connection
    sent = []
    for lost in queues:
        lost.connection = connection
        sent.append(world.post(chosen=lost.instance))
    world.directory.known[TOPIC.key] = []
    for count, lost in enumerate(queues):
        assert connection.closed == 0
        assert sent[count].where is Where.QUEUED
        world.custody._evidence.lose(lost, Loss.LOST)
        assert sent[count].where is Where.WAITING
    assert connection.closed == 1
