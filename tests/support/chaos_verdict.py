# SPDX-License-Identifier: Apache-2.0
"""Holding the journals of a chaos run against what is promised.

Each message has a token. What its sender was told, what custody decided and
what the servers ran are put side by side; whatever no promise allows is a
fault, and what a promise allows is counted and must be explained by something
that was done to the process in question at the time.
"""

import collections
import os
import re
import sys

from tests.support import chaos_cloud
from tests.support import chaos_journal

ACKNOWLEDGED, FAILED, TAKEN, NOBODY = ('acknowledged', 'failed', 'taken',
                                       'nobody')
# From a worker's acknowledgement to the first line of its endpoint; from a
# run to the death that took its acknowledgement along.
_SOON = 3.0
# Until a paused or cut off peer is noticed, and everybody has settled.
_WAKE = 12.0

Run = collections.namedtuple('Run', 'begin finish life pool')


class Message:
    """All that is known of one message."""

    def __init__(self, token, line):
        self.token, self.sender = token, token.rpartition('-')[0]
        self.kind, self.topic, self.sent = line['kind'], line['topic'], line[
            'at']
        self.told = None        # 'returned', or the name of an exception
        self.told_at = 0.0
        self.text = ''
        self.ends = []          # lines of custody, of each copy
        self.runs = []

    def copies(self, event):
        return [end for end in self.ends
                if end['event'] == event and not end['spread']]


class Evidence:
    """What the journals say.

    :param paths: dict of life to journal
    :param timeline: chaos_cloud.Timeline
    """

    def __init__(self, paths, timeline):
        self.lines = {life: chaos_journal.read(path)
                      for life, path in paths.items()}
        self.timeline = timeline
        self.messages, self.ready, self.bye, self.logs = {}, {}, {}, []
        self.life_of = {}       # instance id -> life
        self.topic_of = {}      # instance id -> topic
        self.pool_of = {}       # life -> pool of its listener
        open_runs = {}
        for life, lines in self.lines.items():
            for line in lines:
                self._read(life, line, open_runs)
        self._sort_runs(open_runs)

    def _read(self, life, line, open_runs):
        what, token = line['what'], line.get('token')
        if what == 'sending':
            self.messages[token] = Message(token, line)
        elif what in ('returned', 'raised'):
            self._told(self.messages[token], line)
        elif what == 'ended':
            self.messages[token].ends.append(line)
        elif what in ('begin', 'finish'):
            self._ran(life, line, open_runs)
        else:
            self._read_of_life(life, line)

    def _read_of_life(self, life, line):
        what = line['what']
        if what == 'log':
            self.logs.append((life, line))
        elif what == 'ready':
            self.ready[life] = line['at']
            self.pool_of[life] = line.get('pool')
            for instance, topic in line.get('instances', {}).items():
                self.life_of[instance], self.topic_of[instance] = life, topic
        elif what == 'bye':
            self.bye[life] = line['at']

    @staticmethod
    def _told(message, line):
        message.told = line.get('error', 'returned')
        message.told_at, message.text = line['at'], line.get('text', '')

    @staticmethod
    def _ran(life, line, open_runs):
        runs = open_runs.setdefault((line['token'], life), [])
        if line['what'] == 'begin':
            runs.append([line['at'], None, life, line.get('pool')])
        else:
            next(run for run in runs if run[1] is None)[1] = line['at']

    def _sort_runs(self, open_runs):
        for (token, _), runs in open_runs.items():
            self.messages[token].runs += [Run(*run) for run in runs]
        for message in self.messages.values():
            message.runs.sort(key=lambda run: run.begin)

    # What was done to a life

    def killed_at(self, life):
        return next((event.at for event in self.timeline.events
                     if event.life == life and event.action == 'kill'), None)

    def was_killed(self, life, after, seconds=float('inf')):
        at = self.killed_at(life)
        return at is not None and after - _SOON <= at <= after + seconds

    def pauses(self, life):
        begun, pauses = None, []
        for event in self.timeline.events:
            if event.life == life and event.action == 'pause':
                begun = event.at
            elif event.life == life and event.action == 'resume':
                pauses.append((begun, event.at))
        return pauses

    def was_paused(self, life, begin, end, least=0.0):
        """Whether it was paused at some time between these two.

        :param least: seconds for which, up to the end
        """
        return any(start <= end - least and stop >= begin
                   for start, stop in self.pauses(life))

    def was_disturbed(self, life, begin, end):
        """Whether anything was done to it in this time, or shortly before."""
        return (self.was_paused(life, begin - _WAKE, end) or any(
            event.life == life and event.action != 'launch'
            and begin - _WAKE <= event.at <= end
            for event in self.timeline.events))


def _short(end):
    return (f'{end["at"]:.3f} {end["event"]} {end["instance"][:8]} '
            f'{end["topic"]} {end["reason"]}')


class Verdict:
    """The figures of a run, and its faults.

    :param expire: seconds of life of a record (zmq_target_expire)
    :ivar figures: Counter
    :ivar faults: list of text, empty if every promise was kept
    """

    def __init__(self, evidence, expire):
        self._evidence = evidence
        # It was renewed up to a third of its life before the pause.
        self._record_life = expire * 0.6
        self.figures = collections.Counter()
        self.faults = []
        self._dropped = self._drops_in_the_log()
        judges = {'call': self._call, 'monitored_call': self._call,
                  'cast': self._cast, 'confirmed_cast': self._cast,
                  'fanout': self._fanout, 'notify': self._notify}
        for message in evidence.messages.values():
            self._count(message, 'sent')
            self._no_life_ran_it_twice(message)
            judges[message.kind](message)
            if message.kind not in ('call', 'monitored_call'):
                self._every_end_is_known(message)
        self._logs()

    def _count(self, message, what):
        self.figures[f'{message.kind}: {what}'] += 1

    def _fault(self, message, what):
        self._count(message, f'FAULT {what}')
        self.faults.append(
            f'{message.kind} {message.token} for {message.topic}, sent '
            f'{message.sent:.3f}: {what}; told {message.told} '
            f'{message.told_at:.3f} {message.text}; runs {message.runs}; '
            f'ends {[_short(end) for end in message.ends]}')

    def _sender_was_killed(self, message):
        return self._evidence.killed_at(message.sender) is not None

    def _no_life_ran_it_twice(self, message):
        runs = collections.Counter((run.life, run.pool)
                                   for run in message.runs)
        # Direct and receiver topics of one process are different instances,
        # but a message is for one topic only.
        if any(count > 1 for count in runs.values()):
            self._fault(message, 'ran twice in one process')

    # Calls

    def _call(self, message):
        if len(message.runs) > 1:
            self._fault(message, 'a call ran twice')
        if message.told == 'returned':
            self._count(message, 'replied')
            if not message.runs or message.runs[0].finish is None:
                self._fault(message, 'a reply without a run')
        elif message.told is None:
            if self._sender_was_killed(message):
                return self._count(message, 'sender killed')
            self._fault(message, 'a call that never ended')
        else:
            self._count(message, f'failed, {message.told}')
            self._failed_call(message)

    def _failed_call(self, message):
        took = message.told_at - message.sent
        paused = self._evidence.was_paused(message.sender, message.sent - 1,
                                           message.told_at)
        if took > 17 and not paused:
            self._fault(message, f'a call that took {took:.1f} s')
        elif message.told == 'ServerGone':
            self._server_gone(message, took, paused)
        elif message.told not in ('MessagingTimeout',
                                  'MessageDeliveryFailure'):
            self._fault(message, 'an unexpected exception')

    def _server_gone(self, message, took, paused):
        found = re.search(r'instance ([0-9a-f]{8})', message.text)
        life = found and next(
            (life for instance, life in self._evidence.life_of.items()
             if instance.startswith(found[1])), None)
        guilty = [each for each in (life, 'receiver', message.sender) if each]
        if not any(self._evidence.was_disturbed(each, message.sent,
                                                message.told_at)
                   for each in guilty):
            self._fault(message, f'a false alarm after {took:.1f} s')
        elif life and self._killed_during(life, message) and not paused:
            late = message.told_at - self._evidence.killed_at(life)
            self.figures['longest ServerGone after a kill, ms'] = max(
                self.figures['longest ServerGone after a kill, ms'],
                int(late * 1000))

    def _killed_during(self, life, message):
        at = self._evidence.killed_at(life)
        return at is not None and message.sent < at < message.told_at

    # Casts

    def _cast(self, message):
        if len(message.runs) > 1:
            self._extra_runs(message, message.runs)
        for end in message.copies(ACKNOWLEDGED):
            self._count(message, 'acknowledged')
            self._ran_where_acknowledged(message, end)
        self._report_of(message)

    def _ran_where_acknowledged(self, message, end):
        life = self._evidence.life_of.get(end['instance'])
        runs = [run for run in message.runs if life in (None, run.life)]
        if runs:
            if all(run.finish is None for run in runs):
                self._unfinished(message, runs[0].life)
        elif message.runs and message.kind != 'fanout':
            # Taken there before, and acknowledged as a duplicate.
            self._count(message, 'acknowledged elsewhere')
        elif life and self._evidence.was_killed(life, end['at'], _WAKE):
            self._count(message, 'lost with a killed server that began it')
        else:
            self._fault(message, f'acknowledged by {life} and never run')

    def _unfinished(self, message, life):
        if self._evidence.killed_at(life):
            self._count(message, 'begun by a killed server')
        else:
            self._fault(message, 'begun and not finished')

    def _extra_runs(self, message, runs):
        """All runs but one must be by servers that were killed, or paused,
        before their acknowledgement was out.
        """
        self._count(message, 'ran more than once')
        killed = [run for run in runs if self._died_before_it_was_asked(run)]
        paused = [run for run in runs if run not in killed
                  and self._was_paused_before_it_was_asked(message, run)]
        if len(killed) + len(paused) >= len(runs) - 1 and (killed or paused):
            return self._count(message, 'extra runs explained by a kill'
                               if len(killed) >= len(runs) - 1 else
                               'extra runs explained by a pause')
        if self._evidence.was_paused(message.sender, message.sent - _SOON,
                                     runs[-1].begin + _SOON):
            return self._count(message, 'extra runs, its SENDER was paused')
        self._fault(message, 'ran more than once without a reason')

    def _was_paused_before_it_was_asked(self, message, run):
        pauses = self._evidence.pauses(run.life)
        if message.kind == 'notify':
            # It is not acknowledged before it was handled, and what a
            # listener had read it handles after a pause, too.
            return self._evidence.was_paused(
                run.life, message.sent - _SOON, run.begin + _SOON)
        return any(run.begin - _SOON < start < run.begin + _SOON
                   for start, _ in pauses)

    def _died_before_it_was_asked(self, run):
        evidence = self._evidence
        if evidence.was_killed(run.life, run.begin, _SOON):
            return True
        # An acknowledgement that the receiver took along is asked for when
        # there is one again; by then its server may be gone, even in peace.
        return evidence.was_disturbed(
            'receiver', run.begin, run.begin + 1) and any(
                event.life == run.life and event.action in ('kill', 'finish')
                and run.begin - _SOON < event.at < run.begin + _WAKE
                for event in evidence.timeline.events)

    def _report_of(self, message):
        """What was not acknowledged is reported, or its sender killed."""
        if message.copies(ACKNOWLEDGED):
            if message.copies(FAILED):
                self._fault(message, 'acknowledged and dropped')
        elif message.ends:
            self._count(message, 'reported')
            if message.told == 'returned' and not message.copies(FAILED):
                self._fault(message, 'confirmed, then given up without a word '
                            'in the log')
            if message.runs:
                self._count(message, f'reported ({message.told}), and yet '
                            'run')
        elif message.told not in (None, 'returned'):
            self._count(message, f'raised {message.told}')
        elif self._sender_was_killed(message):
            self._count(message, 'sender killed')
        else:
            self._fault(message, 'neither acknowledged nor reported')

    # Fanouts

    def _fanout(self, message):
        for end in message.copies(ACKNOWLEDGED):
            self._count(message, 'copies acknowledged')
            self._ran_where_acknowledged(message, end)
        spread = [end for end in message.ends if end['spread']]
        if not self._sender_was_killed(message) and not spread:
            return self._fault(message, 'never spread')
        for end in spread:
            if end['event'] == TAKEN:
                self._all_who_were_well(message, end)
            elif end['event'] == NOBODY:
                self._count(message, 'reported, nobody is registered')

    def _all_who_were_well(self, message, spread):
        """Every server that was there all the time has it."""
        evidence = self._evidence
        for instance, life in evidence.life_of.items():
            if (evidence.topic_of[instance] == message.topic
                    and evidence.ready[life] < message.sent
                    and not self._left_before(life, spread['at'])
                    and not any(end['instance'] == instance
                                for end in message.ends)
                    and not self._sender_was_killed(message)):
                self._fault(message, f'{life} has no copy')

    def _left_before(self, life, at):
        """Whether it was about to go, or was without its record for a while.
        """
        return any(event.life == life and event.action in (
            'kill', 'finish', 'pause', 'resume') and event.at < at + 0.5
            for event in self._evidence.timeline.events) or any(
                event.life == 'registry' and event.action != 'launch'
                for event in self._evidence.timeline.events)

    # Notifications

    def _notify(self, message):
        pools = collections.defaultdict(list)
        for run in message.runs:
            pools[run.pool].append(run)
        for runs in pools.values():
            if len(runs) > 1:
                self._extra_runs(message, runs)
        for end in message.copies(ACKNOWLEDGED):
            self._handled_where_acknowledged(message, end, pools)
        for end in message.ends:
            if end['spread'] and end['event'] == TAKEN:
                self._all_pools_have_it(message, end)
        if not message.ends:
            self._report_of(message)

    def _handled_where_acknowledged(self, message, end, pools):
        self._count(message, 'copies acknowledged')
        pool = self._pool_of(end)
        if not any(run.finish for run in pools[pool]):
            self._fault(message, f'acknowledged in {pool}, not handled')

    def _all_pools_have_it(self, message, spread):
        ended = {self._pool_of(end) for end in message.ends
                 if not end['spread']}
        if self._sender_was_killed(message) or len(ended) == 2:
            return
        self._count(message, 'a pool had no copy')
        for life, ready in self._evidence.ready.items():
            pool = self._evidence.pool_of.get(life)
            if (pool and pool not in ended and ready < message.sent
                    and not self._left_before(life, spread['at'])):
                self._fault(message, f'no copy for pool {pool} of {life}')

    def _pool_of(self, end):
        found = re.search(r'pool[^a-z]*([ab])\b', end['topic'])
        return found[1] if found else end['topic']

    # Reports

    def _drops_in_the_log(self):
        dropped = {}
        for _life, line in self._evidence.logs:
            found = re.match(r'(\w+) ([0-9a-f]{32}) for (.+) was dropped: '
                             r'(.+?)(?:\. What to do: .+)?$', line['text'])
            if found:
                dropped.setdefault(found[2], []).append(found)
        return dropped

    def _every_end_is_known(self, message):
        for end in message.copies(FAILED):
            reason = re.sub(r'[0-9a-f]{8}', '<instance>', end['reason'])
            self._count(message, f'dropped: {reason}')
            logged = self._dropped.get(end['id'], [])
            if not any(found[3] == end['topic'] and found[4] == end['reason']
                       for found in logged):
                self._fault(message, 'dropped without a word in the log')
            if end['reason'] == 'its instance is gone':
                self._instance_was_gone(message, end)

    def _instance_was_gone(self, message, end):
        life = self._evidence.life_of.get(end['instance'])
        if not life or any(
                event.life == life and event.action in ('kill', 'finish')
                and event.at < end['at']
                for event in self._evidence.timeline.events):
            return
        # Without its record and its connection it counts as gone.
        if self._evidence.was_paused(life, end['at'] - 2, end['at'],
                                     self._record_life):
            return self._count(message, 'dropped, its server was paused for '
                               'longer than its record lives')
        self._fault(message, f'dropped as if gone, but {life[0]} lives')

    def _logs(self):
        for life, line in self._evidence.logs:
            if line['crash'] and line['name'].startswith('zmq_threaded'):
                self.faults.append(f'{life} logged {line["text"]}')

    # What is printed

    def table(self):
        return '\n'.join(f'{name:60} {count:8}' for name, count
                         in sorted(self.figures.items()))


def main(folder, expire='9'):
    """Judge the journals of an earlier run again."""
    paths = {name: os.path.join(folder, name) for name in os.listdir(folder)
             if name != 'timeline' and not name.endswith('.stderr')}
    timeline = chaos_cloud.Timeline.load(os.path.join(folder, 'timeline'))
    verdict = Verdict(Evidence(paths, timeline), float(expire))
    print(verdict.table(), *verdict.faults, sep='\n')


if __name__ == '__main__':
    main(*sys.argv[1:])
