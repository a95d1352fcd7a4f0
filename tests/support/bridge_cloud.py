# SPDX-License-Identifier: Apache-2.0
"""A cloud that moves from RabbitMQ to zmq and back, and what came of it.

Steps: 0 is rabbit alone, 1 the bridge that sends over rabbit, 2 the bridge
that sends over zmq, 3 zmq alone.
"""

import collections
import contextlib
import json
import time

from tests.support import chaos_cloud
from tests.support import chaos_journal
from tests.support import processes
from tests.support import waiting

# A fanout is for the servers that were up this long before and after it.
_MARGIN = 1.5
POOLS = (None, 'meter')


class Member:
    """A process of the cloud.

    :ivar step: of its next life
    """

    def __init__(self, cloud, name, details):
        self.name, self.step = name, cloud.first
        self._cloud, self._details = cloud, details
        self.actor = chaos_cloud.Actor(cloud.folder, name, self._command,
                                       chaos_cloud.Timeline())

    @property
    def is_server(self):
        return 'topic' in self._details

    def _command(self, life, path):
        settings = {'url': self._cloud.url(self.step), 'path': path,
                    'name': self.name if self.is_server else life,
                    **self._details}
        return [*processes.command('bridge_main.py')[1:],
                json.dumps(settings)]

    def launch(self):
        self.actor.launch()

    def wait_until_ready(self):
        waiting.until(self._is_ready, 180, f'{self.name} is ready')

    def _is_ready(self):
        assert self.actor.is_up(), f'{self.name} ended'
        return self.actor.is_ready()

    def restart(self, step):
        began = time.monotonic()
        self.actor.terminate()
        assert self.actor.exit_code(60) == 0, self.name
        ended = time.monotonic()
        self.step = step
        self.launch()
        self.wait_until_ready()
        print(f'{self.name} to step {step}: ended in {ended - began:.1f} s, '
              f'ready in {time.monotonic() - ended:.1f} s')


class Cloud:
    """Servers and clients, of which all are at the same step at first.

    :param query: of all zmq URLs
    """

    def __init__(self, folder, node, broker, topics, servers, clients,
                 pace=0.1, first=0, **query):
        self.folder, self.first, self.broker = folder, first, broker
        self.rabbit_loses_until = 0.0
        self._node, self._query = node, query
        self.members = [Member(self, f's{number}', {
            'topic': topics[number % len(topics)],
            # While the only listener of a pool restarts, it misses what is
            # sent over zmq: so each has some.
            'pools': POOLS if servers < 4 else [
                POOLS[number // len(topics) % len(POOLS)]]})
            for number in range(servers)]
        self.members += [Member(self, f'c{number}', {
            'topics': topics, 'pace': pace}) for number in range(clients)]
        self.queues = [*topics, *(f'{each._details["topic"]}.{each.name}'
                                  for each in self.servers()),
                       'notes.info', *filter(None, POOLS)]

    def servers(self):
        return [each for each in self.members if each.is_server]

    def url(self, step):
        if step == 0:
            return self.broker.url
        if step == 3:
            return self._node.url(**self._query)
        return self._node.url(
            rpc_zmq_bridge=self.broker.url,
            rpc_zmq_bridge_send={1: 'other', 2: 'zmq'}[step], **self._query)

    def start(self):
        for each in self.members:
            self._node.closing(each.actor.destroy)
        for group in self.servers(), self.members[len(self.servers()):]:
            for each in group:
                each.launch()
            for each in group:
                each.wait_until_ready()

    def move(self, step, rng):
        """Restart all, one at a time, in random order."""
        if step == 3:
            self.wait_until_the_broker_is_empty()
        for each in rng.sample(self.members, len(self.members)):
            is_plain = each.is_server and each.step == 0
            each.restart(step)
            if is_plain:
                self.rabbit_loses_until = time.monotonic()

    def wait_until_the_broker_is_empty(self):
        waiting.until(lambda: not any(map(self.broker.messages,
                                          self.queues)), 60)

    def wait_until_all_listen_on_the_broker(self):
        waiting.until(lambda: all(
            self.broker.consumers(f'{each._details["topic"]}.{each.name}')
            for each in self.servers()), 90)

    def end(self):
        """Clients first: servers take what they have sent."""
        for group in self.members[len(self.servers()):], self.servers():
            for each in group:
                each.actor.terminate()
            for each in group:
                assert each.actor.exit_code(60) == 0, each.name
            # What is missing still is a fault.
            with contextlib.suppress(AssertionError):
                waiting.until(lambda: self.verdict().is_settled(), 15)

    def verdict(self):
        return Verdict(self)


class Verdict:
    """What the journals say.

    :ivar faults: list of text
    :ivar of_rabbit: the same of messages that were under way while servers of
        step 0 stopped, of which the rabbit driver loses some
    :ivar figures: Counter
    """

    def __init__(self, cloud):
        self._cloud = cloud
        self._clear()
        self._sent, self._told, self._runs = {}, {}, {}
        self._lives = collections.defaultdict(dict)     # of servers
        self.logs = []
        for each in cloud.members:
            for life in each.actor.lives:
                for line in chaos_journal.read(each.actor.path(life)):
                    self._read(each, life, line)

    def _read(self, member, life, line):
        what = line['what']
        if what == 'sending':
            self._sent[line['token']] = line
        elif what in ('returned', 'raised'):
            self._told[line['token']] = line
        elif what == 'begin':
            self._runs.setdefault(line['token'], []).append(
                (life, line.get('pool')))
        elif what == 'log':
            self.logs.append((life, line))
        elif member.is_server:
            self._lives[life][what] = line['at']
            self._lives[life]['topic'] = member._details['topic']

    def is_settled(self):
        """Whether nothing is missing."""
        self.judge()
        return not any(' 0 times' in fault for fault in self.faults)

    def _clear(self):
        self.faults, self.of_rabbit = [], []
        self.figures = collections.Counter()

    def _fault(self, sent, text):
        (self.of_rabbit if sent['at'] < self._cloud.rabbit_loses_until
         else self.faults).append(f'{sent} {text}')

    def judge(self):
        self._clear()
        for token, sent in self._sent.items():
            told = self._told.get(token, {'what': 'nothing', 'at': sent['at']})
            self.figures[f'{sent["kind"]} {told["what"]}'] += 1
            if told['what'] != 'returned':
                self._fault(sent, told)
            getattr(self, f'_{sent["kind"]}')(sent, told)
        for token in self._runs.keys() - self._sent.keys():
            self.faults.append(f'{token} was never sent')
        return self

    def _times(self, sent, count, expected, what):
        if count != expected:
            self.figures[f'{sent["kind"]} ran {count} times'] += 1
            self._fault(sent, f'ran {count} times, {what}: '
                        f'{self._runs.get(sent["token"])}')

    def _call(self, sent, told):
        self._times(sent, len(self._runs.get(sent['token'], [])), 1, 'once')

    _cast = _call

    def _notify(self, sent, told):
        pools = collections.Counter(
            pool for _, pool in self._runs.get(sent['token'], []))
        for pool in POOLS:
            self._times(sent, pools[pool or ''], 1, f'pool {pool}')

    def _fanout(self, sent, told):
        runs = collections.Counter(
            life for life, _ in self._runs.get(sent['token'], []))
        for life, of_life in self._lives.items():
            if of_life.get('topic') != sent['topic']:
                continue
            was_up = (of_life.get('ready', sent['at']) < sent['at'] - _MARGIN
                      and told['at'] + _MARGIN
                      < of_life.get('stopping', float('inf')))
            if was_up or runs[life] > 1:
                self._times(sent, runs[life], 1, life)
                self.figures['copies of fanouts'] += 1
