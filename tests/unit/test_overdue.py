# SPDX-License-Identifier: Apache-2.0
"""Old messages are reported with those for whom they wait."""

import dataclasses

from tests.support import ids
from zmq_threaded import topic as topics
from zmq_threaded import wire
from zmq_threaded.client import delivery as deliveries
from zmq_threaded.client import overdue
from zmq_threaded.registry import record

NOW = 1000.0
SERVER = record.Instance(b'i' * 16, ('ipc:///x',), host='node-7',
                             server='compute')


def old(topic='topic', instance=None, age=40.0):
    return deliveries.Delivery(
        id=ids.new_id(), kind=wire.CAST, topic=topics.rpc('exchange', topic),
        body=[b'secret'], flags=0, expires=1e9, instance=instance,
        since=NOW - age)


def report(waiting, listed=lambda topic: ()):
    return overdue.report(waiting, NOW, 30.0, listed)


def test_young_messages_are_not_reported():
    assert report([old(age=29)]) is None
    assert report([]) is None


def test_number_age_and_the_oldest():
    oldest = old(age=75.0)
    assert report([old(), oldest, old(age=1)]).startswith(
        '2 messages have been waiting for more than 30 s to be acknowledged, '
        f'for 75 s: CAST {oldest.id.hex()} for topic (exchange exchange) ')


def test_all_destinations_are_named_with_their_server_and_host():
    text = report([*(old(instance=SERVER) for _ in range(3)),
                   *(old('other') for _ in range(2))])
    assert ('3 for topic (exchange exchange) at compute on node-7 (instance '
            f'{SERVER.id.hex()}); 2 for other (exchange exchange), for which '
            'no service is registered') in text
    assert 'secret' not in text


def test_services_that_are_registered_and_took_nothing_are_named():
    text = report([old()], lambda topic: (SERVER,))
    assert '1 services are registered' in text and str(SERVER) in text
    text = report([old()], lambda topic: (SERVER,) * 5)
    assert '5 services are registered' in text and ', ...' in text


def test_one_whose_record_has_changed_is_still_listed():
    changed = dataclasses.replace(SERVER, endpoints=('ipc:///y',))
    found = overdue.mute([old(instance=SERVER)], NOW, 30.0,
                         lambda topic: (changed,))
    assert [each.messages for each in found] == [1]
    # ... unlike another one at its place
    other = dataclasses.replace(SERVER, id=b'j' * 16)
    assert overdue.mute([old(instance=SERVER)], NOW, 30.0,
                        lambda topic: (other,)) == []


def test_of_many_destinations_those_with_most_are_named():
    waiting = [old(f'host{number}') for number in range(5000)
               for _ in range(2 if number == 4000 else 1)]
    text = report(waiting)
    assert '2 for host4000 ' in text and len(text) < 2000
    assert text.endswith('; 4990 for 4990 other destinations')
