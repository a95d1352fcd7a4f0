# SPDX-License-Identifier: Apache-2.0
"""Custody without a socket: who is tried, in which order, for how long."""

import collections
import itertools
import logging
import queue
import time

import pytest
from oslo_config import cfg

from tests.support import ids
from zmq_threaded import counters as counting
from zmq_threaded import options
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import custody as custodies
from zmq_threaded.client import dealer_connection
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import dispatch
from zmq_threaded.client import losses
from zmq_threaded.client import room
from zmq_threaded.client import send_queue
from zmq_threaded.journal import kept as keeping
from zmq_threaded.net import descriptors
from zmq_threaded.registry import avoided
from zmq_threaded.registry import cache
from zmq_threaded.registry import record

TOPIC = topics.rpc('exchange', 'topic')
OTHER = topics.rpc('exchange', 'other')
POOLS = topics.notifications('exchange', 'topic.info')


def instances(count, **fields):
    return [record.Instance(number.to_bytes(16, 'big'),
                                (f'ipc:///nowhere/{number}.sock',), **fields)
            for number in range(count)]


class Directory:
    """Who is registered, and who is passed over, as the test says."""

    def __init__(self):
        self.known = collections.defaultdict(list)
        self.gone = collections.defaultdict(list)
        self.passed_over = {}
        self.asked = collections.deque()
        self.cache = self

    def listed(self, topic):
        return tuple(self.known[topic.key])

    def live(self, topic):
        return tuple(each for each in self.known[topic.key]
                     if each.id not in self.passed_over)

    def choose(self, topic):
        return next(iter(self.live(topic)), None)

    def vanished(self, topic):
        return self.gone[topic.key]

    def is_listed(self, topic, instance):
        return instance in self.known[topic.key]

    def unreachable(self, instance, why=''):
        self.passed_over[instance.id] = why

    avoid = unreachable

    def closes(self, instance, seconds):
        self.passed_over[instance.id] = 'closing'

    def is_expected(self, topic):
        return 'closing' in self.passed_over.values()

    def reached(self, instance):
        self.passed_over.pop(instance.id, None)

    def ask(self, topic, done, within=None):
        self.asked.append(done)


class Connection:
    """A connection that takes everything and says nothing."""

    to_receiver = False

    def is_closing(self):
        return False

    def has_work(self, waiting_queue):
        pass


class ClosingConnection(Connection):
    """A connection to a service that is closing."""

    def is_closing(self):
        return True


class Journal:
    """A journal that writes when the test says so. It is its own file."""

    def __init__(self):
        self.parts = itertools.count(1)
        self.to_write = collections.deque()
        self.ended_ones = []
        self.pools_seen = []

    def next_part(self):
        return next(self.parts)

    def record(self, file, parts, done):
        self.to_write.append((parts, done))

    def ended(self, delivery, is_last):
        self.ended_ones.append((delivery, is_last))

    def seen(self, topic, pool):
        self.pools_seen.append((topic, pool))

    def write(self):
        while self.to_write:
            self.to_write.popleft()[1]()

    def kept(self):
        return keeping.Kept(self, next(self.parts), 100)


class World:
    def __init__(self, ipc_dir, directory=None):
        self.directory = directory or Directory()
        self.counters = counting.Counters()
        self.tasks = collections.deque()
        self.journal = Journal()
        self.custody = custodies.Custody(
            None, options.read(cfg.CONF, {'rpc_zmq_ipc_dir': ipc_dir}),
            self.directory, self.counters, None, self.tasks.append,
            ids.MAKER, self.journal)
        self.queues = {}
        self.lacks = set()
        self.connections = 0
        self.is_patient = False     # for a socket whose file is missing
        self._reach = self.custody._connections.to
        self.custody._connections.to = self._queue_to

    def _queue_to(self, instance, is_patient=lambda: False):
        if instance.id in self.lacks:
            self.connections += 1
            raise descriptors.Short('out of file descriptors (limit 7)')
        return (self.queues.get(instance.id)
                or self._reach(instance, is_patient if self.is_patient
                               else lambda: False))

    def can_reach(self, instance, connection=None):
        queue_to = send_queue.SendQueue(instance, connection or Connection())
        self.queues[instance.id] = queue_to
        self.custody._connections._queues[instance.id] = queue_to
        return queue_to

    def post(self, topic=TOPIC, kind=wire.CAST, **fields):
        delivery = deliveries.Delivery(
            id=ids.new_id(), kind=kind, topic=topic, body=[b'{}', b'{}'],
            flags=0, expires=time.monotonic() + 300,
            spread=kind in (wire.FANOUT, wire.NOTIFY),
            destination=room.Destination(10_000), **fields)
        delivery.destination.add(1)
        self.custody.route(delivery)
        return delivery

    def turn(self):
        """:returns: seconds that it took, how many tasks it had"""
        began, count = time.perf_counter(), len(self.tasks)
        for _ in range(count):
            self.tasks.popleft()()
        return time.perf_counter() - began, count

    def turns(self, limit=1000):
        took = []
        while self.tasks:
            took.append(self.turn()[0])
            assert len(took) < limit
        return took

    def look_up(self):
        while self.directory.asked:
            self.directory.asked.popleft()(time.monotonic())
        self.turns()


@pytest.fixture
def world(ipc_dir):
    return World(ipc_dir)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records
            if record.levelno >= logging.WARNING]


# Many that cannot be reached

def test_whoever_is_passed_over_is_passed_over_for_a_reason(world):
    closing, missing = instances(2)
    world.can_reach(closing, ClosingConnection())
    world.directory.known[TOPIC.key] = [closing, missing]
    world.post()
    assert world.directory.passed_over.keys() == {closing.id, missing.id}
    assert 'is closing' in world.directory.passed_over[closing.id]
    assert 'No such file' in world.directory.passed_over[missing.id]


def test_thousands_that_cannot_be_reached_hold_up_nobody(world):
    world.directory.known[TOPIC.key] = instances(5000)
    near = record.Instance(b'n' * 16, ('ipc:///near',))
    world.directory.known[OTHER.key] = [near]
    waiting_queue = world.can_reach(near)
    waiting = [world.post() for _ in range(300)]
    tried = [len(world.directory.passed_over)]
    while world.tasks:
        world.turn()
        other = world.post(OTHER)
        assert waiting_queue.queue.pop() is other
        tried.append(len(world.directory.passed_over))
    assert max(after - before for before, after
               in zip([0, *tried], tried)) <= dispatch._TRIES
    assert tried[-1] == 5000
    assert list(world.custody._waiting) == waiting
    assert not world.counters.snapshot()


def test_the_one_that_can_be_reached_is_found_and_order_kept(world):
    far = instances(2000)
    world.directory.known[TOPIC.key] = far
    waiting_queue = world.can_reach(far[1234])
    waiting = [world.post() for _ in range(200)]
    world.turns()
    assert list(waiting_queue.queue) == waiting
    assert not len(world.custody._waiting)


def test_what_comes_meanwhile_takes_its_turn(world):
    far = instances(1000)
    world.directory.known[TOPIC.key] = far
    waiting_queue = world.can_reach(far[999])
    waiting = [world.post()]
    while world.tasks:
        world.turn()
        waiting.append(world.post(waiter=queue.SimpleQueue()))
    assert list(waiting_queue.queue) == waiting


def test_what_is_given_up_meanwhile_is_not_sent(world):
    far = instances(1000)
    world.directory.known[TOPIC.key] = far
    waiting_queue = world.can_reach(far[999])
    kept = [world.post() for _ in range(10)]
    for each in (kept.pop(0), kept.pop(4)):
        world.custody.withdraw(each)
        assert each.destination.pending == 0
    world.turns()
    assert list(waiting_queue.queue) == kept


def test_when_all_have_been_tried_it_waits_for_the_registry(world):
    world.directory.known[TOPIC.key] = instances(1000)
    one = world.post()
    world.turns()
    assert len(world.directory.asked) == 1 and one.instance is None
    found = record.Instance(b'n' * 16, ('ipc:///near',))
    waiting_queue = world.can_reach(found)
    world.directory.known[TOPIC.key].append(found)
    world.look_up()
    assert list(waiting_queue.queue) == [one]


def test_the_one_whose_turn_it_is_comes_first(world):
    far = instances(100)
    world.directory.known[TOPIC.key] = far
    for each in far:
        world.can_reach(each)
    one = world.post(chosen=far[70])
    assert one.instance is far[70]


class Known(Directory):
    """What is known of the registry is kept as the driver keeps it."""

    def __init__(self, found):
        super().__init__()
        self._view = cache.Cache(30, lambda key: None)
        self._view.absorb(self._view.entry(TOPIC.key), tuple(found),
                          lambda missing: ())

    def __getattribute__(self, name):
        if name in ('listed', 'live', 'choose', 'unreachable'):
            return getattr(self._view, name)
        return super().__getattribute__(name)


def test_thousands_that_cannot_be_reached_cost_no_list_each(ipc_dir,
                                                            monkeypatch):
    made = []
    real = avoided.Avoided.without
    monkeypatch.setattr(avoided.Avoided, 'without', lambda self, instances: (
        made.append(len(instances)), real(self, instances))[1])
    world = World(ipc_dir, Known(instances(4000)))
    made.clear()
    one = world.post()
    world.turns()
    assert list(world.custody._waiting) == [one]
    assert len(made) < 150


@pytest.mark.parametrize('count, opened', [(1, 1), (2, 0)])
def test_the_file_of_a_socket_is_waited_for_where_there_is_no_other(
        world, monkeypatch, count, opened):
    opened_to = []
    monkeypatch.setattr(dealer_connection, 'Connection', lambda *args: (
        opened_to.append(args), Connection())[1])
    monkeypatch.setattr(
        Connection, 'queue', lambda self, instance: send_queue.SendQueue(
            instance, self), raising=False)
    world.directory.known[TOPIC.key] = instances(count)
    world.is_patient = True
    world.post()
    world.turns()
    assert len(opened_to) == opened


# What this process cannot send


def tick(world, seconds):
    """Let time pass, in the steps of the outbox."""
    now = world.now = getattr(world, 'now', time.monotonic())
    while world.now < now + seconds:
        world.now += 0.1
        world.custody._held_up.tick(world.now)
        world.turns()


@pytest.fixture
def lacking(world):
    """A topic to whose only instance no connection can be made."""
    one, = instances(1)
    world.directory.known[TOPIC.key] = [one]
    world.waiting_queue = world.can_reach(one)
    world.lacks.add(one.id)
    return world


def test_what_waits_for_a_descriptor_looks_nobody_up(lacking):
    lacking.post()
    for _ in range(50):
        lacking.look_up()
    assert not lacking.directory.asked and lacking.connections == 1
    tick(lacking, 20)
    assert 9 <= lacking.connections <= 14       # 0.2, 0.4 ... 2 s
    assert not lacking.directory.asked


def test_what_waits_for_a_descriptor_goes_in_its_order(lacking):
    one, = lacking.directory.known[TOPIC.key]
    sent = [lacking.post() for _ in range(50)]
    tick(lacking, 3)
    sent += [lacking.post() for _ in range(50)]
    lacking.lacks.clear()
    # Also what comes while others wait
    sent.append(lacking.post())
    assert not lacking.waiting_queue.queue
    tick(lacking, 2.1)
    assert list(lacking.waiting_queue.queue) == sent
    assert lacking.custody._held_up.holds_before(sent[0]) is False
    sent.append(lacking.post())
    assert lacking.waiting_queue.queue[-1] is sent[-1]


def test_others_do_not_wait_for_a_descriptor(lacking):
    near = record.Instance(b'n' * 16, ('ipc:///near',))
    lacking.directory.known[OTHER.key] = [near]
    waiting_queue = lacking.can_reach(near)
    lacking.post()
    assert waiting_queue.queue == collections.deque([lacking.post(OTHER)])


def test_what_waits_for_a_descriptor_goes_to_one_with_a_connection(lacking):
    one = lacking.post()
    near = record.Instance(b'n' * 16, ('ipc:///near',))
    waiting_queue = lacking.can_reach(near)
    lacking.directory.known[TOPIC.key] = [near]
    tick(lacking, 0.3)
    assert list(waiting_queue.queue) == [one]


def test_what_waits_for_a_descriptor_is_in_custody(lacking):
    posted = [lacking.post(attempts=1) for _ in range(3)]
    assert not lacking.custody.is_empty()
    assert lacking.custody.oldest() == posted[0].since
    assert lacking.custody.survey()[str(TOPIC)]['count'] == 3
    lacking.custody.withdraw(posted[1])
    assert lacking.custody.survey()[str(TOPIC)]['count'] == 2
    tick(lacking, 10)
    lacking.custody.hasten()
    connections = lacking.connections
    tick(lacking, 0.3)
    assert lacking.connections == connections + 1
    for each in posted:
        each.expires = 0.0
    lacking.custody._sweep_expired(time.monotonic())
    assert lacking.custody.is_empty()
    assert lacking.counters.snapshot() == {'dropped': 2, 'dropped_not_sent': 2}


def test_what_expires_for_want_of_a_descriptor_says_so(lacking, caplog):
    lacking.post().expires = 0.0
    lacking.custody._sweep_expired(time.monotonic())
    line, = warnings(caplog)
    assert 'could not be sent in time: out of file descriptors' in line


def test_room_is_waited_for_while_there_is_no_descriptor(lacking):
    one = lacking.post()
    one.destination._limit = 1
    calls = []
    lacking.custody.make_room(one.destination, room.Admission(calls.append))
    assert not calls
    lacking.lacks.clear()
    tick(lacking, 0.3)
    lacking.custody.end(lacking.waiting_queue.queue[-1],
                        deliveries.ACKNOWLEDGED)
    assert not lacking.waiting_queue.queue
    assert len(calls) == 1


def test_copies_wait_for_descriptors_each_for_its_instance(world):
    two = world.directory.known[TOPIC.key] = instances(2)
    near, far = map(world.can_reach, two)
    world.lacks.add(two[1].id)
    world.post(kind=wire.FANOUT, attempts=1)
    world.look_up()
    world.look_up()
    assert len(near.queue) == 1 and not far.queue
    assert near.queue[0].attempts is None
    # One who waits for nobody is not held up by the copies
    cast = world.post(chosen=two[0])
    assert near.queue[1] is cast
    world.lacks.clear()
    tick(world, 0.3)
    assert len(far.queue) == 1


def test_an_instance_that_ends_takes_its_copies_with_it(world):
    two = world.directory.known[TOPIC.key] = instances(2)
    world.can_reach(two[0])
    world.lacks.add(two[1].id)
    world.post(kind=wire.FANOUT)
    world.look_up()
    world.lacks.clear()
    tick(world, 0.3)
    assert world.counters.snapshot().get('copies_for_gone') == 1
    assert not len(world.custody._held_up)


# Fanouts that reach nobody

def test_a_fanout_to_nobody_is_counted_and_no_more(world, caplog):
    one = world.post(kind=wire.FANOUT)
    world.look_up()
    assert world.counters.snapshot() == {'fanouts_to_nobody': 1}
    assert one.destination.pending == 0 and not warnings(caplog)


def test_a_fanout_to_nobody_where_somebody_was_known_is_warned_of_once(
        world, caplog):
    world.directory.gone[TOPIC.key] = [
        (instances(1, server='compute', host='node-7')[0], 4.0)]
    for _ in range(50):
        world.post(kind=wire.FANOUT)
    world.look_up()
    assert world.counters.snapshot() == {'fanouts_to_nobody': 50}
    line, = warnings(caplog)
    assert 'reached nobody' in line and 'compute on node-7' in line
    assert '(4 s ago)' in line


def test_a_fanout_whose_servers_are_all_gone_reached_nobody(world, caplog):
    world.directory.known[TOPIC.key] = instances(3, server='compute')
    for _ in range(20):
        world.post(kind=wire.FANOUT)
    world.look_up()
    assert world.counters.snapshot() == {'fanouts_to_nobody': 20,
                                         'copies_for_gone': 60}
    line, = warnings(caplog)
    assert 'all its servers are gone' in line and 'compute' in line


def test_a_fanout_that_somebody_has_is_no_matter_for_a_warning(world, caplog):
    known = world.directory.known[TOPIC.key] = instances(3)
    world.directory.gone[TOPIC.key] = [(instances(4)[3], 1.0)]
    waiting_queue = world.can_reach(known[1])
    one = world.post(kind=wire.FANOUT)
    world.look_up()
    copy, = waiting_queue.queue
    waiting_queue.head_was_sent(1.0)
    world.custody.end(waiting_queue.take_back(copy.id),
                      deliveries.ACKNOWLEDGED)
    assert world.counters.snapshot() == {'copies_for_gone': 2}
    assert not warnings(caplog) and one.destination.pending == 0
    assert not len(world.custody._spreading._fanouts)


def test_a_pool_that_vanished_has_no_copy_and_is_named(world, caplog):
    staying, = instances(1, pool='staying')
    world.directory.known[POOLS.key] = [staying]
    world.directory.gone[POOLS.key] = [
        (each, 2.0) for each in (instances(1, pool='lost', host='node-7')[0],
                                 staying)]
    for _ in range(9):
        world.post(POOLS, wire.NOTIFY)
    world.look_up()
    assert world.counters.snapshot() == {'pools_without_copy': 9}
    line, = warnings(caplog)
    assert "'lost'" in line and 'node-7' in line and 'staying' not in line


# Reports

def test_what_is_left_at_the_end_is_summed_up(world, caplog):
    for _ in range(100):
        world.post()
        world.post(OTHER)
    world.custody.close()
    assert world.counters.snapshot() == {'dropped': 200, 'dropped_closed': 200}
    lines = warnings(caplog)
    assert len(lines) == 4
    assert sum(line.startswith('99 more messages for ') for line in lines) == 2


def test_unexpected_errors_are_reported_and_no_flood(world, caplog):
    def broken(instance, is_patient):
        raise ZeroDivisionError('by nobody')
    world.directory.known[TOPIC.key] = instances(1)
    world.custody._connections.to = broken
    for _ in range(50):
        world.post()
    assert world.counters.snapshot() == {
        'loop_errors': 50, 'dropped': 50, 'dropped_fault': 50}
    assert len(warnings(caplog)) == 2
    assert 'ZeroDivisionError: by nobody' in warnings(caplog)[-1]


def test_who_is_behind_is_named(world, lacking):
    two = instances(3, server='compute', host='node-7')[1:]
    world.directory.known[OTHER.key] = two
    for count, each in zip((5, 2), two):
        world.can_reach(each)
        for _ in range(count):
            world.post(OTHER, chosen=each)
    text = world.custody.store.behind(OTHER)
    assert text.index('5 wait for compute on node-7') < text.index('2 wait')
    lacking.post()
    assert 'this process is out of file' in world.custody.store.behind(TOPIC)


# Order

def test_what_comes_back_from_spreading_has_its_old_place(world):
    first = world.post(POOLS, wire.NOTIFY)
    began = time.monotonic()
    second = world.post(POOLS, wire.NOTIFY)
    world.directory.asked.popleft()(began)
    world.turns()
    third = world.post(POOLS, wire.NOTIFY)
    assert first.where is third.where is deliveries.Where.WAITING
    assert second.where is deliveries.Where.SPREADING
    world.directory.asked.popleft()(time.monotonic())
    world.turns()
    assert list(world.custody._waiting) == [first, second, third]


def test_one_look_up_is_for_all_that_came_before_it(world):
    near, = world.directory.known[POOLS.key] = instances(1)
    pool = topics.pool('exchange', 'topic.info', '')
    world.directory.known[pool.key] = [near]
    way = world.can_reach(near)
    before = [world.post(POOLS, wire.NOTIFY) for _ in range(500)]
    looked_up, = world.directory.asked
    world.directory.asked.clear()
    began = time.monotonic()
    after = [world.post(POOLS, wire.NOTIFY) for _ in range(2)]
    assert not world.directory.asked
    looked_up(began)
    world.turns()
    assert [each.id for each in way.queue] == [each.id for each in before]
    # A pool that came with its first listener meanwhile is not left out
    assert {each.where for each in after} == {deliveries.Where.SPREADING}
    world.look_up()
    assert [each.id for each in way.queue] == [
        each.id for each in before + after]
    assert not world.directory.asked


def test_a_registry_that_does_not_answer_holds_up_no_notification(world):
    near, = world.directory.known[POOLS.key] = instances(1)
    world.directory.known[topics.pool('exchange', 'topic.info', '').key] = [
        near]
    way = world.can_reach(near)
    posted = [world.post(POOLS, wire.NOTIFY) for _ in range(3)]
    world.directory.asked.popleft()(None)
    world.turns()
    assert [each.id for each in way.queue] == [each.id for each in posted]


def test_a_thousand_notifications_do_not_take_one_turn(world):
    near, = world.directory.known[POOLS.key] = instances(1)
    world.directory.known[topics.pool('exchange', 'topic.info', '').key] = [
        near]
    way = world.can_reach(near)
    for _ in range(5000):
        world.post(POOLS, wire.NOTIFY)
    world.directory.asked.popleft()(time.monotonic())
    world.turn()
    assert 0 < len(way.queue) < 5000
    world.turns()
    assert len(way.queue) == 5000


# Journals

def test_a_message_is_sent_when_its_journal_knows_to_whom(world):
    near, = world.directory.known[TOPIC.key] = instances(1)
    way = world.can_reach(near)
    delivery = world.post(kept=world.journal.kept())
    assert not way.queue
    (part, instance), = world.journal.to_write[0][0]
    assert part is delivery and instance is near
    world.journal.write()
    assert list(way.queue) == [delivery]


def test_what_is_known_goes_behind_what_is_being_written(world):
    near, = world.directory.known[TOPIC.key] = instances(1)
    way = world.can_reach(near)
    first = world.post(kept=world.journal.kept())
    second = world.post(kept=world.journal.kept(), chosen=near,
                        recorded_for=near.id)
    assert not way.queue
    assert [parts for parts, _ in world.journal.to_write] == [
        [(first, near)]]
    world.journal.write()
    assert list(way.queue) == [first, second]


def test_what_is_written_again_goes_before_what_came_later(world):
    """The later one waits for the journal longer than the earlier one."""
    near, = world.directory.known[TOPIC.key] = instances(1)
    way = world.can_reach(near)
    first, second, third = (world.post(kept=world.journal.kept())
                            for _ in range(3))
    recording = world.custody._recording
    done = [done for _, done in world.journal.to_write]
    world.journal.to_write.clear()
    # The first is to go to somebody else now, and is written anew.
    far = record.Instance(b'f' * 16, ('ipc:///far',))
    recording._under_way.remove(first)
    assert not recording.allows(first, far)
    done[1]()
    done[2]()
    assert not way.queue
    world.queues[far.id] = way
    world.journal.write()
    assert list(way.queue) == [first, second, third]


def test_many_that_are_written_in_another_order_take_few_steps(world):
    """They were posted by many threads, whose ids are not in order."""
    near, = world.directory.known[TOPIC.key] = instances(1)
    way = world.can_reach(near)
    sent = [world.post(kept=world.journal.kept()) for _ in range(1000)]
    done = [done for _, done in world.journal.to_write]
    world.journal.to_write.clear()
    for pair in zip(done[1::2], done[::2]):
        for each in pair:
            each()
    assert list(way.queue) == sent
    assert not world.journal.to_write


def test_copies_are_written_in_the_place_of_their_message(world):
    listeners = instances(2, pool='a')
    world.directory.known[POOLS.key] = listeners
    delivery = world.post(POOLS, wire.NOTIFY, kept=world.journal.kept())
    world.look_up()
    assert delivery.where is deliveries.Where.ENDED
    assert world.journal.ended_ones == []
    assert world.journal.pools_seen == [(POOLS, 'a')]
    (copy, instance), = world.journal.to_write[0][0]
    assert instance is None and copy.kept.left == 1
    world.journal.write()
    assert copy.where is deliveries.Where.WAITING
    world.custody.drop(copy, losses.CLOSED)
    assert world.journal.ended_ones == [(copy, True)]


def test_a_pool_without_listeners_gets_its_copy(world):
    world.custody._recording.know_pool(POOLS, 'gone', time.time())
    world.custody._recording.know_pool(POOLS, 'old', time.time() - 86401)
    world.post(POOLS, wire.NOTIFY, kept=world.journal.kept())
    world.look_up()
    (copy, _), = world.journal.to_write[0][0]
    assert copy.topic == topics.pool(POOLS.exchange, POOLS.name, 'gone')
    assert not world.post(POOLS, wire.NOTIFY).kept
    world.look_up()
    assert len(world.journal.to_write) == 1


def test_an_id_is_settled_when_its_end_is_written(world):
    near, = world.directory.known[TOPIC.key] = instances(1)
    way = world.can_reach(near)
    delivery = world.post(kept=world.journal.kept())
    world.journal.write()
    doubt = world.custody._in_doubt
    doubt.sent(delivery)
    way.head_was_sent(1.0)
    world.custody.end(way.take_back(delivery.id), deliveries.ACKNOWLEDGED)
    assert doubt.settled(ids.new_id()) == delivery.id
    world.custody._recording.removed([delivery])
    later = ids.new_id()
    assert doubt.settled(later) == later


def test_what_lies_in_a_journal_is_not_dropped_at_the_end(world):
    kept = world.post(kept=world.journal.kept())
    lost = world.post()
    world.custody._connections.close = lambda: None
    world.custody.close()
    assert lost.where is deliveries.Where.ENDED
    assert kept.where is deliveries.Where.WAITING
    assert world.journal.ended_ones == []


def test_who_waits_for_the_end_does_not_wait_for_what_others_may_send(world):
    world.post(kept=world.journal.kept())
    assert world.custody.oldest() is None
    lost = world.post()
    assert world.custody.oldest() == lost.since
