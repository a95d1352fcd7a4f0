# SPDX-License-Identifier: Apache-2.0
"""Nothing is lost between the plain run and the soak."""

import itertools
import os

import pytest

from tests.support import soaks

_NAMES, _VALUES = ['a', 'b', 'c', 'd'], ['x', 'y', 'z']


def _pairs(shift):
    made = soaks.pairs([pytest.param(name, marks=pytest.mark.xdist_group(name))
                        for name in _NAMES], _VALUES, shift)
    return [(param.values, {mark.name for mark in param.marks})
            for param in made]


@pytest.mark.parametrize('shift', range(4))
def test_each_pair_is_there_once_and_each_name_in_the_plain_run(shift):
    pairs = _pairs(shift)
    assert [values for values, _ in pairs] == list(
        itertools.product(_NAMES, _VALUES))
    assert all('xdist_group' in marks for _, marks in pairs)
    plain = [values for values, marks in pairs if 'soak' not in marks]
    assert [name for name, _ in plain] == _NAMES
    assert {value for _, value in plain} == set(_VALUES)


def test_the_environment_replaces_both_sizes(monkeypatch):
    assert soaks.sizes(1, 2, 'ZMQ_CHAOS_NOT_SET')[0] == 1
    monkeypatch.setenv('ZMQ_CHAOS_SECONDS', '600')
    assert soaks.sizes(1, 2, 'ZMQ_CHAOS_SECONDS') == [600]


@pytest.mark.skipif('PYTEST_XDIST_WORKER' not in os.environ,
                    reason='all tests run in one process')
@pytest.mark.xdist_group('a')
def test_tests_of_a_group_are_kept_together(request):
    assert request.node.nodeid.endswith('@a')
