# SPDX-License-Identifier: Apache-2.0
"""The judge of the chaos runs sees each kind of fault."""

import os

import pytest

from tests.support import chaos_cloud
from tests.support import chaos_journal
from tests.support import chaos_verdict

_INSTANCE = 'ab' * 16
_ID = 'cd' * 16
_TOPIC = 'both (exchange openstack)'


class World:
    """Journals of a client c.0 and two servers s.0 and t.0, made up.

    A message is sent at 100 s; everything is well unless a test says so.
    """

    def __init__(self, folder):
        self._folder = str(folder)
        self._lines = {'c.0': [], 's.0': [], 't.0': []}
        self.timeline = chaos_cloud.Timeline()
        for life, instance in (('s.0', _INSTANCE), ('t.0', 'ef' * 16)):
            self.line(life, 'ready', 10, instances={instance: 'both'},
                      pool='a')

    def line(self, life, what, at, **details):
        self._lines[life].append({'at': at, 'what': what, **details})

    def done(self, at, life, action):
        self.timeline.events.append(chaos_cloud.Event(at, life, action))

    def sent(self, kind, told='returned'):
        self.line('c.0', 'sending', 100, token='c.0-1', kind=kind,
                  topic='both')
        if told == 'returned':
            self.line('c.0', 'returned', 101, token='c.0-1')
        elif told:
            self.line('c.0', 'raised', 101, token='c.0-1', error=told,
                      text='')

    def ended(self, event, reason='', spread=False, log=True):
        self.line('c.0', 'ended', 102, token='c.0-1', event=event, id=_ID,
                  spread=spread, topic=_TOPIC,
                  instance='' if spread else _INSTANCE, reason=reason)
        if event == 'failed' and log:
            self.line('c.0', 'log', 102, level='WARNING', name='zmq_threaded',
                      crash=False,
                      text=f'CAST {_ID} for {_TOPIC} was dropped: {reason}')

    def ran(self, life='s.0', finish=True, pool=None, at=101):
        self.line(life, 'begin', at, token='c.0-1', pool=pool)
        if finish:
            self.line(life, 'finish', at + 0.1, token='c.0-1', pool=pool)

    def faults(self):
        paths = {}
        for life, lines in self._lines.items():
            paths[life] = os.path.join(self._folder, life)
            for line in lines:
                _append(paths[life], line)
        open(paths['c.0'], 'a').close()
        verdict = chaos_verdict.Verdict(
            chaos_verdict.Evidence(paths, self.timeline), 9)
        return verdict.faults


def _append(path, line):
    journal = chaos_journal.Journal(path)
    os.write(journal._file, chaos_journal.json.dumps(line).encode() + b'\n')
    os.close(journal._file)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_all_is_well(world):
    world.sent('cast')
    world.ran()
    world.ended('acknowledged')
    assert world.faults() == []


def test_acknowledged_and_never_run(world):
    world.sent('cast')
    world.ended('acknowledged')
    assert 'never run' in world.faults()[0]


def test_acknowledged_and_lost_with_a_server_that_was_killed_then(world):
    world.sent('cast')
    world.ended('acknowledged')
    world.done(102.5, 's.0', 'kill')
    assert world.faults() == []


def test_neither_acknowledged_nor_reported(world):
    world.sent('cast')
    world.ran()
    assert 'neither' in world.faults()[0]


@pytest.mark.parametrize('kind', ['cast', 'notify'])
def test_run_twice_without_a_reason(world, kind):
    world.sent(kind)
    for life in ('s.0', 't.0'):
        world.ran(life, pool='a' if kind == 'notify' else None)
    world.ended('acknowledged')
    assert any('without a reason' in fault for fault in world.faults())


@pytest.mark.parametrize('action', ['kill', 'pause'])
def test_run_twice_because_of_a_kill_or_a_pause(world, action):
    world.sent('cast')
    world.ran('s.0')
    world.ran('t.0')
    world.ended('acknowledged')
    world.done(101.5, 't.0', action)
    world.done(108, 't.0', 'resume')
    assert world.faults() == []


@pytest.mark.parametrize('kind', ['cast', 'notify'])
def test_run_twice_by_a_server_that_was_paused_before(world, kind):
    world.sent(kind)
    pool = 'a' if kind == 'notify' else None
    world.ran('s.0', pool=pool)
    world.ran('t.0', pool=pool, at=109)
    world.ended('acknowledged')
    world.done(100.5, 't.0', 'pause')
    world.done(108.5, 't.0', 'resume')
    assert any('without a reason' in fault
               for fault in world.faults()) == (kind == 'cast')


def test_run_twice_by_one_server_has_no_excuse(world):
    world.sent('cast')
    world.ran()
    world.ran()
    world.ended('acknowledged')
    world.done(101.5, 's.0', 'kill')
    assert 'twice in one process' in world.faults()[0]


def test_dropped_without_a_word(world):
    world.sent('cast')
    world.ended('failed', 'why', log=False)
    assert 'without a word' in world.faults()[0]


def test_dropped_with_a_word(world):
    world.sent('cast')
    world.ended('failed', 'why')
    assert world.faults() == []


def test_dropped_with_a_word_that_says_what_to_do(world):
    world.sent('cast')
    world.ended('failed', 'why', log=False)
    world.line('c.0', 'log', 102, level='WARNING', name='zmq_threaded',
               crash=False, text=f'CAST {_ID} for {_TOPIC} was dropped: why. '
               'What to do: start a service')
    assert world.faults() == []


def test_dropped_as_gone_while_it_lives(world):
    world.sent('fanout')
    world.ended('taken', spread=True)
    world.ended('failed', 'its instance is gone')
    assert any('as if gone' in fault for fault in world.faults())


def test_a_server_without_its_copy_of_a_fanout(world):
    world.sent('fanout')
    world.ended('taken', spread=True)
    world.ended('acknowledged')
    world.ran()
    assert ['t.0 has no copy' in fault for fault in world.faults()] == [True]


@pytest.mark.parametrize('told, runs, fault', [
    ('returned', ['s.0'], None), ('returned', [], 'without a run'),
    ('returned', ['s.0', 't.0'], 'a call ran twice'),
    (None, ['s.0'], 'never ended'), ('KeyError', [], 'unexpected'),
    ('ServerGone', [], 'false alarm'), ('MessagingTimeout', [], None)])
def test_calls(world, told, runs, fault):
    world.sent('call', told)
    for life in runs:
        world.ran(life)
    found = world.faults()
    assert (fault in found[0]) if fault else not found


def test_an_unexpected_error_in_a_log(world):
    world.line('s.0', 'log', 100, level='ERROR', crash=True,
               name='zmq_threaded.threads', text='Traceback')
    assert 'Traceback' in world.faults()[0]
