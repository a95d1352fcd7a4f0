# SPDX-License-Identifier: Apache-2.0
"""What the broker behind a bridge has in its queues, as far as AMQP tells.

AMQP tells the messages that are ready, and the consumers. It does not tell
the messages that a listener was given and has not acknowledged. Those can be
many: the rabbit driver takes all that is there. The tool of the broker tells
them.
"""

import contextlib
import dataclasses
import queue
import shlex
import time
from collections.abc import Iterable
from typing import Any

from zmq_threaded import mailbox
from zmq_threaded import threads
from zmq_threaded.bridge import other as others
from zmq_threaded.bridge import other_listener

_LIMIT = 5.0


@dataclasses.dataclass(frozen=True)
class Queue:
    """A queue of the broker.

    :ivar ready: messages that no listener was given
    """

    ready: int
    consumers: int


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the broker said.

    :ivar queues: those that the broker has, by name
    """

    queues: dict[str, Queue]
    virtual_host: str


class CannotAsk(Exception):
    """The broker does not say; the text says why."""


def ask(conf: Any, url: str, names: Iterable[str]) -> Answer:
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


def command(answer: Answer) -> str:
    """The command that counts all messages of each queue, with those that
    are not acknowledged.
    """
    # It shows those of `/` if it is not told where, and none of ours.
    where = ('' if answer.virtual_host == '/'
             else f'-p {shlex.quote(answer.virtual_host)} ')
    return f'rabbitmqctl list_queues {where}name messages'


def _ask(driver, names, answer):
    try:
        # One for listening has no thread that reads from it.
        with driver._get_connection('listen') as context:
            answer.put(_look(context.connection.connection, names))
            context.connection.close()
    except Exception as error:
        answer.put(error)


def _look(connection, names):
    found: dict[str, Queue] = {}
    for name in names:
        # The answer that there is none ends the channel.
        with contextlib.suppress(connection.channel_errors):
            channel = connection.channel()
            said = channel.queue_declare(name, passive=True)
            found[name] = Queue(said.message_count, said.consumer_count)
            channel.close()
    return Answer(found, connection.virtual_host)
