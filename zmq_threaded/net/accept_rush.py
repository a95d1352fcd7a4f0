# SPDX-License-Identifier: Apache-2.0
"""Clients that come to many accept gates at once, as a fanout makes them.

To let a client in takes libzmq 50 us, but the thread that waits for it needs
the GIL again and again, for which it may have to wait 5 ms each time. So all
gates are opened together, and each is closed as soon as it is empty.
"""

import contextlib
import select
import time
from collections.abc import Sequence

from zmq_threaded import logs
from zmq_threaded.net import accept_gate

LOG = logs.get(__name__)

# Gates that are open at a time; seconds for them; and between two looks.
_TOGETHER, _LIMIT, _POLL = 64, 0.1, 0.0002


def let_in(gates: Sequence[accept_gate.AcceptGate]) -> None:
    """Let in those who wait at some gates, or most of them.

    There have to be descriptors in plenty; see accept_gate.is_plenty().

    :param gates: where somebody waits
    """
    for start in range(0, len(gates), _TOGETHER):
        try:
            _let_in(gates[start:start + _TOGETHER])
        except OSError as error:
            LOG.debug('Clients could not be let in together: %s', error)


def _let_in(gates):
    with contextlib.ExitStack() as everything:
        poll, opened = select.poll(), {}
        for gate in gates:
            stack = everything.enter_context(contextlib.ExitStack())
            if gate.open_to_libzmq(stack):
                opened[gate.fileno()] = stack
                poll.register(gate, select.POLLIN)
        _close_when_empty(poll, opened)


def _close_when_empty(poll, opened):
    """:param opened: dict of the descriptor of a queue to the ExitStack that
        closes its gate
    """
    deadline = time.monotonic() + _LIMIT
    while opened and time.monotonic() < deadline:
        busy = {fd for fd, _ in poll.poll(0)}
        for fd in opened.keys() - busy:
            poll.unregister(fd)
            opened.pop(fd).close()
        if opened:
            time.sleep(_POLL)
