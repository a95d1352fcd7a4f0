# SPDX-License-Identifier: Apache-2.0
"""What is said of services that others cannot reach."""

import dataclasses
import math

import pytest

from zmq_threaded import logs
from zmq_threaded.health import judgement
from zmq_threaded.health import probe
from zmq_threaded.health import telling
from zmq_threaded.registry import complaints
from zmq_threaded.registry import record
from zmq_threaded.registry import unanswered
from zmq_threaded.status import findings

NOW = 1000.0
ANSWERS = [each for each in probe.Answer
           if each not in (probe.Answer.HEARD, probe.Answer.UNTRIED)]


@dataclasses.dataclass(eq=False)
class Vitals:
    """Those of a service that lives, but for what a test changes."""

    name: str = 'compute on node-7'
    number: int = 1
    receiver: bool = False
    began_at: float = 0.0
    mute: dict = dataclasses.field(default_factory=lambda: {
        'poller': 0.5, 'reply': 0.5})
    waited: float = 0.0
    workers: int | None = 4

    @property
    def instance(self):
        return record.Instance(bytes([self.number]) * 16,
                               ('ipc:///x', 'tcp://node-7:9501'),
                               receiver=self.receiver)

    def is_mute_for(self, now):
        return self.mute

    def has_waited(self, now):
        return self.waited

    def waiting(self):
        return 7


def only(verdicts):
    (key, verdict), = verdicts.items()
    assert not verdict.text[0].islower() and not verdict.text.endswith('.')
    assert verdict.remedy[0].islower() and not verdict.remedy.endswith('.')
    return key, verdict


def test_of_services_that_live_nothing_is_said():
    several = [Vitals(number=number) for number in range(9)]
    assert not judgement.mute_threads(several, NOW)
    assert not judgement.stuck_workers(several, NOW, 300)
    assert not judgement.unlisted(several, NOW, NOW, 30, '')
    assert not judgement.complained_of(several, {})
    assert judgement.deaf({}) == 0


def test_threads_that_never_began_are_not_mute():
    # Their time is inf, so that the seconds since then are -inf.
    assert not judgement.mute_threads(
        [Vitals(mute={'poller': -math.inf})], NOW)
    assert not judgement.mute_loops([('zmq-outbox', math.inf, 15)], NOW)


def test_one_mute_thread_of_many_services_is_one_finding():
    several = [Vitals(number=number, mute={'poller': 19.0})
               for number in range(20)]
    key, verdict = only(judgement.mute_threads(several, NOW))
    assert key == ('stuck_thread', 'poller')
    assert 'and 17 more' in verdict.text and len(verdict.deaf) == 20


def test_a_loop_that_is_mute_is_named():
    key, verdict = only(judgement.mute_loops(
        [('zmq-registry', NOW - 31, 30), ('zmq-outbox', NOW - 1, 15)], NOW))
    assert key.subject == 'zmq-registry' and '31 s' in verdict.text


@pytest.mark.parametrize('waited, found', [(0, 0), (300, 0), (301, 1)])
def test_workers_are_stuck_after_the_limit(waited, found):
    assert len(judgement.stuck_workers([Vitals(waited=waited)], NOW,
                                       300)) == found


@pytest.mark.parametrize('answer', ANSWERS)
@pytest.mark.parametrize('receiver', [False, True])
def test_each_answer_has_a_remedy(answer, receiver):
    key, verdict = only(judgement.unreachable([judgement.Place(
        'tcp://node-7:9501', probe.Finding(answer, 'because'),
        [Vitals(receiver=receiver)])]))
    assert key == ('unreachable', 'tcp://node-7:9501')
    assert 'because' in verdict.text and 'compute on node-7' in verdict.text


def test_who_complains_is_named_and_bounded():
    mine = Vitals()
    said = [complaints.Complaint(mine.instance.endpoints, f'api {number}',
                                 'no route') for number in range(50)]
    heard = {mine.instance.endpoints: said, ('tcp://other:1',): said}
    key, verdict = only(judgement.complained_of([mine, Vitals(number=2)],
                                                heard))
    assert '50 processes say that they cannot reach' in verdict.text
    assert 'api 2' in verdict.text and 'api 3' not in verdict.text
    assert len(verdict.deaf) == 2


def test_a_record_is_unlisted_after_its_life():
    young, old = Vitals(began_at=NOW - 5), Vitals(number=2)
    assert not judgement.unlisted([young], -math.inf, NOW, 30, 'why')
    _, verdict = only(judgement.unlisted([young, old], NOW - 40, NOW, 30,
                                         'refused'))
    assert '40 s' in verdict.text and 'refused' in verdict.text
    assert len(verdict.deaf) == 1


# Telling

@pytest.fixture
def told(caplog):
    caplog.set_level('INFO')
    found = findings.Findings()
    teller = telling.Telling(found)

    def update(*kinds, is_told=False):
        caplog.clear()
        teller.update({telling.Key(kind, 'subject'): telling.Verdict(
            f'{kind} is wrong', 'mend it', is_told) for kind in kinds})
        logs.flush()
        return [each.getMessage() for each in caplog.records]
    update.found = found
    return update


def test_a_beginning_and_an_end_have_one_line_each(told):
    assert told('a') == ['a is wrong. What to do: mend it.']
    assert told('a') == told('a') == []
    assert [each.kind for each in told.found.all()] == ['a']
    assert [line[:10] for line in told()] == ['It is over']
    assert not told.found.all() and told() == []


def test_what_another_part_tells_is_only_kept(told):
    assert told('a', is_told=True) == []
    assert told.found.all()
    assert told() == [] and not told.found.all()


def test_many_at_once_are_no_storm(told):
    kinds = [f'kind{number}' for number in range(50)]
    lines = told(*kinds)
    assert len(lines) == 6 and '45 more' in lines[-1]
    assert len(told.found.all()) == 50
    assert len(told()) == 6


def test_findings_of_others_stay(told):
    told.found.note('b', 'theirs', 'text', 'remedy')
    told('a')
    told()
    assert [each.kind for each in told.found.all()] == ['b']


# Calls without an answer

def test_an_instance_is_named_after_some_calls_over_some_time(monkeypatch):
    clock = [NOW]
    monkeypatch.setattr(unanswered.time, 'monotonic', lambda: clock[0])
    mine, listed = Vitals().instance, set()
    counted = unanswered.Unanswered(lambda: listed)
    listed.add(mine.id)
    for _ in range(5):
        counted.timed_out(mine)
    assert not counted.all()        # all at one time
    clock[0] += 6
    counted.timed_out(mine)
    (who, count, since), = counted.all()
    assert (who, count, since) == (mine, 6, NOW)
    counted.worked(mine)
    assert not counted.all()        # it has answered, and all is forgotten


def test_who_is_no_longer_listed_is_not_named_for_calls(monkeypatch):
    monkeypatch.setattr(unanswered, '_SECONDS', 0.0)
    mine = Vitals().instance
    listed = {mine.id}
    counted = unanswered.Unanswered(lambda: listed)
    for _ in range(3):
        counted.timed_out(mine)
    assert counted.all()
    # It was restarted: the next one has another id.
    listed.clear()
    assert not counted.all()
