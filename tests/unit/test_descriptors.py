# SPDX-License-Identifier: Apache-2.0
"""How many descriptors are kept back, and what is said of a shortage."""

import errno

import pytest

from zmq_threaded.net import descriptors
from zmq_threaded.registry import record


@pytest.mark.parametrize('limit,margin', [
    (60, 16), (100, 16), (256, 25), (1024, 102), (20000, 1024),
    (1 << 20, 1024)])
def test_a_tenth_is_kept_within_bounds(limit, margin):
    assert descriptors.margin(limit) == margin


@pytest.mark.parametrize('number,is_one', [
    (errno.EMFILE, True), (errno.ENFILE, True), (errno.ENOMEM, True),
    (errno.EACCES, False), (errno.EADDRINUSE, False)])
def test_what_is_a_shortage(number, is_one):
    assert descriptors.is_shortage(OSError(number, '')) is is_one


def test_zeromq_sockets_may_be_short_though_descriptors_are_not():
    short = descriptors.short(OSError(errno.EMFILE, ''))
    assert 'ZeroMQ sockets' in str(short)


def test_to_ask_for_too_many_says_what_to_do():
    with pytest.raises(descriptors.Short, match='raise LimitNOFILE'):
        descriptors.demand(1 << 40)


def test_a_record_asks_to_be_sparing():
    instance = record.Instance(bytes(16), ('ipc:///a',), sparing=True)
    assert record.decode(record.encode([instance])) == [instance]
    fields, = record.encode([record.Instance(bytes(16), ('ipc:///a',))])[
        'instances']
    assert 'sparing' not in fields
