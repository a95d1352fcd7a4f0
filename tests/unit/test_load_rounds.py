# SPDX-License-Identifier: Apache-2.0
"""One round of the load tool, over a transport and servers made up here."""

import itertools
import threading

import pytest
from load import brokers
from load import errors
from load import latency
from load import ledger
from load import modes
from load import options
from load import progress
from load import rounds
from load import worker


class FakeContestant:
    """Sends into ledgers of this process.

    skip(sequence) says whether a message gets lost.
    """

    def __init__(
        self, *arguments, skip=lambda sequence: False, operation=None
    ):
        self.options = options.parse(
            ['--warmup', '0', '--threads', '2', *arguments]
        )
        self.mode = self.options.mode
        self.books = [
            ledger.DeliveryLedger() for _ in range(self.options.servers)
        ]
        self.rounds, self.latencies = [], latency.Latencies()
        self.broker = brokers.Broker('zmq://')
        self._skip = skip
        self.workers = [
            worker.Worker(number, operation or self._operation, ['x'])
            for number in range(self.options.threads)
        ]
        for thread in self.workers:
            thread.start()

    def _operation(self, ident, payload):
        if not self._skip(ledger.split_ident(ident)[1]):
            for book in (
                self.books if self.mode.every_server else self.books[:1]
            ):
                book.record(ident)
        return True

    def statuses(self):
        return [
            {
                'delivered': book.counts()[0],
                'last_delivery': None,
                'cpu_seconds': 0.0,
            }
            for book in self.books
        ]

    def due(self):
        return sum(
            thread.sequence - thread.failed_count for thread in self.workers
        )

    def take_tally(self):
        sent = {thread.number: thread.sent() for thread in self.workers}
        exports = [book.export() for book in self.books]
        return ledger.reconcile(sent, exports, self.mode.every_server)


def test_count_is_exact_over_all_threads():
    result = rounds.run_round(
        FakeContestant('--count', '101'), progress.LineProgress()
    )
    assert (result.operations, result.delivered) == (101, 101)
    assert result.per_second > 0


@pytest.mark.parametrize(
    'mode', [mode for mode in modes.MODES if mode != 'call']
)
def test_nothing_lost_needs_no_patience(mode):
    contestant = FakeContestant(
        '--count', '50', '--mode', mode, '--servers', '2', '--drain', '1000'
    )
    result = rounds.run_round(contestant, progress.LineProgress())
    assert result.delivered == (100 if mode == 'fanout' else 50)


@pytest.mark.parametrize('mode, lost', [('cast', 4), ('fanout', 8)])
def test_patience_with_lost_messages_is_bounded(mode, lost):
    contestant = FakeContestant(
        '--count',
        '20',
        '--mode',
        mode,
        '--servers',
        '2',
        '--drain',
        '0.1',
        skip=lambda sequence: sequence % 5 == 0,
    )
    rounds.run_round(contestant, progress.LineProgress())
    assert contestant.take_tally().lost == lost


def test_draining_is_told():
    told = []

    class Told(progress.LineProgress):
        def draining(self, missing):
            told.append(missing)

    contestant = FakeContestant(
        '--count',
        '10',
        '--mode',
        'cast',
        '--drain',
        '0.1',
        skip=lambda sequence: sequence == 3,
    )
    rounds.run_round(contestant, Told())
    assert set(told) == {2}


def test_results_of_rounds_are_kept_and_latencies_added_up():
    contestant = FakeContestant('--count', '10')
    for _ in range(2):
        rounds.run_round(contestant, progress.LineProgress())
    assert [result.operations for result in contestant.rounds] == [10, 10]
    assert len(contestant.latencies) == 20


def test_threads_that_never_come_back_are_failures(monkeypatch):
    monkeypatch.setattr(rounds, '_STUCK_SECONDS', 0.2)
    release, calls = threading.Event(), itertools.count()

    def operation(ident, payload):
        return next(calls) < 6 or release.wait()
    contestant = FakeContestant('--timeout', '0.1', operation=operation)
    with pytest.raises(errors.ThreadsStuck, match='2 threads'):
        rounds.run_round(contestant, progress.LineProgress())
    assert [
        thread.failures['ThreadsStuck'].count for thread in contestant.workers
    ] == [1, 1]
    release.set()
