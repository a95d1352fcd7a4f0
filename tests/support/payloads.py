# SPDX-License-Identifier: Apache-2.0
"""Values of many kinds, as contexts, messages and results hold them."""

import collections
import datetime
import enum


class DictLike:
    """Has items(), as OpenStack's objects have."""

    def __init__(self, content):
        self._content = content

    def items(self):
        return self._content.items()

    def __repr__(self):
        return f'DictLike({self._content})'


class Level(enum.IntEnum):
    HIGH = 3


Point = collections.namedtuple('Point', 'x y')
WHEN = datetime.datetime(2026, 11, 21, 1, 2, 3, 4)


def nested(depth):
    """A list within a list, that many deep."""
    value = []
    for _ in range(depth):
        value = [value]
    return value


def circle():
    """A list that holds itself."""
    value = []
    value.append(value)
    return value
