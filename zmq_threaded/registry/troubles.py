# SPDX-License-Identifier: Apache-2.0
"""What an error of an engine says to an operator, in one line (pure)."""

import re

import tooz

from zmq_threaded.registry import folders

_LONGEST = 400
_OBJECT = re.compile('<[^<>]*>')
# Where an error lists several causes.
_PARTS, _BETWEEN = re.compile('(?<=[,;:]) '), ' ,;:-.'
_SHORTEST_CAUSE = 12


class Unanswered(Exception):
    """No answer yet; the operation goes on.

    :param late: what an earlier operation ended with that was not waited for
        to its end, as text; '' for nothing

    Thread: any.
    """

    def __init__(self, text: str, late: str = '') -> None:
        super().__init__(f'{text}; the client library says: {late}'
                         if late else text)


def text(error: BaseException) -> str:
    """The name and the text of an error. Where tooz has only wrapped an
    error, those of its cause; of a file, also its path and whose it is.
    """
    error = _root(error)
    said = (folders.explained(error)
            if isinstance(error, OSError) and error.filename is not None
            else str(error))
    said = _without_repeats(_without_objects(said))
    # One line that a terminal shows as it is.
    said = ''.join(each if each.isprintable() else ' ' for each in said)
    return f'{type(error).__name__}: {said[:_LONGEST]}'


def _without_objects(said: str) -> str:
    """The clients of redis and etcd say what their objects are made of."""
    while _OBJECT.search(said):
        said = _OBJECT.sub('', said)
    return ' '.join(said.split())


def _without_repeats(said: str) -> str:
    """Each of several sentinels has the same to say, and so has a wrapped
    error.
    """
    seen: set[str] = set()
    kept = []
    for part in _PARTS.split(said):
        words = part.strip(_BETWEEN)
        if words not in seen or len(words) < _SHORTEST_CAUSE:
            kept.append(part)
            seen.add(words)
    return ' '.join(kept).rstrip(',;:')


def _root(error: BaseException) -> BaseException:
    if isinstance(error, tooz.ToozError) and error.__cause__ is not None:
        return _root(error.__cause__)
    cause = error.__cause__ or error.__context__
    return error if str(error) or cause is None else _root(cause)
