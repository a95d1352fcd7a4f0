# SPDX-License-Identifier: Apache-2.0
"""One question to a registry that may hang, for who waits no longer than so
many seconds.
"""

import queue
import time
from collections.abc import Callable
from typing import Any

from zmq_threaded import mailbox
from zmq_threaded import threads


def ask(store: Any, question: Callable[[], Any], limit: float
        ) -> tuple[Any, str]:
    """Ask in a thread of its own.

    :param store: as engines.opened() returns it; its waits are cut short
        when the time is over
    :param question: calls the store, and may raise any Exception
    :param limit: seconds
    :returns: the answer, and as text why there is none
    """
    answers = mailbox.Answers()

    def answer():
        try:
            answers.put((question(), ''))
        except Exception as error:
            answers.put((None, store.explain(error)))
    threads.started(answer, threads.REGISTRY)
    try:
        return answers.get(time.monotonic() + limit)
    except queue.Empty:
        store.hurry()
        return None, f'{store.place}: no answer within {limit:.1f} s'
