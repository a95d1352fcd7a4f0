# SPDX-License-Identifier: Apache-2.0
"""Counting of lost, duplicated and unknown messages in the load tool."""

import threading

from hypothesis import given
from hypothesis import strategies as st
from load import ledger


def sent(count, failed=()):
    bitmap = ledger.Bitmap()
    for sequence in failed:
        bitmap.add(sequence)
    return ledger.Sent(count, bitmap)


def recorded(*arrivals):
    book = ledger.DeliveryLedger()
    for thread, sequence in arrivals:
        book.record(ledger.make_ident(thread, sequence))
    return book.export()


def test_ident_round_trip():
    assert ledger.split_ident(ledger.make_ident(31, 999_999)) == (31, 999_999)


def test_ident_fits_a_signed_64_bit_integer():
    assert ledger.make_ident(9_999, (1 << 40) - 1) < 1 << 63


def test_record_tells_first_from_repeated():
    book = ledger.DeliveryLedger()
    for thread in 2, 2, 3:
        book.record(ledger.make_ident(thread, 5))
    assert book.counts() == (2, 1)


def test_all_arrived_out_of_order():
    export = recorded((0, 2), (1, 0), (0, 0), (0, 1))
    tally = ledger.reconcile(
        {0: sent(3), 1: sent(1)}, [export], every_server=False
    )
    assert tally == ledger.Tally(delivered=4)


def test_missing_message_is_lost():
    tally = ledger.reconcile(
        {0: sent(4)}, [recorded((0, 0), (0, 1), (0, 3))], False
    )
    assert tally == ledger.Tally(delivered=3, lost=1)


def test_nothing_from_a_thread_is_all_lost():
    tally = ledger.reconcile(
        {0: sent(2), 7: sent(5)}, [recorded((0, 0), (0, 1))], False
    )
    assert tally == ledger.Tally(delivered=2, lost=5)


def test_twice_at_one_server_is_a_duplicate():
    tally = ledger.reconcile(
        {0: sent(2)}, [recorded((0, 0), (0, 1), (0, 0))], False
    )
    assert tally == ledger.Tally(delivered=2, duplicated=1)


def test_once_at_each_of_two_servers_is_a_duplicate_of_a_cast():
    exports = [recorded((0, 0), (0, 1)), recorded((0, 1), (0, 2))]
    tally = ledger.reconcile({0: sent(3)}, exports, every_server=False)
    assert tally == ledger.Tally(delivered=3, duplicated=1)


def test_once_at_each_server_is_right_for_a_fanout():
    exports = [recorded((0, 0), (0, 1)), recorded((0, 1), (0, 0))]
    assert ledger.reconcile({0: sent(2)}, exports, True) == ledger.Tally(
        delivered=4
    )


def test_fanout_that_missed_one_server_is_lost_there():
    exports = [recorded((0, 0), (0, 1)), recorded((0, 1), (0, 1))]
    tally = ledger.reconcile({0: sent(2)}, exports, every_server=True)
    assert tally == ledger.Tally(delivered=3, lost=1, duplicated=1)


def test_failed_operation_may_or_may_not_have_arrived():
    export = recorded((0, 0), (0, 2))
    tally = ledger.reconcile(
        {0: sent(4, failed=[2, 3])}, [export], every_server=False
    )
    assert tally == ledger.Tally(delivered=2, lost=1)


def test_what_was_never_sent_is_told_apart():
    export = recorded((0, 0), (0, 600), (9, 0))
    tally = ledger.reconcile({0: sent(1)}, [export], every_server=False)
    assert tally == ledger.Tally(delivered=1, never_sent=2)


def test_nothing_sent_nothing_arrived():
    assert (
        ledger.reconcile({0: sent(0)}, [recorded()], False) == ledger.Tally()
    )


def test_records_of_many_threads_at_once_are_all_kept():
    book = ledger.DeliveryLedger()

    def record():
        for sequence in range(2000):
            book.record(ledger.make_ident(0, sequence))
    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert book.counts() == (2000, 6000)


@given(st.lists(st.integers(0, 5000)))
def test_bitmap_is_a_set(sequences):
    bitmap, model = ledger.Bitmap(), set()
    for sequence in sequences:
        assert bitmap.add(sequence) == (sequence not in model)
        model.add(sequence)
    assert bitmap.to_int() == sum(1 << sequence for sequence in model)


@given(count=st.integers(0, 40), servers=st.integers(1, 3), data=st.data(),
       every_server=st.booleans())
def test_reconcile_agrees_with_counting_by_hand(
    count, servers, data, every_server
):
    sequences = st.integers(0, 45)
    arrivals = [
        data.draw(st.lists(sequences, max_size=60)) for _ in range(servers)
    ]
    failed = data.draw(
        st.sets(st.integers(0, max(0, count - 1)), max_size=count)
    )
    due = set(range(count)) - failed
    exports = [
        recorded(*((0, sequence) for sequence in each)) for each in arrivals
    ]
    tally = ledger.reconcile({0: sent(count, failed)}, exports, every_server)

    anywhere = set().union(*arrivals)
    known = [
        [sequence for sequence in each if sequence < count]
        for each in arrivals
    ]
    strangers = sum(len(each) - len(set(each)) for each in arrivals) - sum(
        len(each) - len(set(each)) for each in known)
    assert tally.never_sent == len(
        {sequence for sequence in anywhere if sequence >= count}
    )
    if every_server:
        assert tally.lost == sum(len(due - set(each)) for each in arrivals)
        assert tally.delivered == sum(len(set(each)) for each in known)
    else:
        assert tally.lost == len(due - anywhere)
        assert tally.delivered == len(set().union(*known))
    assert tally.delivered + tally.duplicated - strangers == sum(
        map(len, known)
    )
