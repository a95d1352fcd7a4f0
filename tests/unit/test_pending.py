# SPDX-License-Identifier: Apache-2.0
"""When the outbox is asked what it holds."""

import types

import pytest

from zmq_threaded.status import collector


@pytest.mark.parametrize('count, is_adopting, is_asked', [
    (0, False, False), (1, False, True), (0, True, True)])
def test_it_is_asked_for_what_was_adopted_too(count, is_adopting, is_asked):
    asked = []
    pending = collector.Pending(types.SimpleNamespace(
        pending=lambda: count, ask_pending=asked.append,
        journals=types.SimpleNamespace(is_adopting=lambda: is_adopting)))
    pending.ask()
    assert bool(asked) == is_asked
