# SPDX-License-Identifier: Apache-2.0
"""What the broker behind a bridge has in its queues."""

import contextlib
import queue
import time
from collections.abc import Iterable
from typing import Any

from zmq_threaded import mailbox
from zmq_threaded import threads
from zmq_threaded.bridge import other as others
from zmq_threaded.bridge import other_listener

# (messages, consumers) by the name of a queue that the broker has.
Queues = dict[str, tuple[int, int]]
_LIMIT = 5.0


class CannotAsk(Exception):
    """The broker does not say; the text says why."""


def ask(conf: Any, url: str, names: Iterable[str]) -> Queues:
    """Ask the broker for these queues.

    :param conf: oslo.config ConfigOpts
    :param url: of rpc_zmq_bridge
    :raises: CannotAsk, errors.ConfigurationError
    """
    other = others.Other(conf, url, None, None)
    driver: Any = other.current()
    if not hasattr(driver, '_get_connection'):
        raise CannotAsk(f'{other} is no broker that can be asked')
    why = other.why_unreachable()
    if why:
        raise CannotAsk(why)
    answer = mailbox.Answers()
    # The rabbit driver tries for ever.
    threads.started(_ask, other_listener.THREAD, driver, list(names), answer)
    try:
        found = answer.get(time.monotonic() + _LIMIT)
    except queue.Empty:
        raise CannotAsk(f'no answer in {_LIMIT:.0f} s') from None
    if isinstance(found, Exception):
        raise CannotAsk(f'{type(found).__name__}: {found}')
    return found


def _ask(driver, names, answer):
    try:
        # One for listening has no thread that reads from it.
        with driver._get_connection('listen') as context:
            answer.put(_look(context.connection.connection, names))
            context.connection.close()
    except Exception as error:
        answer.put(error)


def _look(connection, names):
    found: Queues = {}
    for name in names:
        # The answer that there is none ends the channel.
        with contextlib.suppress(connection.channel_errors):
            channel = connection.channel()
            said = channel.queue_declare(name, passive=True)
            found[name] = said.message_count, said.consumer_count
            channel.close()
    return found
