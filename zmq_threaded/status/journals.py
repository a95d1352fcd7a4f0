# SPDX-License-Identifier: Apache-2.0
"""The journals that this node can see, and what is wrong with them."""

import os
import time
from collections.abc import Iterable
from typing import Any

from zmq_threaded.journal import survey
from zmq_threaded.status import cloud as clouds
from zmq_threaded.status import problem

# Seconds: within which somebody adopts a journal if anybody is there; and for
# which messages may wait without an owner.
_ADOPTED_WITHIN, _POLL, _OLD = 5.0, 0.5, 10.0


def look(cloud: clouds.Cloud, directory: str) -> None:
    """See which journals there are. If an owner has died, wait a little for
    the next one.

    :param directory: in which they are
    """
    cloud.journals_dir = directory
    deadline = time.monotonic() + _ADOPTED_WITHIN
    try:
        cloud.journals = survey.survey(directory)
        while (any(map(_has_lost_its_owner, cloud.journals))
               and time.monotonic() < deadline):
            time.sleep(_POLL)
            cloud.journals = survey.survey(directory)
    except OSError as error:
        cloud.journals_trouble = error.strerror or str(error)


def _has_lost_its_owner(found: survey.Found) -> bool:
    return (found.owner is None and found.count > 0 and found.oldest > _OLD
            and not found.problem)


def rows(cloud: clouds.Cloud) -> list[dict[str, Any]]:
    """A row for each journal."""
    return [{'journal': os.path.basename(each.path), 'path': each.path,
             'owner': each.shown_owner, 'alive': each.is_alive,
             'messages': each.count, 'bytes': each.bytes,
             'oldest': each.oldest, 'problem': each.problem}
            for each in cloud.journals]


def problems(cloud: clouds.Cloud) -> Iterable[problem.Problem]:
    """What is wrong with journals."""
    if cloud.journals_trouble:
        yield problem.Problem(
            'journals', cloud.journals_dir,
            f'The directory of the journals, {cloud.journals_dir}, cannot be '
            f'read: {cloud.journals_trouble}',
            'see to its permissions, or ask as the user of the services')
    for each in cloud.journals:
        if each.problem and each.owner is None:
            yield problem.Problem(
                'journal_unreadable', each.path,
                f'The journal {each.path} has no owner that is known, and '
                f'cannot be read: {each.problem}',
                'see to its permissions, or ask as the user of the services; '
                'a process that may read and write it sends what is in it')
        elif _has_lost_its_owner(each):
            yield problem.Problem(
                'journal_without_owner', each.path,
                f'The owner of the journal {each.path} has ended, and nobody '
                f'has adopted it: {each.count} messages wait in it, the '
                f'oldest for {each.oldest:.0f} s',
                'start a process with the same registry and directory that '
                'listens, or has rpc_zmq_custody; or drop the messages: '
                'oslo-messaging-zmq custody drop')
