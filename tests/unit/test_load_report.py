# SPDX-License-Identifier: Apache-2.0
"""The report of the load tool, from results made up here."""

import io
import json
import sys

import pytest
from load import latency
from load import ledger
from load import options
from load import report
from load import rounds
from load import tables
from load import worker

PARSED = options.parse(['fast=zmq://', 'slow=zmq://', '--rounds', '2'])


def result(per_second, milliseconds):
    latencies = latency.Latencies()
    latencies.record([milliseconds / 1000] * 10)
    sample = {'rss_bytes': 10_000_000, 'fds': 5, 'cpu_seconds': 1.0}
    later = {'rss_bytes': 11_000_000, 'fds': 6, 'cpu_seconds': 1.5}
    return rounds.RoundResult(
        operations=per_second,
        seconds=1.0,
        delivered=per_second,
        delivery_seconds=2.0,
        latency_ms=latencies.summary_ms(),
        latency_records_bytes=80,
        client_before=sample,
        client_after=later,
        servers_before=[sample],
        servers_after=[later],
    )


_NOTHING = ledger.Tally()


class Result:
    """What the report reads of a contestant."""

    trouble = None
    workers = ()

    def __init__(self, name, results, tally=_NOTHING, failures=()):
        self.name, self.url, self.rounds, self.tally = (
            name,
            'zmq://u:p@h/',
            results,
            tally,
        )
        self.latencies = latency.Latencies()
        self.latencies.record([0.001] * bool(results))
        self._failures = dict(failures)

    def wrong(self):
        return 0

    def failures(self):
        return self._failures

    def sound(self):
        return not (self.tally.lost or self._failures)


def make(**second):
    first = Result('fast', [result(300, 1), result(100, 2)])
    other = Result('slow', [result(100, 4), result(100, 4)], **second)
    return report.make_report([first, other], PARSED)


def test_rates_are_medians_with_their_range():
    entry = make()['contestants'][0]
    assert entry['ops_per_second'] == {'median': 200, 'min': 100, 'max': 300}
    assert entry['delivered_per_second']['median'] == 100


def test_ratios_compare_the_same_rounds():
    ratio = make()['contestants'][0]['ratio']
    assert ratio['ops_per_second'] == pytest.approx(2)
    assert ratio['p50'] == pytest.approx(0.375, rel=0.01)
    assert make()['contestants'][1]['ratio']['ops_per_second'] == 1


def test_cpu_per_operation():
    cpu = make()['contestants'][0]['cpu_seconds_per_operation']
    assert cpu == {'client': 1.0 / 400, 'servers': 1.0 / 400}


def test_lost_messages_make_it_unsound_and_show():
    made = make(tally=ledger.Tally(delivered=7, lost=3, duplicated=2))
    assert not made['sound']
    entry = made['contestants'][1]
    assert (entry['delivered'], entry['lost'], entry['duplicated']) == (
        7,
        3,
        2,
    )
    assert 'NOT SOUND' in printed(made)


def test_failures_are_shown_with_an_example():
    failures = {
        'MessagingTimeout': worker.Failures(4, 'MessagingTimeout: no reply')
    }
    made = make(failures=failures)
    assert made['contestants'][1]['failed'] == 4
    assert (
        '4 x MessagingTimeout, such as: MessagingTimeout: no reply'
        in printed(made)
    )


def test_report_without_any_round_can_be_printed():
    made = report.make_report([Result('fast', []), Result('slow', [])], PARSED)
    json.dumps(made)
    assert 'fast' in printed(made)


def test_password_is_nowhere():
    made = make()
    assert 'u:p' not in json.dumps(made) + printed(made)


def test_footer_tells_memory_and_files():
    assert 'RSS 10.0 -> 11.0 MB, 5 -> 6 fds' in printed(make())


def test_names_that_look_like_markup_are_printed_as_they_are():
    made = make()
    made['contestants'][0]['name'] = 'zmq://[fe80::1]/'
    assert 'zmq://[fe80::1]/' in printed(made)


def printed(made):
    stream = io.StringIO()
    tables.print_report(made, stream)
    return stream.getvalue()


def test_costs_of_an_operation_are_those_of_each_party():
    made = make()['contestants'][0]['cost_per_operation']
    assert made['client']['cpu_seconds'] == 1.0 / 400
    # These samples know nothing of switches, and nobody of a broker.
    assert made['servers']['voluntary_switches'] is None
    assert set(made['broker'].values()) == {None}


def test_costs_of_a_broker_are_in_the_table(capsys):
    one = result(100, 1)
    for moment, count in ('before', 10), ('after', 510):
        for who in 'client', 'broker':
            sample = {'rss_bytes': 1, 'fds': 1, 'cpu_seconds': count / 1000,
                      'voluntary_switches': count, 'involuntary_switches': 0}
            setattr(one, f'{who}_{moment}', sample)
    made = report.make_report(
        [Result('fast', [one]), Result('slow', [one])], PARSED
    )
    assert made['contestants'][0]['cost_per_operation']['broker'] == {
        'cpu_seconds': 0.005,
        'voluntary_switches': 5.0,
        'involuntary_switches': 0.0,
    }
    tables.print_report(made, sys.stdout)
    assert '5,000' in capsys.readouterr().out
