# SPDX-License-Identifier: Apache-2.0
"""The age of records by the clock that all processes of a machine share."""

import math
import subprocess
import sys

import pytest

from zmq_threaded.registry import stamps


def shifted(**parts):
    boot, namespace, time = stamps._STAMP.unpack(stamps.now())
    return stamps._STAMP.pack(
        parts.get('boot', boot), parts.get('namespace', namespace),
        time - int(parts.get('seconds', 0) * 1e9))


def test_a_new_stamp_has_no_age():
    assert len(stamps.now()) == stamps.SIZE
    assert 0 <= stamps.age(stamps.now()) < 5


def test_another_process_has_the_same_clock():
    made = subprocess.run(
        [sys.executable, '-c', 'from zmq_threaded.registry import stamps;'
         'print(stamps.now().hex())'], capture_output=True, text=True)
    assert 0 <= stamps.age(bytes.fromhex(made.stdout)) < 20


def test_age_in_seconds():
    # The machine may have been up for less.
    old = shifted(seconds=0.5)
    assert 0.5 <= stamps.age(old) < 5


def test_a_stamp_of_an_earlier_boot_is_old():
    assert stamps.age(shifted(boot=bytes(16))) == math.inf


@pytest.mark.parametrize('stamp', [None, b'', 'text', 5, 31 * b'x'])
def test_what_is_no_stamp_says_nothing(stamp):
    assert stamps.age(stamp) is None


@pytest.mark.parametrize('parts', [{'namespace': 1}, {'seconds': -3600}])
def test_stamp_of_another_clock_says_nothing(parts):
    assert stamps.age(shifted(**parts)) is None
