# SPDX-License-Identifier: Apache-2.0
"""service.saturation"""

import pytest

from zmq_threaded.service import saturation


@pytest.fixture
def tick():
    made = saturation.Saturation('server a on h (instance 1) of topic',
                                 lambda: 990, 1000)

    now = 1000.0

    def run(seconds, was_full):
        nonlocal now
        for _ in range(seconds):
            made.tick(now, was_full, 64)
            now += 1
    return run


def levels(caplog):
    return [record.levelname for record in caplog.records]


def test_it_warns_after_a_while_and_once_a_minute(tick, caplog):
    caplog.set_level('INFO')
    tick(10, True)
    assert not caplog.records
    tick(1, True)
    assert levels(caplog) == ['WARNING']
    for word in ('server a on h', 'topic', '990', '1000', '64 workers',
                 'executor_thread_pool_size', 'more servers'):
        assert word in caplog.text
    tick(59, True)
    assert levels(caplog) == ['WARNING']
    tick(61, True)
    assert levels(caplog) == 3 * ['WARNING']
    tick(5, False)
    assert levels(caplog) == [*3 * ['WARNING'], 'INFO']
    assert 'no longer saturated' in caplog.text


def test_a_burst_is_nothing_to_tell(tick, caplog):
    caplog.set_level('INFO')
    for _ in range(5):
        tick(9, True)
        tick(1, False)
    assert not caplog.records
