# SPDX-License-Identifier: Apache-2.0
"""Asks services of this process whether they hear, as their clients would."""

import enum
import time
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any
from typing import NamedTuple

from zmq_threaded import endpoints
from zmq_threaded import logs
from zmq_threaded import timings
from zmq_threaded import wire
from zmq_threaded.client import opening
from zmq_threaded.client import reasons
from zmq_threaded.net import addresses
from zmq_threaded.net import descriptors
from zmq_threaded.net import multiparts
from zmq_threaded.net import resolver
from zmq_threaded.registry import record

LOG = logs.get(__name__)

# Seconds. A service that is not full answers a QUERY at once. One that did not
# is asked with more patience, for the machine may be overloaded.
_ANSWER, _PATIENT = timings.ANSWER, 3 * timings.ANSWER
_CONNECT = 1.0
_SLICE = 0.1
# A message that nobody has: the answer is that it is unknown.
_NO_MESSAGE = bytes(wire.ID_SIZE)


class Answer(enum.Enum):
    """What came of asking a service at an endpoint.

    Thread: any.
    """

    HEARD = 'it answered'
    UNRESOLVED = 'the name leads nowhere'
    UNREACHABLE = 'there is no connection'
    REFUSED = 'the receiver does not pass messages on to it'
    SILENT = 'there was no answer'
    UNTRIED = 'there were no means to ask'


class Finding(NamedTuple):
    """An Answer, and more about it in words.

    Thread: any.
    """

    answer: Answer
    why: str = ''


class Prober:
    """Opens a connection to an endpoint of this process, as a client does,
    and sends a QUERY to each of the services behind the endpoint. Every
    version of a service and of a receiver answers a QUERY.

    :param socket_factory: sockets.Sockets
    :param is_stopping: says whether to end early

    Thread: self-check.
    """

    def __init__(self, socket_factory: Any,
                 is_stopping: Callable[[], bool]) -> None:
        self._sockets = socket_factory
        self._opening = opening.Opening(socket_factory)
        self._is_stopping = is_stopping

    def ask(self, endpoint: str, instances: Iterable[record.Instance],
            is_patient: bool = False) -> dict[bytes, Finding]:
        """Ask some services at one endpoint, which they share.

        :param is_patient: one of them gave no answer when it was asked last
        :returns: dict of the id of an instance to what came of it; those that
            there was no time for are missing
        """
        instances = list(instances)
        try:
            socket = self._open(endpoint, instances[0].key)
        except (opening.Unreachable, resolver.Unresolved,
                endpoints.BadEndpoint, descriptors.Short) as problem:
            found = Finding(_kind(endpoint, problem), str(problem))
            return {each.id: found for each in instances}
        try:
            return self._ask_all(socket, instances,
                                 _PATIENT if is_patient else _ANSWER)
        except Exception as error:
            # Of libzmq: the driver is being closed, or is out of memory.
            return {each.id: Finding(Answer.UNTRIED, str(error))
                    for each in instances}
        finally:
            self._sockets.close(socket, linger=0)

    def _open(self, endpoint, key):
        deadline = time.monotonic() + _CONNECT
        if not endpoint.startswith('ipc://'):
            # First, for Opening tells of both problems in the same words.
            addresses.of_process().wait(endpoint, deadline)
        return self._opening.open((endpoint,), deadline + _CONNECT, key)[1]

    def _ask_all(self, socket, instances, limit):
        found = {}
        for instance in instances:
            if self._is_stopping():
                break
            found[instance.id] = self._ask_one(socket, instance, limit)
            if found[instance.id].answer is Answer.SILENT:
                break   # the others get their turn soon
        return found

    def _ask_one(self, socket, instance, limit):
        question = wire.encode_query(instance.id, (_NO_MESSAGE,))
        if not socket.poll(int(_CONNECT * 1000), multiparts.POLLOUT):
            return Finding(Answer.SILENT, 'the connection was lost')
        multiparts.send(socket, [question])
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline and not self._is_stopping():
            if socket.poll(int(_SLICE * 1000), multiparts.POLLIN):
                return _read(multiparts.receive(socket)[0])
        if self._is_stopping():
            return Finding(Answer.UNTRIED)
        return Finding(Answer.SILENT, f'no answer within {limit} s')


def _kind(endpoint, problem):
    if isinstance(problem, descriptors.Short):
        return Answer.UNTRIED
    return (Answer.UNRESOLVED if isinstance(problem, resolver.Unresolved)
            else Answer.UNREACHABLE)


def _read(frame):
    """What the answer to a QUERY says."""
    try:
        message = wire.decode(frame)
        if message.kind != wire.NACK:
            return Finding(Answer.HEARD)
        reason, text = wire.nack_reason(message)
    except ValueError as error:
        # A service of another version refuses it by a word that is its own.
        LOG.debug('The answer to a question to oneself: %s', error)
        return Finding(Answer.HEARD)
    if reason in (wire.STOPPING, wire.BUSY, wire.VERSION):
        return Finding(Answer.HEARD)
    return Finding(Answer.REFUSED, reasons.refusal(reason, text))
