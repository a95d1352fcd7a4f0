# SPDX-License-Identifier: Apache-2.0
"""What a server process of the load tool counts."""

from load import ledger
from load import payload
from load import receiver

POOL = payload.make_pool(64)


def accepting(*arrivals):
    receiving = receiver.Receiver('token', 64)
    for arrival in arrivals:
        receiving.accept(*arrival)
    return receiving.status()


def test_right_message_is_delivered():
    status = accepting((ledger.make_ident(0, 5), 'token', POOL[5]))
    assert (status['delivered'], status['wrong']) == (1, 0)
    assert status['last_delivery'] is not None


def test_message_of_another_run_is_wrong():
    status = accepting((ledger.make_ident(0, 5), 'other', POOL[5]))
    assert (status['delivered'], status['wrong'], status['last_delivery']) == (
        0,
        1,
        None,
    )


def test_damaged_payload_is_wrong():
    status = accepting((ledger.make_ident(0, 5), 'token', POOL[5][:-1] + '!'))
    assert (status['delivered'], status['wrong']) == (0, 1)


def test_payload_of_another_operation_is_wrong():
    assert accepting((ledger.make_ident(0, 5), 'token', POOL[6]))['wrong'] == 1


def test_repeated_message_is_a_duplicate():
    arrival = (ledger.make_ident(0, 5), 'token', POOL[5])
    status = accepting(arrival, arrival)
    assert (status['delivered'], status['duplicated']) == (1, 1)


def test_probes_are_counted_apart():
    receiving = receiver.Receiver('token', 64)
    receiving.probed()
    assert receiving.status()['probes'] == 1
    assert receiving.status()['delivered'] == 0
