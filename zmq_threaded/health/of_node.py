# SPDX-License-Identifier: Apache-2.0
"""Whether the processes of this node are well, by what they have published
(pure, but for a look at /proc).
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from zmq_threaded.registry import stamps
from zmq_threaded.status import fact_files
from zmq_threaded.status import processes
from zmq_threaded.status import unwritten

# What lies with others, or with the disk: no reason to restart the process.
OF_OTHERS = ('cannot_reach', 'unacknowledged', 'unanswered', unwritten.KIND)
_OUTBOX_SILENT = 10.0
_SEE_IT = ('see at what its threads stand (a Guru Meditation Report, or '
           'py-spy dump --pid), and restart it if they do not go on')


@dataclasses.dataclass(frozen=True)
class Trouble:
    """One thing that is wrong with a process.

    :ivar text: what, as a sentence without a full stop
    :ivar remedy: what to do, likewise
    :ivar is_its_own: it is a reason to call the process unwell

    Thread: any.
    """

    text: str
    remedy: str
    is_its_own: bool = True


@dataclasses.dataclass(frozen=True)
class Health:
    """One driver of one process, and what is wrong with it.

    :ivar process: as its facts say it
    :ivar services: how many it has
    :ivar age: seconds since it last said anything; inf if that was before
        this boot, None if that is not known
    :ivar troubles: what is wrong

    Thread: any.
    """

    process: dict[str, Any]
    services: int
    age: float | None
    troubles: tuple[Trouble, ...]

    def is_well(self) -> bool:
        """Whether nothing is wrong that is its own."""
        return not any(each.is_its_own for each in self.troubles)


def chosen(documents: Iterable[dict[str, Any]], wanted: str | None
           ) -> list[dict[str, Any]]:
    """The documents of the processes that count.

    One that is gone does not count if another one of its name has taken its
    place.

    :param wanted: the name of a program, or a pid; None for all processes
    """
    named = [each for each in documents if _is_wanted(each['process'],
                                                      wanted)]
    alive = {each['process']['name'] for each in named
             if _state(each) != processes.GONE}
    return [each for each in named if _state(each) != processes.GONE
            or each['process']['name'] not in alive]


def _is_wanted(process, wanted):
    return wanted is None or wanted in (process['name'], str(process['pid']))


def _state(document):
    return processes.state(document['process'])


def health(document: dict[str, Any], oldest: float) -> Health:
    """Whether a process is well.

    :param document: its facts
    :param oldest: seconds for which a message may be unacknowledged
    """
    age = document.get('silent', stamps.age_of_text(document['stamp']))
    troubles = [*_life(document, age), *_local(document),
                *_unacknowledged(document, oldest),
                *(Trouble(each['text'], each['remedy'],
                          each['kind'] not in OF_OTHERS)
                  for each in document['findings'])]
    return Health(document['process'], len(document['services']), age,
                  tuple(troubles))


def _life(document, age):
    process, state = document['process'], _state(document)
    if state == processes.GONE:
        yield Trouble('It has ended without taking leave: it was killed, or '
                      'it crashed', 'see in its log why, and start it again')
    elif state == processes.STOPPED:
        yield Trouble('It is stopped (SIGSTOP, or a debugger)',
                      f'let it go on: kill -CONT {process["pid"]}')
    elif age is not None and age > fact_files.limit(document):
        said = ('in this boot' if math.isinf(age)
                else f'for {age:.0f} s, and says something every '
                     f'{document["every"]:.0f} s else')
        yield Trouble(f'It has said nothing {said}: its registry thread, or '
                      'all of it, stands still', _SEE_IT)


def _local(document):
    receiver = document['receiver']
    if receiver['expected'] and not receiver['there']:
        yield Trouble(
            f'The receiver of this node ({receiver["endpoint"]}) is not '
            'there, so nobody can reach the services of this process',
            'start it: oslo-messaging-zmq-receiver --config-file <the file '
            'of this service>')
    if document['outbox_silent'] > _OUTBOX_SILENT:
        yield Trouble(f'Its outbox thread has not answered for '
                      f'{document["outbox_silent"]:.0f} s', _SEE_IT)


def _unacknowledged(document, oldest):
    # What a journal keeps for a listener is no trouble of this process.
    old = [each for each in document['pending']
           if each['oldest'] > oldest and not each.get('kept')]
    if old:
        first = max(old, key=lambda each: each['oldest'])
        where = ', '.join(filter(None, (first['server'], first['topic'])))
        yield Trouble(
            f'{sum(each["count"] for each in old)} messages are not '
            f'acknowledged, the oldest for {first["oldest"]:.0f} s (for '
            f'{where or "an unknown topic"})',
            'see whether somebody listens there, and is well: '
            'oslo-messaging-zmq status')
