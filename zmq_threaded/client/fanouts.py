# SPDX-License-Identifier: Apache-2.0
"""Which fanouts reached nobody, although there were copies of them."""

import dataclasses

from zmq_threaded.client import delivery as deliveries


@dataclasses.dataclass
class _Copies:
    """The copies of one fanout.

    :ivar left: how many have not ended
    :ivar reached: how many have ended in another way than with their server
    :ivar gone: the instances of the copies that ended with their server

    Thread: outbox.
    """

    left: int
    reached: int = 0
    gone: list = dataclasses.field(default_factory=list)


class Fanouts:
    """Knows of each fanout how many copies have not ended, and which ended
    because their server is gone.

    Thread: outbox.
    """

    def __init__(self) -> None:
        self._by_id: dict[bytes, _Copies] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def spread(self, message_id: bytes, count: int) -> None:
        """Note how many copies of a fanout there are."""
        if count:
            self._by_id[message_id] = _Copies(count)

    def ended(self, copy: deliveries.Delivery, is_gone: bool) -> list:
        """Note that a copy has ended.

        :param is_gone: whether its server is gone, and has certainly not
            acknowledged the copy
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
