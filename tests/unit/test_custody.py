# SPDX-License-Identifier: Apache-2.0
"""Custody without a socket: who is tried, in which order, for how long."""

import collections
import logging
import queue
import time

from oslo_config import cfg
import pytest

from tests.support import ids
from zmq_threaded import counters as counting
from zmq_threaded import matchmaker
from zmq_threaded import options
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import custody as custodies
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import lane as lanes

TOPIC = topics.rpc('exchange', 'topic')
OTHER = topics.rpc('exchange', 'other')
POOLS = topics.notifications('exchange', 'topic.info')


def instances(count, **fields):
    return [matchmaker.Instance(number.to_bytes(16, 'big'),
                                (f'ipc:///nowhere/{number}.sock',), **fields)
            for number in range(count)]


class Directory:
    """Who is registered, and who is passed over, as the test says."""

    def __init__(self):
        self.known = collections.defaultdict(list)
        self.gone = collections.defaultdict(list)
        self.passed_over = {}
        self.asked = collections.deque()

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

    def reached(self, instance):
        self.passed_over.pop(instance.id, None)

    def ask(self, topic, done, within=None):
        self.asked.append(done)


class Link:
    """A connection that takes everything and says nothing."""

    to_receiver = False

    def is_closing(self):
        return False

    def has_work(self, lane):
        pass


class World:
    def __init__(self, ipc_dir):
        self.directory = Directory()
        self.counters = counting.Counters()
        self.tasks = collections.deque()
        self.custody = custodies.Custody(
            None, options.read(cfg.CONF, {'rpc_zmq_ipc_dir': ipc_dir}),
            self.directory, self.counters, None, self.tasks.append)
        self.lanes = {}
        reach = self.custody._lanes.to
        self.custody._lanes.to = lambda instance, is_patient=False: (
            self.lanes.get(instance.id) or reach(instance))

    def can_reach(self, instance):
        lane = self.lanes[instance.id] = lanes.Lane(instance, Link())
        return lane

    def post(self, topic=TOPIC, kind=wire.CAST, **fields):
        delivery = deliveries.Delivery(
            id=ids.new_id(), kind=kind, topic=topic, body=[b'{}', b'{}'],
            flags=0, expires=time.monotonic() + 300,
            spread=kind in (wire.FANOUT, wire.NOTIFY),
            destination=deliveries.Destination(10_000), **fields)
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

def test_thousands_that_cannot_be_reached_hold_up_nobody(world):
    world.directory.known[TOPIC.key] = instances(5000)
    near = matchmaker.Instance(b'n' * 16, ('ipc:///near',))
    world.directory.known[OTHER.key] = [near]
    lane = world.can_reach(near)
    waiting = [world.post() for _ in range(300)]
    tried = [len(world.directory.passed_over)]
    while world.tasks:
        world.turn()
        other = world.post(OTHER)
        assert lane.queue.pop() is other
        tried.append(len(world.directory.passed_over))
    assert max(after - before for before, after
               in zip([0, *tried], tried)) <= custodies._TRIES
    assert tried[-1] == 5000
    assert list(world.custody._waiting) == waiting
    assert not world.counters.snapshot()


def test_the_one_that_can_be_reached_is_found_and_order_kept(world):
    far = instances(2000)
    world.directory.known[TOPIC.key] = far
    lane = world.can_reach(far[1234])
    waiting = [world.post() for _ in range(200)]
    world.turns()
    assert list(lane.queue) == waiting
    assert not len(world.custody._waiting)


def test_what_comes_meanwhile_takes_its_turn(world):
    far = instances(1000)
    world.directory.known[TOPIC.key] = far
    lane = world.can_reach(far[999])
    waiting = [world.post()]
    while world.tasks:
        world.turn()
        waiting.append(world.post(waiter=queue.SimpleQueue()))
    assert list(lane.queue) == waiting


def test_what_is_given_up_meanwhile_is_not_sent(world):
    far = instances(1000)
    world.directory.known[TOPIC.key] = far
    lane = world.can_reach(far[999])
    kept = [world.post() for _ in range(10)]
    for each in (kept.pop(0), kept.pop(4)):
        world.custody.withdraw(each)
        assert each.destination.pending == 0
    world.turns()
    assert list(lane.queue) == kept


def test_when_all_have_been_tried_it_waits_for_the_registry(world):
    world.directory.known[TOPIC.key] = instances(1000)
    one = world.post()
    world.turns()
    assert len(world.directory.asked) == 1 and one.instance is None
    found = matchmaker.Instance(b'n' * 16, ('ipc:///near',))
    lane = world.can_reach(found)
    world.directory.known[TOPIC.key].append(found)
    world.look_up()
    assert list(lane.queue) == [one]


def test_the_one_whose_turn_it_is_comes_first(world):
    far = instances(100)
    world.directory.known[TOPIC.key] = far
    for each in far:
        world.can_reach(each)
    one = world.post(chosen=far[70])
    assert one.instance is far[70]


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
    lane = world.can_reach(known[1])
    one = world.post(kind=wire.FANOUT)
    world.look_up()
    copy, = lane.queue
    lane.head_was_sent(1.0)
    world.custody.end(lane.take_back(copy.id), deliveries.ACKNOWLEDGED)
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
    def broken(instance):
        raise ZeroDivisionError()
    world.directory.known[TOPIC.key] = instances(1)
    world.custody._lanes.to = broken
    for _ in range(50):
        world.post()
    assert world.counters.snapshot() == {
        'loop_errors': 50, 'dropped': 50, 'dropped_fault': 50}
    assert len(warnings(caplog)) == 2
