# SPDX-License-Identifier: Apache-2.0
"""When ``status`` calls the next step of a bridge safe, and when it does not.
"""

import itertools

import pytest

from zmq_threaded.bridge import survey
from zmq_threaded.cli import bridge
from zmq_threaded.registry import record
from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import processes

NOT_SENT = 'Senders that have not sent yet cannot be known'
COMMAND = '`rabbitmqctl list_queues name messages`'
IDS = itertools.count()


def service(topic, pool='', other_half=1, kind='notify', server=''):
    return {'id': f'{next(IDS):032x}', 'kind': kind, 'topics': [['', topic]],
            'server': server, 'pool': pool, 'other_half': other_half}


def process(sends, *services, sent=(), age=0.0, left_out=()):
    """:param sends: over what; '' for a process without a bridge"""
    return clouds.Process(
        {'kind': 'runtime', 'id': str(next(IDS)), 'every': 10.0,
         'process': {'bridge': sends, 'name': 'nova', 'pid': 7,
                     'host': 'node-1', 'machine': 'node-1'},
         'registry': {'answers': True, 'failing': 0.0, 'why': ''},
         'services': list(services), 'left_out': dict(left_out),
         'sent': [{'exchange': 'ex', 'topic': each} for each in sent]},
        age, True, processes.RUNS)


@pytest.fixture
def verdict(monkeypatch):
    """Returns the text of the verdict, and the rows by topic."""
    def judged(*those, host='/', queues=(), listed=(), trouble=''):
        """:param queues: (ready, consumers) by name"""
        has = {name: survey.Queue(*counts)
               for name, counts in dict(queues).items()}

        def ask(conf, url, names):
            return survey.Answer({name: has[name] for name in names
                                  if name in has}, host)
        monkeypatch.setattr(survey, 'ask', ask)
        known = bridge.of(None, 'rabbit://', clouds.Cloud(
            'redis', processes=list(those), trouble=trouble, listed={
                each.instance.id: each for each in listed}))
        text = '\n'.join(known['verdict'])
        *_, table = [part for part in bridge.parts(known)
                     if not isinstance(part, str)]
        assert len(table.rows) == len(known['topics'])
        return text, {row['topic']: row for row in known['topics']}
    return judged


# Step 2

def test_all_listen_on_both(verdict):
    text, _ = verdict(process('other', service('a')), queues={'a': (0, 1)})
    assert 'Step 2 (rpc_zmq_bridge_send=zmq) is safe' in text
    assert NOT_SENT in text and 'step 1' in text


@pytest.mark.parametrize('those', [
    [], [process('other')], [process('other', sent=['a'])]])
def test_nobody_on_zmq_is_not_safe(verdict, those):
    text, _ = verdict(*those)
    assert text.startswith('Step 2 is NOT SAFE yet: nobody listens over zmq')
    assert 'reaches nobody' in text


def test_a_topic_of_a_sender_is_looked_up(verdict):
    text, rows = verdict(
        process('other', service('a')), process('other', sent=['b', 'a']),
        process('', sent=['c']), queues={'a': (0, 1), 'b': (3, 2)})
    assert text == ('Step 2 is NOT SAFE yet: some listen only on the other '
                    'driver: b.')
    assert set(rows) == {'a', 'b'}
    assert rows['b']['only on the other'] == 2
    assert rows['b']['ready on the other'] == 3
    assert [rows[name]['bridged senders'] for name in 'ab'] == [1, 1]


def test_a_topic_without_a_listener_is_named_and_stops_nobody(verdict):
    text, _ = verdict(process('other', service('a'), sent=['notes.info']),
                      queues={'a': (0, 1), 'notes.info': (5, 0)})
    assert 'nobody listens on at the moment, on either side: notes' in text
    assert 'that no service listens on: notes.info' in text
    assert 'Step 2 (rpc_zmq_bridge_send=zmq) is safe' in text


def test_a_listener_in_a_pool_on_the_other_side_alone(verdict):
    """It listens on the queue of its pool, and that of the topic is told."""
    text, _ = verdict(process('other', service('a', pool='p'), sent=['a']),
                      queues={'p': (0, 1), 'a': (0, 1)})
    assert 'Step 2 is NOT SAFE yet: some listen only on the other' in text


# Step 3

def test_listeners_may_hold_messages(verdict):
    text, _ = verdict(
        process('zmq', service('a', server='s', kind='rpc')),
        queues={'a': (0, 1), 'a.s': (0, 1)})
    assert 'NOT KNOWN whether step 3' in text and 'is safe:' not in text
    assert 'not acknowledged, and AMQP does not tell: a, a.s.' in text
    assert COMMAND in text and NOT_SENT in text and 'step 2' in text


def test_the_command_names_the_virtual_host(verdict):
    text, _ = verdict(process('zmq', service('a')), host='nova cell',
                      queues={'a': (0, 1)})
    assert "`rabbitmqctl list_queues -p 'nova cell' name messages`" in text


def test_a_listener_that_stops_may_hold_messages(verdict):
    text, _ = verdict(process('zmq', service('a', other_half=0)),
                      queues={'a': (0, 0)})
    assert COMMAND in text


def test_messages_that_wait(verdict):
    text, _ = verdict(process('zmq', service('a')), queues={'a': (2, 1)})
    assert text.startswith('Step 3 is NOT SAFE yet: there are messages')


def test_an_empty_queue_without_listeners_is_safe(verdict):
    text, _ = verdict(process('', service('a')), queues={'a': (0, 0)})
    assert 'Step 3 (without a bridge) is safe' in text and NOT_SENT in text


def test_a_queue_that_nobody_reads_stops_nobody(verdict):
    """The queue of a topic whose listeners are all in pools."""
    text, rows = verdict(
        process('zmq', service('a', pool='p'), sent=['a']),
        queues={'p': (0, 1), 'a': (7, 0)})
    assert 'that no service listens on: a.' in text
    assert 'does not tell: p.' in text and 'NOT SAFE' not in text
    assert rows['a']['unread on the other'] == 7


def test_without_a_topic_nothing_is_safe(verdict):
    text, _ = verdict(process('zmq'))
    assert text.startswith('Step 3 is NOT SAFE yet: nobody listens over zmq')


# What cannot be seen

LISTED = clouds.Listed(record.Instance(bytes(16), ('tcp://h:1',), host='h'),
                       {('rpc', '', 'b')})


@pytest.mark.parametrize('sends', ['other', 'zmq', ''])
@pytest.mark.parametrize('more, seen, why', [
    ([], {'trouble': 'it is down'}, 'the registry does not answer'),
    ([process('other', age=99.0)], {}, 'say nothing at the moment: nova'),
    ([], {'listed': [LISTED]}, 'that the registry lists: b'),
    ([process('zmq', left_out={'sent': 1})], {}, 'than they can tell: nova'),
    ([process('zmq', sent=['(other topics)'])], {}, 'than they can tell')])
def test_a_cloud_that_is_not_seen_whole_is_not_safe(verdict, sends, more,
                                                    seen, why):
    text, rows = verdict(process(sends, service('a')), *more,
                         queues={'a': (0, bool(sends))}, **seen)
    assert 'NOT KNOWN whether step' in text and why in text
    assert ') is safe' not in text and set(rows) == {'a'}
