# SPDX-License-Identifier: Apache-2.0
"""Which fanouts reached nobody, although there were copies of them."""

import dataclasses


@dataclasses.dataclass
class _Copies:
    """:ivar left: how many are under way; reached: how many others were not
    lost with their server; gone: the instances of those that were
    """

    left: int
    reached: int = 0
    gone: list = dataclasses.field(default_factory=list)


class Fanouts:
    """Keeps, of each fanout that is under way, whose copies are where.

    Thread: outbox.
    """

    def __init__(self):
        self._by_id = {}

    def __len__(self):
        return len(self._by_id)

    def spread(self, message_id, count):
        """Copies of a fanout begin their way."""
        if count:
            self._by_id[message_id] = _Copies(count)

    def ended(self, copy, is_gone):
        """A copy is at its end.

        :param is_gone: its server is, and had certainly not acknowledged it
        :returns: the instances of all copies if this was the last one and
            every server is gone, else an empty list
        """
        copies = self._by_id.get(copy.id)
        if copies is None:
            return []
        copies.left -= 1
        if is_gone:
            copies.gone.append(copy.instance)
        else:
            copies.reached += 1
        if copies.left:
            return []
        del self._by_id[copy.id]
        return [] if copies.reached else copies.gone
