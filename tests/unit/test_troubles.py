# SPDX-License-Identifier: Apache-2.0
"""What an error of the registry says to an operator."""

import pytest

from zmq_threaded.registry import troubles

REFUSED = "TimeoutError('Timeout connecting to server')"


@pytest.mark.parametrize('said, told', [
    ('Error 111 connecting to a:1. Connection refused.',
     'Error 111 connecting to a:1. Connection refused.'),
    (f"No master found for 'ours' : <Redis(1)> - {REFUSED}, "
     f'<Redis(2)> - {REFUSED}, <Redis(3)> - {REFUSED}',
     f"No master found for 'ours' : - {REFUSED}"),
    ('the server is away: the server is away', 'the server is away'),
    ('a, b, a, b', 'a, b, a, b'),
])
def test_a_cause_is_not_said_twice(said, told):
    assert troubles.text(ValueError(said)) == f'ValueError: {told}'
