# SPDX-License-Identifier: Apache-2.0
"""What is written into a journal in one step."""

import dataclasses


@dataclasses.dataclass
class Batch:
    """What is written in one step.

    :ivar messages: deliveries, each with its Kept
    :ivar parts: of (delivery, Instance or None): where each is sent next
    :ivar ended_parts: keys
    :ivar ended: Kept of messages of which nothing is left
    :ivar pools: of (topic.Topic, pool, when it was seen, on the wall)

    Thread: journal.
    """

    messages: list = dataclasses.field(default_factory=list)
    parts: list = dataclasses.field(default_factory=list)
    ended_parts: list = dataclasses.field(default_factory=list)
    ended: list = dataclasses.field(default_factory=list)
    pools: list = dataclasses.field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.messages or self.parts or self.ended_parts
                    or self.ended or self.pools)
