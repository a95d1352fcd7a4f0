# SPDX-License-Identifier: Apache-2.0
"""What the load tool counts of processes."""

import os
import subprocess
import sys
import time

from load import brokers
from load import resources


def test_both_ways_to_count_agree():
    before = resources.sample(), resources.sample_of(os.getpid())
    until = time.process_time() + 0.3
    while time.process_time() < until:
        time.sleep(0)
    for _ in range(50):
        time.sleep(0.001)
    after = resources.sample(), resources.sample_of(os.getpid())
    own, other = ({name: later[name] - sooner[name] for name in before[1]}
                  for sooner, later in zip(before, after))
    assert own['cpu_seconds'] >= 0.3 and own['voluntary_switches'] >= 50
    assert abs(own['cpu_seconds'] - other['cpu_seconds']) < 0.1
    assert abs(own['voluntary_switches'] - other['voluntary_switches']) < 20


def test_a_process_that_is_gone_costs_nothing():
    gone = subprocess.Popen([sys.executable, '-c', ''])
    gone.wait()
    assert resources.sample_of(gone.pid) is None


def test_only_rabbit_has_a_broker(monkeypatch):
    monkeypatch.setitem(
        brokers._PROGRAMS, 'rabbit', (brokers._name(os.getpid()),)
    )
    assert brokers.Broker('zmq://').sample() is None
    assert brokers.Broker('raw').sample() is None
    assert brokers.Broker('rabbit://h/').sample()['cpu_seconds'] > 0
