# SPDX-License-Identifier: Apache-2.0
"""What each --mode promises; load.oslo has one sender for each."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mode:
    """One way to send a message and what may be expected of it."""

    name: str
    replies: bool  # the sender waits for an answer
    every_server: (
        bool  # each message is due once at every server, not at one of them
    )


MODES = {mode.name: mode for mode in (
    Mode('call', replies=True, every_server=False),
    Mode('cast', replies=False, every_server=False),
    Mode('fanout', replies=False, every_server=True),
    Mode('notify', replies=False, every_server=False),
)}
