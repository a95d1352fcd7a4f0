# SPDX-License-Identifier: Apache-2.0
"""What only the first of many threads does, decided without a lock."""

from collections.abc import Hashable


class Once:
    """Something that belongs to the first who claims it.

    A claim is one operation on a dict, which the GIL makes atomic. So a
    signal handler may claim what the thread that it interrupts is claiming,
    and an exception between two lines leaves either a claim or none.

    Thread: any.
    """

    __slots__ = ('_owner',)

    def __init__(self) -> None:
        self._owner: dict[str, object] = {}

    def claim(self, who: Hashable = None) -> bool:
        """Say that the caller wants to do it.

        :param who: equal claimants count as one, so the same one may claim
            again; None is a claimant that nobody else equals
        :returns: whether it is the caller's to do
        """
        if who is None:
            who = object()
        return self._owner.setdefault('is', who) == who

    def give_back(self, who: Hashable) -> None:
        """Let the next one claim it. Nothing happens if it belongs to
        another claimant.
        """
        if self._owner.get('is') == who:
            del self._owner['is']

    def is_claimed(self) -> bool:
        return bool(self._owner)
